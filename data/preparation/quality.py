"""What may be wrong with the mask of an object: its position, and its number of pieces."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

MIN_SIDE = 64  # pixels of the longer side of an object; less shows nothing of its texture
GROWN = 2  # pixels by which masks grow before it is seen whether they touch
_BORDER = 10  # pixels from the border within which an object may be cut off
_CUT_PIXELS = 50  # of the mask on the edge of its box
_MOST = 0.5  # of the border of a photograph
_SPECK = 0.05  # of the largest piece; smaller ones are specks
_FEW = 0.001  # of the object
_NEIGHBORS = np.ones((3, 3))  # pieces hold together at corners, too


class Finding(NamedTuple):
    """Something about a photograph that a person should know.

    Attributes:
        kind: key of `MEANINGS`.
        text: the end of a sentence that begins with the path.
    """

    kind: str
    text: str


# What each kind of finding means, and what is done about it
MEANINGS = {
    "unusable": "cannot be used: they stop the preparation; --skip_invalid leaves them out",
    "border": "are most of the border: such a mask is inverted, or the photograph shows a detail. "
    "Kept; turn the mask round (--masks dark, if all are inverted) or remove the photograph",
    "cut off": "are cut off at the border: pose and shape are fitted to what the mask shows. Kept; "
    "remove those that lack more than a tip",
    "small": f"are small: below {MIN_SIDE} pixels there is little texture to learn. Kept",
    "pieces": "are in several pieces, which all count as the object. Kept; look whether another "
    "object is among them",
    "specks": "have specks, which count as the object and may widen its box. Kept; erase them",
    "turned": "are turned by their EXIF data: a mask may have been drawn on the picture as it is "
    "stored. Kept; compare outline and photograph in the picture of this check",
    "values": "have masks of many values, like photographs. Kept; look whether they are masks",
    "copy": "look like another photograph, as frames of a video do. No fault, and kept; thin them "
    "out only where most of a collection is the same scene",
}


def find_faults(mask: np.ndarray) -> list[Finding]:
    """Returns what is odd about a mask (h, w) bool with at least one pixel."""
    share = _border_share(mask)
    if share >= _MOST:
        return [Finding("border", f"has an object that is {share:.0%} of its border")]
    return _broken(mask)


def _border_share(mask: np.ndarray) -> float:
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def _broken(mask: np.ndarray) -> list[Finding]:
    """Returns whether a mask is in pieces, or has specks."""
    labels, count = ndimage.label(mask, _NEIGHBORS)  # type: ignore[misc] - two values without output=
    if count == 1:
        return []
    found = []
    # A large piece may be another object, the small ones are specks
    sizes = np.bincount(labels.ravel())[1:]
    large = sizes >= _SPECK * sizes.max()
    if large.sum() > 1:
        share = sizes.max() / sizes.sum()
        text = f"has an object in {large.sum()} pieces, the largest of them {share:.0%} of it"
        found.append(Finding("pieces", text))
    # Single pixels beside the object change nothing; far away they widen the crop
    number, pixels = int((~large).sum()), int(sizes[~large].sum())
    whole, without = _box_size(mask), _box_size(np.isin(labels, np.flatnonzero(large) + 1))
    if whole != without or pixels > _FEW * sizes.sum():
        text = f"has specks in its mask ({number}, in all {pixels} pixels)"
        if whole != without:
            text += " that widen its box from {} x {}".format(*without)
            text += " to {} x {} pixels".format(*whole)
        found.append(Finding("specks", text))
    return found


def _box_size(mask: np.ndarray) -> tuple[int, int]:
    """Returns width and height of the box around a mask (h, w)."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def find_small_or_cut(mask: np.ndarray) -> list[Finding]:
    """Returns whether an object (h, w) leaves its photograph or is small."""
    width, height = _box_size(mask)
    found = [Finding("cut off", "is cut off at the border")] if is_cut_off(mask) else []
    if max(width, height) < MIN_SIDE:
        text = f"shows a small object: {width} x {height} pixels, expected {MIN_SIDE}"
        found.append(Finding("small", text))
    return found


def is_cut_off(mask: np.ndarray) -> bool:
    """Returns whether an object (h, w) leaves its image: a broad edge of it lies at the border."""
    return any(_ends_broadly(side) for side in (mask, mask[::-1], mask.T, mask.T[::-1]))


def _ends_broadly(mask: np.ndarray) -> bool:
    """Returns whether the first row of an object is long and near the first row of the image."""
    # The first row of the object, if it is near the border
    rows = np.flatnonzero(mask.any(1))
    if not len(rows) or rows[0] >= _BORDER:
        return False
    # Neighboring rows are merged, so that a ragged edge counts as one
    edge = grow(mask[max(rows[0] - 2, 0) : rows[0] + 3])[min(rows[0], 2)]
    return bool(edge.sum() >= _CUT_PIXELS)


def grow(mask: np.ndarray) -> np.ndarray:
    """Returns a mask (h, w) with `GROWN` pixels more on every side."""
    return ndimage.binary_dilation(mask, np.ones((2 * GROWN + 1, 2 * GROWN + 1)))
