"""How masks tell the object from its background, decided by looking at several of a collection.

Tools write masks as brightness (1 to 32 bits, either way round, with soft edges), as transparency, as
label maps (with or without a palette or a void label), or as colors. The numbers of a mask come
from one of these sources; a rule says which numbers are the object.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

Source = Literal["alpha", "palette", "color", "gray", "deep gray"]
Choice = Literal["auto", "bright", "dark", "alpha", "labels"]
CHOICES: tuple[Choice, ...] = ("auto", "bright", "dark", "alpha", "labels")

_SPREAD = 16  # of 255; colors whose channels differ by less are gray
_REGION = 0.25  # share of a level's pixels inside of it; lower on edges, which are one pixel wide
_BORDER = 0.75  # share of the border that is bright in an inverted mask
_OBSERVED = 2_000_000  # pixels of a mask that are looked at before it is decided how to read it
_VOC_VOID = (224 << 16) + (224 << 8) + 192  # color of undecided pixels in Pascal VOC's palette


class Numbers(NamedTuple):
    """What a mask file says about each pixel.

    Attributes:
        source: where the numbers come from.
        values: (h, w) integers; for "palette" the indices with black moved to 0, for "color"
            red, green and blue in one number.
    """

    source: Source
    values: np.ndarray


class Evidence(NamedTuple):
    """The levels of one mask; L is their number.

    Attributes:
        levels: (L,) distinct numbers in ascending order.
        pixels: (L,) pixels of each.
        inside: (L,) share of them whose four neighbors have the same number.
        border: (L,) pixels of the outermost rows and columns.
    """

    levels: np.ndarray
    pixels: np.ndarray
    inside: np.ndarray
    border: np.ndarray

    @property
    def regions(self) -> np.ndarray:
        """The levels that fill regions; others occur on soft edges only."""
        return self.levels[self.inside >= _REGION]

    @property
    def is_clean(self) -> bool:
        """Whether hardly any levels occur on edges only."""
        return len(self.levels) <= 2 * len(self.regions) + 2


class Rule(NamedTuple):
    """Which numbers are the object.

    Attributes:
        labels: whether every number but the background is; else those beyond the threshold are.
        threshold: object and background lie on either side of it.
        inverted: whether the object is on the lower side.
        background: number of the background of labels, or its color.
        void: number of undecided pixels, which count as background.
    """

    labels: bool = False
    threshold: float = 127.5
    inverted: bool = False
    background: int = 0
    void: int | None = None

    def describe(self, source: Source) -> str:
        """Returns what a mask of this rule means by "object"."""
        void = "" if self.void is None else f", {self.void} is undecided and counts as background"
        if source == "color":
            return f"every color but #{self.background:06x} means object"
        if source == "alpha":
            return f"{'transparent' if self.inverted else 'opaque'} means object"
        if self.labels:
            return f"every value but {self.background} means object{void}"
        if self.inverted:
            return f"the masks are inverted, {self.threshold:g} and below means object"
        if self.threshold == 127.5:
            return "white = 255 means object"
        return f"a value above {self.threshold:g} means object{void}"


def numbers_of(picture: Image.Image, choice: Choice = "auto") -> Numbers:
    """Returns the numbers of a mask; its transparency, if it is not the same everywhere.

    Raises:
        ValueError: if transparency is chosen and there is none, or a number is not finite.
    """
    # Transparency comes first: below it, cut-out photographs have any colors
    alpha = alpha_of(picture) if choice in ("auto", "alpha") else None
    if alpha is not None and (choice == "alpha" or alpha.min() < alpha.max()):
        return Numbers("alpha", alpha)
    if choice == "alpha":
        raise ValueError("it has no transparency")
    if picture.mode in ("P", "PA"):
        return _palette_numbers(picture)
    if picture.mode.startswith("I;16"):
        return Numbers("deep gray", np.array(picture, np.uint16).astype(np.int32))
    if picture.mode == "I":
        return Numbers("deep gray", np.array(picture, np.int64))
    if picture.mode == "F":
        return Numbers("deep gray", _whole(np.array(picture)))
    if picture.mode in ("1", "L", "LA", "La"):
        return Numbers("gray", np.array(picture.convert("L")))
    # Colors, unless all of them are shades of gray
    colors = np.array(picture.convert("RGB"))
    if _is_gray(thin_out(colors)) and _is_gray(colors):
        return Numbers("gray", colors[..., 1])
    # Three channels packed into one number, so that colors are counted like gray levels
    packed = np.zeros(colors.shape[:2], np.int32)
    for channel in range(3):
        packed <<= 8
        packed |= colors[..., channel]
    return Numbers("color", packed)


def alpha_of(picture: Image.Image) -> np.ndarray | None:
    """Returns the transparency (h, w) uint8 of a picture, 255 = opaque; None without any."""
    if (
        picture.mode not in ("RGBA", "LA", "PA", "RGBa", "La")
        and "transparency" not in picture.info
    ):
        return None
    return np.array(picture.convert("RGBA").getchannel("A"))


def _palette_numbers(picture: Image.Image) -> Numbers:
    indices = np.array(picture.getchannel("P") if picture.mode == "PA" else picture)
    # A palette may have fewer than 256 entries
    palette = np.zeros((256, 3), np.uint8)
    entries = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)[:256]
    palette[: len(entries)] = entries
    used = np.unique(indices)
    if _is_gray(palette[used]):
        return Numbers("gray", palette[indices, 0])
    # The background of labels is 0; a black entry elsewhere takes its place
    black = [index for index in used if not palette[index].any()]
    table = np.arange(256, dtype=np.int32)
    if black and black[0] != 0:
        table[0], table[black[0]] = 256, 0
    return Numbers("palette", table[indices])


def _is_gray(colors: np.ndarray) -> bool:
    """Returns whether red, green and blue (..., 3) uint8 hardly differ anywhere."""
    red, green, blue = np.moveaxis(colors, -1, 0)
    largest = np.maximum(np.maximum(red, green), blue)
    spread = largest - np.minimum(np.minimum(red, green), blue)
    return int(spread.max(initial=0)) <= _SPREAD


def _whole(values: np.ndarray) -> np.ndarray:
    """Returns floating-point numbers as integers; those of [0, 1] are multiplied by 255."""
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > 2**31:
        raise ValueError("it has numbers that are not finite or beyond 2^31")
    # Decimals show that [0, 1] is a scale, where 0 and 1 alone could be labels
    fractions = values.min() >= 0 and values.max() <= 1 and (values % 1).any()
    return np.rint(values * 255 if fractions else values).astype(np.int64)


def thin_out(values: np.ndarray) -> np.ndarray:
    """Returns every n-th row and column of a large mask (h, w, ...), and the last ones."""
    height, width = values.shape[:2]
    step = math.isqrt(height * width // _OBSERVED) + 1
    # The last row and column are kept, since the border decides about inversion
    rows, columns = (np.unique(np.r_[0:length:step, length - 1]) for length in (height, width))
    return values if step == 1 else values[np.ix_(rows, columns)]


def observe(values: np.ndarray) -> Evidence:
    """Returns the levels of a mask (h, w)."""
    values = thin_out(values)
    levels, index = np.unique(values, return_inverse=True)
    index = index.reshape(values.shape)
    # A pixel is inside its level if its four neighbors have the same one
    inside = np.ones((max(values.shape[0] - 2, 0), max(values.shape[1] - 2, 0)), bool)
    center = index[1:-1, 1:-1]
    for neighbor in (index[:-2, 1:-1], index[2:, 1:-1], index[1:-1, :-2], index[1:-1, 2:]):
        inside &= center == neighbor
    # Corners count twice, which makes no difference
    border = np.concatenate([index[0], index[-1], index[:, 0], index[:, -1]])
    pixels = np.bincount(index.ravel(), minlength=len(levels))
    within = np.bincount(center[inside], minlength=len(levels))
    return Evidence(levels, pixels, within / pixels, np.bincount(border, minlength=len(levels)))


def decide(source: Source, evidence: Sequence[Evidence], choice: Choice = "auto") -> Rule:
    """Returns the rule that fits most of some masks, all from the same source.

    Args:
        source: of their numbers.
        evidence: what was observed of each.
        choice: what the user says of them.
    """
    background = 0
    # The object may have any color, the background is the color of the border
    if source == "color":
        background = _most_common_on_border(evidence)
        void = _VOC_VOID if background == 0 else None
        evidence = [_as_distances(each, background, void) for each in evidence]
    labels = choice == "labels" or (
        choice == "auto" and (source == "palette" or _are_labels(evidence))
    )
    if labels:
        rule = _label_rule(evidence)
    else:
        rule = _brightness_rule(evidence, deep=source == "deep gray")
    if choice in ("bright", "dark"):
        rule = rule._replace(inverted=choice == "dark")
    # Colors are compared by their distance from that of the background, which is 0
    return rule._replace(background=background, inverted=False) if source == "color" else rule


def apply(rule: Rule, numbers: Numbers) -> np.ndarray:
    """Returns the object (h, w) bool."""
    values, background = numbers.values, rule.background
    if numbers.source == "color":
        void = _VOC_VOID if background == 0 else None
        values, background = _distances(values, background, void), 0
    mask = values != background if rule.labels else (values > rule.threshold) != rule.inverted
    return mask if rule.void is None else mask & (values != rule.void)


def _are_labels(evidence: Sequence[Evidence]) -> bool:
    """Returns whether regions of some masks have more than two levels, or other two than others."""
    # Soft masks have many levels that occur on edges only, and say nothing about labels
    clean = [each for each in evidence if each.is_clean and len(each.regions) > 1]
    soft = [each for each in evidence if not each.is_clean]
    # Three regions in a mask, or other pairs of levels in other masks, mean labels
    many = sum(len(each.regions) > 2 for each in clean)
    pairs = {tuple(each.regions.tolist()) for each in clean if len(each.regions) == 2}
    return len(clean) > len(soft) and (many > 0.1 * (len(clean) - many) or len(pairs) > 1)


def _label_rule(evidence: Sequence[Evidence]) -> Rule:
    """Background is 0 or else what most borders show; the highest level of thin regions is void."""
    # Most label maps have 0 as background; the border shows that of the others
    zeros = sum(0 in each.levels for each in evidence)
    background = 0 if 2 * zeros >= len(evidence) else _most_common_on_border(evidence)
    levels = np.unique(np.concatenate([each.levels for each in evidence]))
    highest = int(levels[-1])
    # Trimaps of pets: 1 = object, 2 = background, 3 = edge
    conventional = highest in (255, 65535) or set(levels.tolist()) == {1, 2, 3}
    void = highest if conventional and _is_thin(evidence, highest, background) else None
    return Rule(labels=True, background=background, void=void)


def _is_thin(evidence: Sequence[Evidence], level: int, background: int) -> bool:
    """Returns whether a level has narrower regions than the other labels of the same masks."""
    its_own, of_others = [], []
    for each in evidence:
        # Only masks that show the level beside other labels can tell
        others = (each.levels != level) & (each.levels != background)
        if others.any() and level in each.levels:
            its_own.append(each.inside[each.levels == level].mean())
            of_others.append(np.average(each.inside[others], weights=each.pixels[others]))
    return bool(its_own) and float(np.mean(its_own)) < float(np.mean(of_others))


def _brightness_rule(evidence: Sequence[Evidence], deep: bool) -> Rule:
    """The threshold lies between the two levels that most masks have, or else at half of the scale."""
    pairs = Counter(tuple(e.regions.tolist()) for e in evidence if len(e.regions) == 2)
    highest = max((int(each.levels[-1]) for each in evidence), default=0)
    void = None
    if pairs:
        low, high = pairs.most_common(1)[0][0]
        threshold = (low + high) / 2
        # An undecided edge of 255 around a small label is no brighter object
        mixed = any(255 in each.levels and high in each.levels for each in evidence)
        void = 255 if high < 128 and mixed else None
    elif deep and highest > 255:
        # Scales of 16 bits are rarely used in full
        threshold = (min(int(each.levels[0]) for each in evidence) + highest) / 2
    else:
        threshold = 127.5
    return Rule(threshold=threshold, inverted=_are_inverted(evidence, threshold), void=void)


def _are_inverted(evidence: Sequence[Evidence], threshold: float) -> bool:
    """Returns whether most masks have a bright border around something dark."""
    votes = []
    for each in evidence:
        bright = each.levels > threshold
        if bright.any() and not bright.all():
            votes.append(each.border[bright].sum() >= _BORDER * each.border.sum())
    return 2 * sum(votes) > len(votes)


def _most_common_on_border(evidence: Sequence[Evidence]) -> int:
    """Returns the level that the borders of most masks show most of; never 255 if there is another."""
    votes: Counter[int] = Counter()
    for each in evidence:
        # A rim of 255 may be undecided pixels, and counts a quarter
        border = np.where(each.levels == 255, each.border / 4, each.border)
        votes[int(each.levels[border.argmax()])] += 1
    return votes.most_common(1)[0][0]


def _distances(values: np.ndarray, background: int, void: int | None) -> np.ndarray:
    """Returns the greatest difference of a channel between colors and that of the background."""
    largest = np.zeros(values.shape, np.uint8)
    for shift in (16, 8, 0):
        channel, other = (values >> shift).astype(np.uint8), np.uint8((background >> shift) & 255)
        # The larger minus the smaller, as bytes have no sign
        difference = np.maximum(channel, other) - np.minimum(channel, other)
        np.maximum(largest, difference, out=largest)
    if void is not None:
        largest[values == void] = 0
    return largest


def _as_distances(each: Evidence, background: int, void: int | None) -> Evidence:
    """Returns evidence of colors as evidence of their distances from the background."""
    levels, index = np.unique(_distances(each.levels, background, void), return_inverse=True)
    pixels, border = (
        np.bincount(index, weights, len(levels)) for weights in (each.pixels, each.border)
    )
    within = np.bincount(index, each.inside * each.pixels, len(levels))
    return Evidence(levels, pixels, within / pixels, border)
