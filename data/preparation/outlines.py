"""Outlines as annotation tools write them become masks: polygons, run lengths, bitmaps.

Malformed outlines end in a ValueError (or another of `MALFORMED`) before anything large is made.
"""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from data.image_files import turn_as_photograph
from data.run_lengths import check_runs, check_size, checked_mask, decode_mask

MALFORMED = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError),
    *(OverflowError, RecursionError, OSError, SyntaxError, Image.DecompressionBombError),
)
_MAX_OUTLINE = 10**7  # pixels of the polygons of an object
_DEEPEST = 6  # lists in lists
_ON_ITS_SIDE = 5  # EXIF orientations from here on exchange width and height
_BEYOND = 0.05  # of the picture; so far outline points may lie outside of it

Size = tuple[int, int]  # height, width


class NoOutlineError(ValueError):
    """An annotation has no outline, but a box, a line, a point or nothing."""


def decode_outline(
    outline: Any, size: Size | None, photograph: Size, orientation: int = 1
) -> np.ndarray:
    """Returns the mask (h, w) bool of an object in its photograph.

    Args:
        outline: polygons as lists of numbers or points, in pixels; run lengths as numbers or text;
            rows of 0 and 1; or a PNG in base64 with the corner where it lies.
        size: of the picture that was annotated; None if the file does not say it.
        photograph: its size now; a resized copy may have been annotated.
        orientation: EXIF orientation; the picture may have been annotated as it is stored.

    Raises:
        NoOutlineError: if there is no outline.
        ValueError: if it is damaged, or was drawn on a picture of another shape.
    """
    if outline is None or (isinstance(outline, list | dict | str) and not outline):
        raise NoOutlineError("no outline")
    # Polygons are scaled, pixels resized, both turned at the end
    if isinstance(outline, list) and not _is_bitmap(outline):
        rings = _rings(outline)
        size = size or _assumed_size(rings, photograph, orientation)
        turned = _is_turned(size, photograph, orientation)
        target = (photograph[1], photograph[0]) if turned else photograph
        mask = _fill(rings, target, scale=(target[1] / size[1], target[0] / size[0]))
    else:
        mask = _decode_pixels(outline, size or photograph)
        turned = _is_turned(mask.shape, photograph, orientation)
        mask = _resize(mask, (photograph[1], photograph[0]) if turned else photograph)
    return np.ascontiguousarray(turn_as_photograph(mask, orientation)) if turned else mask


def _is_turned(size: tuple[int, ...], photograph: Size, orientation: int) -> bool:
    """Returns whether the stored picture was annotated; ValueError for pictures of other shapes."""
    if _is_copy(size, photograph):
        return False
    if orientation >= _ON_ITS_SIDE and _is_copy(size, photograph[::-1]):
        return True
    got, expected = (f"{w} x {h}" for h, w in (size, photograph))
    raise ValueError(
        f"it was drawn on a picture of {got} pixels, but the photograph has {expected}: "
        "another one, or turned"
    )


def _is_copy(size: tuple[int, ...], photograph: tuple[int, ...]) -> bool:
    """Returns whether a picture has the same shape as another, up to the rounding of its sides."""
    (h, w), (height, width) = size, photograph
    check_size(h, w)
    # Rounding moves a side by up to half a pixel
    return abs(w * height - h * width) <= max(w + h, width + height) / 2


def _assumed_size(rings: list[np.ndarray], photograph: Size, orientation: int) -> Size:
    """Returns the size of an annotated picture where the file does not state it, if the outline fits."""
    # The picture may have been annotated as shown, or as stored
    stored = (photograph[1], photograph[0]) if orientation >= _ON_ITS_SIDE else photograph
    for size in (photograph, stored):
        limits = np.array([size[1], size[0]]) * (1 + _BEYOND)
        if all((ring <= limits).all() for ring in rings):
            return size
    raise ValueError("an outline beyond the photograph, in a file that states no size")


