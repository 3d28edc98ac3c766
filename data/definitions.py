"""Categories, part names, views and datasets that are known by name; others need only preparation."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from utils.cli import MODES as MODES
from utils.cli import UserError

MODELED_TEMPLATES = Path("mesh_templates/classes")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")

# Those of `all`, where the position is the class label of conditional models
CATEGORIES = (
    "motorcycle",
    "bus",
    "truck",
    "car",
    "airplane",
    "bird",
    "sheep",
    "elephant",
    "zebra",
    "horse",
    "cow",
    "bear",
    "giraffe",
)

# Those of the 13 categories; the order is the paint priority: where two parts overlap, the later wins
PART_NAMES = (
    "wing",
    "engine",
    "fender",
    "seat",
    "gas_tank",
    "handlebar",
    "door",
    "bumper",
    "grillroom",
    "license_plate",
    "wheel",
    "window",
    "windshield",
    "mirror",
    "light",
    "headlight",
    "landing_gear",
    "feather",
    "tail",
    "leg",
    "foot",
    "hoof",
    "neck",
    "mane",
    "head",
    "face",
    "mouth",
    "nose",
    "cockpit",
    "trunk",
    "horn",
    "ear",
    "eye",
    "beak",
)

# Templates of these categories share a frame, so that they need no alignment to each other
ALIGNED_CATEGORIES = frozenset(
    ("bird", "sheep", "elephant", "zebra", "horse", "cow", "bear", "giraffe")
)

# Birds have no synset: their photographs come from CUB
SYNSETS = {
    "motorcycle": ("n03790512", "n03791053", "n04466871"),
    "bus": ("n04146614", "n02924116"),
    "truck": ("n03345487", "n03417042", "n03796401"),
    "car": (
        "n02814533",
        "n02958343",
        "n03498781",
        "n03770085",
        "n03770679",
        "n03930630",
        "n04037443",
        "n04166281",
        "n04285965",
    ),
    "airplane": ("n02690373", "n02691156", "n03335030", "n04012084"),
    "sheep": ("n10588074", "n02411705", "n02413050", "n02412210"),
    "elephant": ("n02504013", "n02504458"),
    "zebra": ("n02391049", "n02391234", "n02391373", "n02391508"),
    "horse": ("n02381460", "n02374451"),
    "cow": ("n01887787", "n02402425"),
    "bear": ("n02132136", "n02133161", "n02131653", "n02134084"),
    "giraffe": ("n02439033",),
}


class ViewPrior(NamedTuple):
    """Prior of the views in which photographs show a category: normal, in degrees; any azimuth.

    Attributes:
        elevation: mean elevation of the camera; 0 = level, positive = from above.
        elevation_spread: its standard deviation.
        roll_spread: standard deviation of the camera's roll; the mean is 0.
        pitch: mean angle by which the object itself lifts its head or nose.
        pitch_spread: its standard deviation.
    """

    elevation: float
    elevation_spread: float
    roll_spread: float
    pitch: float
    pitch_spread: float

    def tilts(self) -> tuple[float, float, float]:
        """Returns mean elevation, and spreads of elevation and roll, of the object's own upright axis.

        Pitch adds to the elevation in views from the front, and to the roll in views from the side.
        """
        tilt = math.hypot(self.pitch, self.pitch_spread)
        return (
            self.elevation,
            math.hypot(self.elevation_spread, tilt),
            math.hypot(self.roll_spread, tilt),
        )


# Chosen by hand, not estimated: quadrupeds are seen at eye level, vehicles from slightly above,
# birds perch with their head up and airplanes climb and bank
_VEHICLE = ViewPrior(8.0, 10.0, 6.0, 0.0, 0.0)
VIEW_PRIORS = dict.fromkeys(CATEGORIES, ViewPrior(5.0, 8.0, 6.0, 0.0, 0.0)) | {
    **dict.fromkeys(("motorcycle", "bus", "truck", "car"), _VEHICLE),
    "bird": ViewPrior(5.0, 15.0, 12.0, 20.0, 25.0),
    "airplane": ViewPrior(5.0, 15.0, 12.0, 5.0, 15.0),
}

# Priors by what photographs show: things that stand upright and are seen from around, vehicles, things
# that fly or perch, and anything from anywhere
VIEWS = {
    "standing": ViewPrior(10.0, 15.0, 8.0, 0.0, 0.0),
    "vehicle": _VEHICLE,
    "flying": VIEW_PRIORS["bird"],
    "any": ViewPrior(0.0, 60.0, 60.0, 0.0, 0.0),
}


def describe_views(prior: ViewPrior) -> str:
    """Returns the name of a prior, where it has one, and its numbers."""
    name = next((f"{name}: " for name, other in VIEWS.items() if other == prior), "")
    elevation, elevation_spread, roll_spread, pitch, pitch_spread = prior
    return (
        f"{name}elevation {elevation:g} +- {elevation_spread:g}, roll +- {roll_spread:g}, "
        f"pitch {pitch:g} +- {pitch_spread:g} degrees"
    )


def is_word(name: object) -> bool:
    """Whether a name can be a category or a part: a lower-case word, which is safe in file names too."""
    return isinstance(name, str) and name != "all" and _WORD.fullmatch(name) is not None


def check_word(name: object, where: str, what: str) -> str:
    """Returns the name of a category or part; UserError if it is none."""
    if not is_word(name):
        raise UserError(
            f"{where}: {name!r} is no name of a {what}, expected lower-case letters, digits and "
            "underscores that begin with a letter, such as polar_bear."
        )
    return str(name)


def usual_views(category: str) -> ViewPrior:
    """Returns the default prior of a category: `standing` for those unknown here."""
    return VIEW_PRIORS.get(category, VIEWS["standing"])


def check_views(value: Any, where: str) -> ViewPrior:
    """Returns the prior meant by a name of `VIEWS`, or by five numbers in the order of `ViewPrior`.

    Args:
        value: "flying", ["flying"], or five numbers or their spellings, in degrees.
        where: start of the error.

    Raises:
        UserError: if it is neither, or a number is out of range: means in -90..90, spreads of
            elevation and roll in 1..90, that of pitch in 0..90.
    """
    # From the command line these are words, from JSON a word or numbers
    words = list(value) if isinstance(value, list | tuple) else [value]
    if len(words) == 1 and str(words[0]) in VIEWS:
        return VIEWS[str(words[0])]
    given = " ".join(map(str, words))
    try:
        prior = ViewPrior(*map(float, words))
    except (TypeError, ValueError):
        raise UserError(
            f"{where} {given}: expected {', '.join(VIEWS)}, or five numbers in degrees: "
            "elevation, its spread, spread of roll, pitch, its spread."
        ) from None
    for (name, number), low in zip(prior._asdict().items(), (-90, 1, 1, -90, 0), strict=True):
        if not low <= number <= 90:
            raise UserError(
                f"{where} {given}: {name.replace('_', ' ')} {number:g}, expected {low} to 90 degrees."
            )
    return prior


def default_dataset(category: str) -> str:
    """Returns the dataset of a category in `all`: cub for birds, imagenet_<category> for the others."""
    if category not in CATEGORIES:
        raise ValueError(f"category: expected one of {', '.join(CATEGORIES)}, got {category!r}.")
    return "cub" if category == "bird" else f"imagenet_{category}"


# The 13 datasets of `all` in the order of their class labels
DEFAULT_DATASETS = tuple(default_dataset(category) for category in CATEGORIES)

# Category of every dataset that is known by name
DATASETS = dict(zip(DEFAULT_DATASETS, CATEGORIES, strict=True)) | {
    "p3d_car": "car",
    "p3d_airplane": "airplane",
}


def expand_dataset(dataset: str) -> tuple[str, ...]:
    """Returns the datasets that --dataset stands for: the 13 default ones for `all`, or those of a list."""
    return DEFAULT_DATASETS if dataset == "all" else tuple(dataset.split(","))


def folder_names(dataset: str) -> tuple[str, ...]:
    """Returns the folders below cache/ with the pseudo-ground-truth of --dataset.

    `all` has one of its own, as published; in a list, each dataset has its own.
    """
    return (dataset,) if dataset == "all" else expand_dataset(dataset)
