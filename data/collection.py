"""A collection: the folder datasets/<name>/ with photographs, masks, part maps and ground truth."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.definitions import CATEGORIES, DATASETS, PART_NAMES
from utils.cli import UserError
from utils.files import read_json

DATASETS_FOLDER = Path("datasets")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Collection:
    """The files of one collection; nothing of them has been decoded yet.

    Attributes:
        name: name of the folder below datasets/.
        root: the folder, relative to the working directory.
        images: photographs, sorted by path, relative to the working directory.
        ignored: other files in images/.
        part_labels: part name of every label of the part maps (1-255); empty without part maps.
        category: category recorded in parts.json or collection.json, or known by the name.
    """

    name: str
    root: Path
    images: tuple[Path, ...]
    ignored: tuple[Path, ...]
    part_labels: dict[int, str]
    category: str | None

    def mask_path(self, image: Path) -> Path:
        """Returns where the mask of an image belongs."""
        return self.root / "masks" / f"{image_stem(image, self.name)}.png"

    def parts_path(self, image: Path) -> Path:
        """Returns where the part map of an image belongs."""
        return self.root / "parts" / f"{image_stem(image, self.name)}.png"


def collection_folder(name: str) -> Path:
    """Returns the folder of a collection, relative to the working directory."""
    return DATASETS_FOLDER / name


def ground_truth_path(name: str) -> Path:
    """Returns where the true poses of a collection lie, if it has any."""
    return collection_folder(name) / "ground_truth.npz"


def shapes_path(name: str) -> Path:
    """Returns where the true meshes of a collection lie, if it has any."""
    return collection_folder(name) / "shapes.npz"


def image_stem(image: str | Path, name: str) -> str:
    """Returns the path of an image below images/ without its suffix: the key to its other files."""
    return Path(image).relative_to(collection_folder(name) / "images").with_suffix("").as_posix()


def open_collection(name: str) -> Collection:
    """Lists the files of datasets/<name>/ and reads its small JSON files.

    Raises:
        UserError: if the folder or its images are missing, or the JSON files are wrong.
    """
    root = collection_folder(name)
    where = (
        f"Put the photographs into {root}/images/ (.jpg or .png) and their masks into "
        f"{root}/masks/ (same name, .png, white = object)."
    )
    if not (root / "images").is_dir():
        missing = root / "images" if root.is_dir() else root
        raise UserError(f"{missing}/ does not exist. {where}")
    files = sorted(_walk(root / "images"))
    images = tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise UserError(f"{root}/images/ has no .jpg or .png files. {where}")
    return Collection(
        name=name,
        root=root,
        images=images,
        ignored=tuple(path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES),
        part_labels=_read_part_labels(root),
        category=_read_category(root, name),
    )


def _walk(folder: Path) -> Iterator[Path]:
    """Yields all files below a folder except hidden ones; follows links, each folder once."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        identity = os.path.realpath(parent)
        folders[:] = [] if identity in seen else [name for name in folders if name[0] != "."]
        if identity not in seen:
            yield from (Path(parent) / name for name in names if name[0] != ".")
        seen.add(identity)


def _read_object(path: Path) -> dict:
    """Reads a JSON file that must hold an object; a missing file counts as an empty one."""
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content


def _read_part_labels(root: Path) -> dict[int, str]:
    """Reads {"parts": {"1": "head", ...}} of parts.json."""
    path = root / "parts.json"
    if (root / "parts").is_dir() and not path.exists():
        raise UserError(
            f"{path} does not exist, so the labels in {root}/parts/ have no names. "
            'Write it like this: {"parts": {"1": "head", "2": "tail"}}.'
        )
    labels = _read_object(path).get("parts", {})
    if not isinstance(labels, dict):
        raise UserError(f'{path}: "parts" must be an object such as {{"1": "head"}}, got {labels}.')
    for label, name in labels.items():
        if not (label.isascii() and label.isdigit() and 1 <= int(label) <= 255):
            raise UserError(f"{path}: label {label!r} is not a number from 1 to 255.")
        if name not in PART_NAMES:
            raise UserError(f"{path}: unknown part {name!r}. Choose from: {', '.join(PART_NAMES)}.")
    return {int(label): name for label, name in labels.items()}


def _read_category(root: Path, name: str) -> str | None:
    """Returns the category that the collection itself, or else its well-known name, tells."""
    for path in (root / "collection.json", root / "parts.json"):
        category = _read_object(path).get("category")
        if category is not None:
            return check_category(category, str(path))
    return DATASETS.get(name)


def check_category(category: str, where: str) -> str:
    """Returns the category if it is known; `where` begins the message of the UserError otherwise."""
    if category not in CATEGORIES:
        raise UserError(
            f"{where}: unknown category {category!r}. Choose from: {', '.join(CATEGORIES)}."
        )
    return category
