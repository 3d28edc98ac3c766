"""Masks for photographs that have none, from the objects that people or networks have outlined.

Of the objects of the right category in a photograph, the best one is taken: whole, large enough, and
not in contact with another object. Without such an object the mask stays empty.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.collection import Collection
from data.image_files import UnreadablePicture, photograph_size
from data.preparation.made_masks import MadeMask, read_made_mask, write_made_mask
from data.preparation.options import MIN_AREA_MADE, MIN_SCORE
from data.preparation.quality import GROWN, grow, is_cut_off
from data.run_lengths import RLE, decode_mask, mask_area, packed_box
from utils.progress import progress

logger = logging.getLogger(__name__)

_LARGE = 0.3  # of the image; so large an object may touch others
_SAME = 0.9  # overlap from which on two outlines are of the same object


class Candidate(NamedTuple):
    """A detected object; its mask is packed, since tools find hundreds in a photograph.

    Attributes:
        category: its name in lower case; None where the tool knows none.
        score: confidence in [0, 1].
        runs: its mask (h, w), as `encode_mask` packs it.
        crowd: whether it marks any region, not one object.
    """

    category: str | None
    score: float
    runs: RLE
    crowd: bool = False

    @property
    def mask(self) -> np.ndarray:
        """Mask (h, w) bool."""
        return decode_mask(self.runs)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return mask_area(self.runs)


class Limits(NamedTuple):
    """What an object must have to be taken.

    Attributes:
        min_area: pixels.
        min_score: confidence.
    """

    min_area: int = MIN_AREA_MADE
    min_score: float = MIN_SCORE


class NoObjectError(Exception):
    """There is nothing to choose from; the message ends a sentence that begins with the path."""


class Detector(NamedTuple):
    """A source of outlined objects.

    Attributes:
        detect: returns the objects of a photograph; raises NoObjectError.
        category: name of the objects that are wanted.
        origin: identifies the source with its options, so that its masks are recognized.
        by_people: whether a later version of it replaces the masks of an earlier one.
    """

    detect: Callable[[Path], list[Candidate]]
    category: str
    origin: str
    by_people: bool = False


def write_masks(
    collection: Collection, detector: Detector, limits: Limits, replace: bool = False
) -> dict[Path, str]:
    """Writes the masks that are missing or empty, and those that corrected annotations change.

    Masks that the same source has made already are kept, so that an interrupted run continues.
    A mask with an object is never replaced by an empty one.

    Args:
        collection: the photographs.
        detector: source of the objects.
        limits: what an object must have.
        replace: writes all masks for which there is an object anew, those of other sources too.

    Returns:
        Why the mask stays empty, by photograph.
    """
    origin = f"{detector.origin} {limits.min_area} {limits.min_score}"
    reasons: dict[Path, str] = {}
    counts: Counter[str] = Counter()
    for image in progress(collection.images, description="masks"):
        path = collection.mask_path(image)
        # What this source has made before, or what is not to be touched
        made = read_made_mask(path)
        if made is not None and made.origin == origin:
            counts["finished before"] += not made.reason
            if made.reason:
                reasons[image] = made.reason
            continue
        if not _is_open(made, detector, replace):
            counts["kept"] += 1
            continue
        # The best object there is, or the reason why there is none
        try:
            mask, reason = best_mask(image, detector, limits)
        except UnreadablePicture:
            continue  # the preparation reports it, together with what else is wrong
        if reason and made is not None and not made.empty:
            counts["kept"] += 1
            logger.warning("%s %s; its mask is kept", image, reason)
            continue
        write_made_mask(path, MadeMask(origin, reason, empty=bool(reason)), mask)
        counts["new" if made is None or made.empty else "replaced"] += not reason
        if reason:
            reasons[image] = reason
    _report(collection, counts, replace)
    return reasons


def _report(collection: Collection, counts: Counter[str], replace: bool) -> None:
    # New ones always, the other counts where there are any
    listed = [f"{counts['new']} new masks with an object"]
    listed += [f"{counts[key]} {key}" for key in ("replaced", "finished before", "kept")]
    hint = " (--replace_masks makes them again)" if counts["kept"] and not replace else ""
    present = [text for text in listed if not text.startswith("0 ") or "new" in text]
    logger.info("%s/masks/: %s%s", collection.root, ", ".join(present), hint)


def _is_open(made: MadeMask | None, detector: Detector, replace: bool) -> bool:
    """Returns whether a mask may be written: it is missing, empty, outdated or to be replaced."""
    if made is None or made.empty or replace:
        return True
    return detector.by_people and made.origin.startswith(detector.origin.split()[0] + " ")


def best_mask(image: Path, detector: Detector, limits: Limits) -> tuple[np.ndarray, str]:
    """Returns the mask (h, w) of the best object; an empty one, and why, without any."""
    shape = photograph_size(image)
    try:
        candidates = detector.detect(image)
    except NoObjectError as error:
        return np.zeros(shape, bool), str(error)
    best = choose(candidates, detector.category, limits)
    if best is None:
        return np.zeros(shape, bool), _why_none(candidates, detector.category, limits)
    return candidates[best].mask, ""


def choose(candidates: list[Candidate], category: str, limits: Limits = Limits()) -> int | None:  # noqa: B008 - immutable
    """Returns the position of the most certain usable object of a category; None if there is none.

    Regions that may be crowds are taken only where there is nothing else.
    """
    # Every usable one, then the largest of the certain ones
    usable = [
        number
        for number, candidate in enumerate(candidates)
        if _is_wanted(candidate, category) and complaint(candidates, number, limits) is None
    ]

    def rank(number: int) -> tuple[bool, float]:
        candidate = candidates[number]
        return not candidate.crowd, candidate.score * candidate.area

    return max(usable, key=rank, default=None)


def _is_wanted(candidate: Candidate, category: str) -> bool:
    return candidate.category in (None, category)


def complaint(candidates: list[Candidate], number: int, limits: Limits) -> str | None:
    """Returns what speaks against an object, the end of a sentence; None if it is usable."""
    candidate = candidates[number]
    area = candidate.area
    if candidate.score < limits.min_score:
        return f"is uncertain: score {candidate.score:.2f}, expected {limits.min_score:g}"
    if area < limits.min_area:
        return f"is small: {area} pixels, expected {limits.min_area}"
    if is_cut_off(candidate.mask):
        return "is cut off at the border"
    return "touches another object" if _collides(candidates, number) else None


def _why_none(candidates: list[Candidate], category: str, limits: Limits) -> str:
    """Returns why no object of a photograph is usable, by the largest of the category."""
    numbers = [i for i, candidate in enumerate(candidates) if _is_wanted(candidate, category)]
    if not numbers:
        others = sorted({str(candidate.category) for candidate in candidates})
        return f"shows no {category}" + (f", but {', '.join(others[:5])}" if others else "")
    # The largest one is what a person would expect to be taken
    largest = max(numbers, key=lambda i: candidates[i].area)
    name = candidates[largest].category or "object"
    article = "an" if name[0] in "aeiou" else "a"
    return f"shows {article} {name} that {complaint(candidates, largest, limits)}"


def _collides(candidates: list[Candidate], number: int) -> bool:
    """Returns whether a small object touches another; outlines without category may overlap."""
    # Regions of no category may lie in each other, as SAM's do
    this = candidates[number]
    if this.category is None or this.area >= _LARGE * math.prod(this.runs["size"]):
        return False
    # Grown by two pixels each: objects that almost touch count as well
    grown = grow(this.mask)
    for other, candidate in enumerate(candidates):
        if other == number or candidate.crowd or candidate.category is None:
            continue
        if not _is_near(this.runs, candidate.runs):
            continue
        touches = (grown & grow(candidate.mask)).any()
        if touches and not _is_same(this, candidate):
            return True
    return False


def _is_near(one: RLE, other: RLE) -> bool:
    """Returns whether the boxes of two masks meet once the masks are grown."""
    x1, y1, x2, y2 = packed_box(one)
    left, top, right, bottom = packed_box(other)
    return max(left - x2, x1 - right, top - y2, y1 - bottom) <= 2 * GROWN


def _is_same(one: Candidate, other: Candidate) -> bool:
    """Returns whether two outlines are of the same object, found twice."""
    first, second = one.mask, other.mask
    both = (first & second).sum()
    return one.category == other.category and both >= _SAME * (first | second).sum()
