"""Masks as run lengths: those of COCO, compressed to text, with the size of the whole image."""

import re
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from data.image_files import MAX_PIXELS

# {"size": [h, w], "counts": compressed run lengths as text}
RLE = dict[str, Any]
Box4 = tuple[float, float, float, float]

# pycocotools trusts its input: groups of six bits, all but the last of a number with the sixth set
_RUN_LENGTHS = re.compile(r"(?:[P-o]{0,6}[0-O])*")


def encode_mask(mask: np.ndarray) -> RLE:
    """Compresses a boolean mask (h, w) to run lengths."""
    rle: Any = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: RLE) -> np.ndarray:
    """Returns the boolean mask (h, w) of run lengths."""
    return coco_mask.decode(_packed(rle)) > 0


def _packed(rle: RLE) -> Any:
    """Returns run lengths in the spelling of pycocotools, which wants bytes."""
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}


def mask_area(rle: RLE) -> int:
    """Returns the pixels of a packed mask."""
    return int(coco_mask.area(_packed(rle)))


def packed_box(rle: RLE) -> Box4:
    """Returns the box of a packed mask, as `mask_box` does."""
    x, y, width, height = coco_mask.toBbox(_packed(rle)).tolist()
    return x, y, x + width - 1, y + height - 1


def mask_box(mask: np.ndarray) -> Box4:
    """Returns x1, y1, x2, y2 of a mask (h, w) with at least one pixel, both ends included."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def check_size(height: int, width: int) -> None:
    """Raises a ValueError for images that would not be read."""
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"an image of {width} x {height} pixels")


def checked_mask(rle: Any, height: int, width: int) -> RLE:
    """Returns run lengths that pycocotools can decode without harm; ValueError otherwise."""
    counts = rle["counts"]
    # Text from JSON, bytes from a pickle
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    if [int(x) for x in rle["size"]] != [height, width]:
        raise ValueError(f"a mask of {rle['size']} in an image of {[height, width]} pixels")
    check_size(height, width)
    # pycocotools trusts its input, so that characters and lengths are checked here
    if not _RUN_LENGTHS.fullmatch(text):
        raise ValueError("damaged run lengths")
    check_runs(_run_lengths(text), height, width)
    return {"size": [height, width], "counts": text}


def check_runs(counts: np.ndarray, height: int, width: int) -> None:
    """Raises a ValueError for run lengths that do not fill an image exactly.

    Each is compared before they are added, so that no sum can overflow.
    """
    filled = len(counts) > 0 and counts.min() >= 0 and counts.max() <= height * width
    if not filled or counts.sum() != height * width:
        raise ValueError(f"run lengths that do not fill {width} x {height} pixels")


def _run_lengths(text: str) -> np.ndarray:
    """Returns the numbers behind COCO's compressed run lengths, which `_RUN_LENGTHS` matches.

    A character holds five bits of a number, the lowest first, and whether more follow; from the
    fourth number on it is the difference to the last but one.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if len(codes) == 0:
        return codes
    # The last character of a number has no sixth bit
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((codes & 31) << 5 * place, starts)
    # Negative differences are stored as two's complement
    negative = (codes[ends] & 16) > 0
    numbers -= np.where(negative, 1 << 5 * (ends - starts + 1), 0)
    # Undo the differences, for runs of the object and of the background separately
    numbers[1::2], numbers[2::2] = np.cumsum(numbers[1::2]), np.cumsum(numbers[2::2])
    return numbers
