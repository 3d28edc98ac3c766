"""The masks of a collection: from masks/, or from the transparency of cut-out photographs."""

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data import mask_styles
from data.collection import Collection, folders_in
from data.image_files import (
    UnreadablePicture,
    has_alpha,
    read_mask_numbers,
    read_orientation,
    turn_as_photograph,
)
from data.mask_styles import Choice, Evidence, Numbers, Rule, Source
from data.preparation.made_masks import read_made_mask
from data.preparation.quality import Finding
from utils.cli import UserError

logger = logging.getLogger(__name__)

_SAMPLE = 64  # masks that are looked at before it is decided how to read all
_MANY_VALUES = 64  # of a label map
_HALF_TONES = 0.25  # share of a mask that is neither bright nor dark
_ON_ITS_SIDE = 5  # EXIF orientations from here on exchange width and height


@dataclass
class MaskReader:
    """Reads the masks of a collection, all by the same rules.

    Attributes:
        collection: the photographs and the place of their masks.
        choice: how the user says that masks are to be read.
        cut_out: whether the photographs' own transparency is taken.
        rules: what the numbers of each source mean.
    """

    collection: Collection
    choice: Choice
    cut_out: bool
    rules: dict[Source, Rule] = field(default_factory=dict)

    def path(self, image: Path) -> Path:
        """Returns the file that holds the mask of a photograph."""
        return image if self.cut_out else self.collection.mask_path(image)

    def read(self, image: Path, shape: tuple[int, int]) -> tuple[np.ndarray, list[Finding]]:
        """Returns the mask (h, w) bool of a photograph of that shape, and what is odd about it.

        Raises:
            UnreadablePicture: if there is no mask, or none that belongs to the photograph.
        """
        path = self.path(image)
        try:
            numbers = read_mask_numbers(path, self.choice)
        except UnreadablePicture as error:
            raise UnreadablePicture(image, self._missing(image, path, error.reason)) from None
        # A source that the sample did not have decides for itself
        rule = self.rules.get(numbers.source)
        if rule is None:
            evidence = mask_styles.observe(numbers.values)
            rule = mask_styles.decide(numbers.source, [evidence], self.choice)
        mask = mask_styles.apply(rule, numbers)
        mask, findings = _turned(image, path, mask, shape) if path != image else (mask, [])
        # An empty mask that was made here says why itself
        if not mask.any():
            made = read_made_mask(path)
            if made is not None and made.reason:
                raise UnreadablePicture(image, made.reason)
            raise UnreadablePicture(image, _why_empty(path, numbers, rule))
        return mask, findings + _many_values(numbers, rule)

    def _missing(self, image: Path, path: Path, reason: str) -> str:
        """Returns why there is no mask, with a file that may be meant."""
        if self.cut_out:
            return f"has no mask: {reason}, and there is no {self.collection.root}/masks/"
        # A file of a similar name is probably meant
        other = None if path.exists() else self.collection.mask_elsewhere(image)
        hint = f"; rename {other} to it" if other is not None else ""
        return f"cannot be used: {path} {reason}{hint}"

    def learn(self) -> None:
        """Looks at some masks, decides how to read all, and says so in one line."""
        # Masks from the whole collection, not only its beginning
        images = self.collection.images
        step = -(-len(images) // _SAMPLE)
        observed: dict[Source, list[Evidence]] = defaultdict(list)
        for image in images[::step]:
            try:
                numbers = read_mask_numbers(self.path(image), self.choice)
            except UnreadablePicture:
                continue  # reported when its turn comes
            observed[numbers.source].append(mask_styles.observe(numbers.values))
        # One rule for each source, and one line for all
        for source, evidence in observed.items():
            self.rules[source] = mask_styles.decide(source, evidence, self.choice)
        place = f"transparency of {self.collection.root}/images/"
        place = place if self.cut_out else f"{self.collection.root}/masks/"
        words = "; ".join(rule.describe(source) for source, rule in self.rules.items())
        usual = self.choice != "auto" or all(rule == Rule() for rule in self.rules.values())
        other = "" if usual else f" (if not: --masks {', '.join(mask_styles.CHOICES[1:])})"
        if words:
            logger.info("%s: %s%s", place, words, other)


def read_own_mask(
    image: Path, path: Path, shape: tuple[int, int]
) -> tuple[np.ndarray, list[Finding]]:
    """Returns the mask (h, w) bool of a photograph that belongs to no collection, and what is odd about it.

    Args:
        image: the photograph.
        path: file of the mask; the photograph itself for its transparency.
        shape: of the photograph.

    Raises:
        UnreadablePicture: if there is no mask, or none that belongs to the photograph.
    """
    try:
        numbers = read_mask_numbers(path, "alpha" if path == image else "auto")
    except UnreadablePicture as error:
        raise UnreadablePicture(image, f"has no mask: {path} {error.reason}") from None
    rule = mask_styles.decide(numbers.source, [mask_styles.observe(numbers.values)])
    mask = mask_styles.apply(rule, numbers)
    if not mask.any():
        raise UnreadablePicture(image, _why_empty(path, numbers, rule))
    turned, findings = _turned(image, path, mask, shape) if path != image else (mask, [])
    return turned, findings + _many_values(numbers, rule)


def _why_empty(path: Path, numbers: Numbers, rule: Rule) -> str:
    means, largest = rule.describe(numbers.source), int(numbers.values.max())
    return f"has an empty mask ({path}: {means}, the maximum is {largest})"


def open_masks(collection: Collection, choice: Choice) -> MaskReader:
    """Returns the reader of a collection's masks.

    Raises:
        UserError: if there is no masks/, and no photograph with transparency.
    """
    # Without masks/ the photographs must be cut out, and their transparency is the mask
    cut_out = not (collection.root / "masks").is_dir()
    if cut_out and not any(map(_may_be_cut_out, collection.images)):
        raise UserError(
            f"{collection.root}/masks/ does not exist{folders_in(collection.root)}, and no photograph "
            "is transparent around its object. Put a mask for every photograph there: same name, "
            ".png, white = object. Or let --mask_model, --mask_rcnn or --annotations make them."
        )
    reader = MaskReader(collection, "alpha" if cut_out else choice, cut_out)
    reader.learn()
    return reader


def _may_be_cut_out(image: Path) -> bool:
    try:
        return has_alpha(image)
    except UnreadablePicture:
        return False


def _turned(
    image: Path, path: Path, mask: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, list[Finding]]:
    """Returns a mask that lies as its photograph does, if the EXIF data of that turns it."""
    # A mask with EXIF data of its own has been turned already
    orientation = read_orientation(image)
    if orientation == 1 or read_orientation(path) != 1:
        _check_size(image, path, mask, shape)
        return mask, []
    if mask.shape == shape[::-1] != shape and orientation >= _ON_ITS_SIDE:
        text = f"is turned by its EXIF data, and so is {path}, which fits the stored picture only"
        return turn_as_photograph(mask, orientation), [Finding("turned", text)]
    _check_size(image, path, mask, shape)
    if orientation >= _ON_ITS_SIDE and shape[0] != shape[1]:
        return mask, []  # it would have another size, had it been drawn on the stored picture
    text = f"is turned by its EXIF data (orientation {orientation}): does {path} belong to it?"
    return mask, [Finding("turned", text)]


def _check_size(image: Path, path: Path, mask: np.ndarray, shape: tuple[int, int]) -> None:
    if mask.shape != shape:
        got, expected = (f"{w} x {h}" for h, w in (mask.shape, shape))
        raise UnreadablePicture(image, f"has {expected} pixels, but {path} has {got}")


def _many_values(numbers: Numbers, rule: Rule) -> list[Finding]:
    """Returns whether a mask looks like a photograph."""
    values = mask_styles.thin_out(numbers.values)
    if rule.labels or numbers.source == "color":  # colors are labels too, in one number each
        count = len(np.unique(values))
        text = f"has a mask of {count} values, expected a few labels"
        return [Finding("values", text)] if count > _MANY_VALUES else []
    # Soft edges take little of a mask, photographs are half-tones throughout
    low, high = float(values.min()), float(values.max())
    between = np.abs(values - (low + high) / 2) < (high - low) / 4
    text = f"has a mask whose pixels are to {between.mean():.0%} neither bright nor dark"
    return [Finding("values", text)] if between.mean() > _HALF_TONES else []
