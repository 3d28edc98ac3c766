"""What is wrong with the photographs of a collection: a list, and a contact sheet to look at."""

import logging
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from data.cache.folders import cache_folder
from data.collection import Collection, word_about
from data.image_files import UnreadablePicture, read_photograph
from data.preparation.photographs import Inspection
from data.preparation.quality import MEANINGS, Finding, find_small_or_cut
from data.run_lengths import decode_mask
from utils.cli import one_line
from utils.files import atomic_path, write_json
from utils.pictures import drawable
from utils.progress import progress

logger = logging.getLogger(__name__)

SAME_BITS = 4  # of 64; hashes of two pictures of one scene differ in fewer
THUMBNAIL = 120  # pixels
_COLUMNS = 8
_SHEET_IMAGES = 240
_CAPTION = 44  # pixels below a thumbnail
_FAULT, _REMARK, _FINE = "#d03030", "#d0a030", "#30a050"  # frames of thumbnails


def report(collection: Collection, result: Inspection) -> dict[Path, list[str]]:
    """Logs the findings of every photograph, and writes check.json and check.png to the cache.

    Args:
        collection: the photographs.
        result: the result of reading them; near copies are added to its findings.

    Returns:
        Findings by photograph; photographs without any are absent.
    """
    found = _all_findings(collection, result)
    for path, findings in sorted(found.items()):
        logger.info("%s %s", path, "; ".join(finding.text for finding in findings))
    # Each kind counts once per photograph, and is explained once
    kinds = [kind for findings in found.values() for kind in {finding.kind for finding in findings}]
    for kind, meaning in MEANINGS.items():
        if kind in kinds:
            logger.info("%d %s.", kinds.count(kind), meaning)
    if collection.ignored:
        logger.info("%s", word_about(collection.ignored))

    # The same for programs, and a picture for people
    texts = {path: [finding.text for finding in found[path]] for path in sorted(found)}
    cache, count = cache_folder(collection.name), len(collection.images)
    write_json(cache / "check.json", {str(path): lines for path, lines in texts.items()})
    _save_sheet(cache / "check.png", collection, result, found)
    faults = sum(map(_has_fault, found.values()))
    logger.info(
        "%d of %d photographs have something to look at: %s", faults, count, cache / "check.png"
    )
    return texts


def _all_findings(collection: Collection, result: Inspection) -> dict[Path, list[Finding]]:
    """Returns the findings by photograph, with those that only a check looks for."""
    # Reasons against photographs come first, then what is odd about usable ones
    found = {path: [Finding("unusable", reason)] for path, reason in result.left_out.items()}
    for item in result.items:
        path = Path(item.image_path)
        findings = result.findings.get(path, []) + find_small_or_cut(decode_mask(item.mask))
        if findings:
            found.setdefault(path, []).extend(findings)
    folder = collection.root / "images"
    for path, original in _duplicates([Path(item.image_path) for item in result.items]).items():
        finding = Finding("copy", f"looks like {original.relative_to(folder)}")
        found.setdefault(path, []).append(finding)
    return found


def _has_fault(findings: list[Finding]) -> bool:
    return any(finding.kind != "copy" for finding in findings)


def perceptual_hash(picture: Image.Image) -> int:
    """Returns 64 bits: whether brightness grows from left to right, in a grid of 8 x 8."""
    # Nine columns have eight differences
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
    # Compared with all earlier ones, so that the first of a scene stays
    for number in range(1, len(paths)):
        different = np.bitwise_count(hashes[:number] ^ hashes[number])
        nearest = int(different.argmin())
        if different[nearest] <= SAME_BITS:
            found[paths[number]] = paths[nearest]
    return found


def _save_sheet(
    path: Path, collection: Collection, result: Inspection, found: dict[Path, list[Finding]]
) -> None:
    """Draws thumbnails, those with faults first; what is not the object is dimmed."""
    masks = {Path(item.image_path): item.mask for item in result.items}

    def frame_color(image: Path) -> str:
        if image not in found:
            return _FINE
        return _FAULT if _has_fault(found[image]) else _REMARK

    # Faults come first, as the sheet has room for some photographs only
    order = (_FAULT, _REMARK, _FINE)
    shown = sorted(collection.images, key=lambda image: order.index(frame_color(image)))
    shown = shown[:_SHEET_IMAGES]
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * THUMBNAIL, rows * (THUMBNAIL + _CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, image in enumerate(shown):
        x, y = number % _COLUMNS * THUMBNAIL, number // _COLUMNS * (THUMBNAIL + _CAPTION)
        mask = decode_mask(masks[image]) if image in masks else None
        sheet.paste(_thumbnail(image, mask), (x + 3, y + 3))
        frame = (x + 1, y + 1, x + THUMBNAIL - 2, y + THUMBNAIL - 2)
        pen.rectangle(frame, outline=frame_color(image), width=2)
        texts = [finding.text for finding in found.get(image, [])]
        text = f"{image.name}: {'; '.join(texts)}" if texts else image.name
        lines = textwrap.wrap(drawable(one_line(text)), 19)[:3]
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
