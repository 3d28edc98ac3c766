"""Categories, part names and known datasets; a new dataset needs no entry here, only preparation."""

from utils.cli import MODES as MODES

# The position is the class label of conditional models
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

# The order is the paint priority: where two parts overlap, the later name wins
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


def default_dataset(category: str) -> str:
    """Returns the dataset that stands for a category in `all`: cub for birds, else imagenet_*."""
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
    """Returns the single datasets behind a name: all 13 default ones for `all`, else itself."""
    return DEFAULT_DATASETS if dataset == "all" else (dataset,)