def _rings(outline: list, depth: int = 0) -> list[np.ndarray]:
    """Returns the polygons (N, 2) of a list of them, however deeply they are nested."""
    if depth > _DEEPEST:
        raise ValueError(f"polygons nested more than {_DEEPEST} times")
    # A list of numbers is a polygon, x and y in turn
    numbers = [isinstance(x, int | float) for x in outline]
    if numbers and all(numbers):
        points = np.array(outline, np.float64)
        if len(points) < 6 and len(points) % 2 == 0:
            return []  # a point or a line
        if len(points) % 2:
            raise ValueError(f"a polygon of {len(points)} numbers")
        return [_finite(points.reshape(-1, 2))]
    if any(numbers) or not all(isinstance(x, list | dict) for x in outline):
        raise ValueError("a polygon of something else than numbers")
    # So is a list of points; anything else holds polygons
    points = [_point(x) for x in outline]
    if points and all(point is not None for point in points) and len(points) > 2:
        return [_finite(np.array(points, np.float64))]
    return [ring for x in outline if isinstance(x, list) for ring in _rings(x, depth + 1)]


def _finite(points: np.ndarray) -> np.ndarray:
    if not np.isfinite(points).all():
        raise ValueError("a polygon with numbers that are not finite")
    return points


def _point(value: Any) -> list[float] | None:
    """Returns x and y of a point; None for what is none."""
    if isinstance(value, dict):
        value = [value["x"], value["y"]]
    two = len(value) == 2 and all(isinstance(x, int | float) for x in value)
    return value if two else None


def _fill(rings: list[np.ndarray], size: Size, scale: tuple[float, float]) -> np.ndarray:
    """Returns the union (h, w) of polygons whose points are multiplied by a scale."""
    if not rings:
        raise NoOutlineError("no outline, but points or lines")
    rings = [ring * scale for ring in rings]
    # pycocotools takes 40 bytes for each pixel of the outline, and trusts its input
    steps = sum(float(np.abs(np.diff(ring, axis=0)).sum()) for ring in rings)
    farthest = max(float(np.abs(ring).max()) for ring in rings)
    if not steps + farthest < _MAX_OUTLINE:
        raise ValueError(f"an outline of {steps:.3g} pixels")
    polygons = [ring.flatten().tolist() for ring in rings]
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))  # type: ignore[arg-type]
    return coco_mask.decode(runs) > 0


def _decode_pixels(outline: Any, size: Size) -> np.ndarray:
    """Returns the mask (h, w) of run lengths, rows of pixels, or a part of a picture."""
    if isinstance(outline, list):
        check_size(len(outline), len(outline[0]))
        return np.array(outline) > 0
    if isinstance(outline, str | bytes):
        outline = {"size": size, "counts": outline}
    if "png" in outline:
        return _paste(outline["png"], outline["corner"], size)
    height, width = map(int, outline.get("size") or size)
    check_size(height, width)
    # Run lengths as numbers, in columns as COCO counts
    if isinstance(outline["counts"], list):
        counts = np.array(outline["counts"])
        if counts.dtype.kind == "f" and (counts % 1 == 0).all():
            counts = counts.astype(np.int64)
        if counts.dtype.kind not in "iu":
            raise ValueError("run lengths that are no whole numbers")
        check_runs(counts, height, width)
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(height, width, order="F")
    size_and_counts = {"size": [height, width], "counts": outline["counts"]}
    return decode_mask(checked_mask(size_and_counts, height, width))


def _is_bitmap(outline: list) -> bool:
    """Returns whether a list holds the rows of a mask: several of one length, of 0 and 1."""
    if len(outline) < 2 or not all(isinstance(row, list) and row for row in outline):
        return False
    # Polygons may be lists of equal length too, but not of 0 and 1 alone
    lengths = {len(row) for row in outline}
    return len(lengths) == 1 and all(x in (0, 1) for row in outline for x in row)


def _paste(png: str, corner: Any, size: Size) -> np.ndarray:
    """Returns a mask (h, w) in which a small picture lies at x, y."""
    # Both sizes are checked before anything is allocated
    check_size(*size)
    with Image.open(io.BytesIO(base64.b64decode(png)), formats=["PNG"]) as picture:
        check_size(picture.height, picture.width)
        piece = np.array(picture.convert("L")) > 0
    x, y = (round(float(value)) for value in corner)
    # Tools round the corner, so that one pixel may stick out
    if x < 0 or y < 0 or y + piece.shape[0] > size[0] + 1 or x + piece.shape[1] > size[1] + 1:
        raise ValueError("a mask that reaches beyond its picture")
    mask = np.zeros((size[0] + 1, size[1] + 1), bool)
    mask[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
    return mask[:-1, :-1]


def _resize(mask: np.ndarray, size: Size) -> np.ndarray:
    """Returns a mask (h, w) in another size."""
    if mask.shape == size:
        return mask
    # Interpolated, since repeated pixels would shift the outline
    picture = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)) > 127
