"""What is wrong with the photographs of a collection: a list, and a contact sheet to look at."""

import logging
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from data.cache.folders import cache_folder
from data.collection import Collection
from data.detections import Detection, decode_mask
from data.image_files import UnreadablePicture, read_photograph
from data.preparation.masking import is_cut_off
from utils.files import atomic_path, write_json
from utils.progress import progress

logger = logging.getLogger(__name__)

MIN_SIDE = 64  # pixels of the longer side of an object; less shows nothing of its texture
SAME_BITS = 4  # of 64; hashes of two pictures of one scene differ in fewer
THUMBNAIL = 120  # pixels
_COLUMNS = 8
_SHEET_IMAGES = 240
_CAPTION = 44  # pixels below a thumbnail
_COLORS = {True: "#d03030", False: "#30a050"}  # with and without findings


def report(
    collection: Collection, items: list[Detection], left_out: dict[Path, str]
) -> dict[Path, list[str]]:
    """Logs the findings of every photograph, and writes check.json and check.png to the cache.

    Args:
        collection: the photographs.
        items: objects of the usable ones.
        left_out: the others, with the reason.

    Returns:
        Findings by photograph; photographs without any are absent.
    """
    found = {path: [reason] for path, reason in left_out.items()}
    for item in items:
        complaints = _complaints(item)
        if complaints:
            found[Path(item.image_path)] = complaints
    folder = collection.root / "images"
    for path, original in _duplicates([Path(item.image_path) for item in items]).items():
        found.setdefault(path, []).append(f"looks like {original.relative_to(folder)}")
    for path, complaints in sorted(found.items()):
        logger.info("%s %s", path, "; ".join(complaints))
    cache, count = cache_folder(collection.name), len(collection.images)
    write_json(cache / "check.json", {str(path): found[path] for path in sorted(found)})
    sheet = cache / "check.png"
    _save_sheet(sheet, collection, items, found)
    logger.info("%d of %d photographs have something to look at: %s", len(found), count, sheet)
    return found


def _complaints(item: Detection) -> list[str]:
    mask = decode_mask(item.mask)
    left, top, right, bottom = item.bbox
    width, height = int(right - left + 1), int(bottom - top + 1)
    complaints = ["is cut off at the border"] if is_cut_off(mask) else []
    if max(width, height) < MIN_SIDE:
        complaints.append(f"shows a small object: {width} x {height} pixels, expected {MIN_SIDE}")
    return complaints


def perceptual_hash(picture: Image.Image) -> int:
    """Returns 64 bits: whether brightness grows from left to right, in a grid of 8 x 8."""
    small = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _duplicates(paths: list[Path]) -> dict[Path, Path]:
    """Returns the photographs that look like an earlier one, with that one."""
    hashes = np.array(
        [
            perceptual_hash(Image.fromarray(read_photograph(path)))
            for path in progress(paths, description="comparing photographs")
        ],
        np.uint64,
    )
    found = {}
    for number in range(1, len(paths)):
        different = np.bitwise_count(hashes[:number] ^ hashes[number])
        nearest = int(different.argmin())
        if different[nearest] <= SAME_BITS:
            found[paths[number]] = paths[nearest]
    return found


def _save_sheet(
    path: Path, collection: Collection, items: list[Detection], found: dict[Path, list[str]]
) -> None:
    """Draws thumbnails, those with findings first; what is not the object is dimmed."""
    masks = {Path(item.image_path): item.mask for item in items}
    shown = sorted(collection.images, key=lambda image: image not in found)[:_SHEET_IMAGES]
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * THUMBNAIL, rows * (THUMBNAIL + _CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, image in enumerate(shown):
        x, y = number % _COLUMNS * THUMBNAIL, number // _COLUMNS * (THUMBNAIL + _CAPTION)
        mask = decode_mask(masks[image]) if image in masks else None
        sheet.paste(_thumbnail(image, mask), (x + 3, y + 3))
        frame = (x + 1, y + 1, x + THUMBNAIL - 2, y + THUMBNAIL - 2)
        pen.rectangle(frame, outline=_COLORS[image in found], width=2)
        text = f"{image.name}: {'; '.join(found[image])}" if image in found else image.name
        lines = textwrap.wrap(text, 19)[:3]
        pen.text((x + 3, y + THUMBNAIL), "\n".join(lines), fill="black", font_size=10)
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _thumbnail(image: Path, mask: np.ndarray | None) -> Image.Image:
    size = (THUMBNAIL - 6, THUMBNAIL - 6)
    try:
        pixels = read_photograph(image)
    except UnreadablePicture:
        return Image.new("RGB", size, "#d0d0d0")
    if mask is not None:
        pixels = np.where(mask[..., None], pixels, pixels // 3 + 160)
    return ImageOps.pad(Image.fromarray(pixels.astype(np.uint8)), size, color="white")
