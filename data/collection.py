"""A collection: the folder datasets/<name>/ with photographs, masks, part maps and ground truth."""

import os
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.definitions import DATASETS, ViewPrior, check_views, check_word
from data.image_files import HEIC_SUFFIXES, RAW_SUFFIXES, SUFFIXES
from utils.cli import UserError
from utils.files import read_json

DATASETS_FOLDER = Path("datasets")
_NAMES_OF_MASKS = re.compile(
    r"^(mask|seg)[_-]|[_.\- ](mask|masks|seg|segmentation|alpha|matte|gt|label|labels)$"
)


@dataclass(frozen=True)
class Collection:
    """The files of one collection; none of them has been decoded yet.

    Attributes:
        name: name of the folder below datasets/.
        root: the folder, relative to the working directory.
        images: photographs, sorted by path, relative to the working directory; folders that are
            named like a photograph and hold none are included, to be reported.
        ignored: other files in images/.
        part_labels: part name of every label of the part maps (1-255); empty without part maps.
        category: category recorded in parts.json or collection.json, or known by the name.
        views: directions it is photographed from, if collection.json or parts.json say so.
        template_of: category whose template is borrowed, likewise.
    """

    name: str
    root: Path
    images: tuple[Path, ...]
    ignored: tuple[Path, ...]
    part_labels: dict[int, str]
    category: str | None
    views: ViewPrior | None
    template_of: str | None

    def mask_path(self, image: Path) -> Path:
        """Returns where the mask of an image belongs."""
        return self.root / "masks" / f"{image_stem(image, self.name)}.png"

    def mask_elsewhere(self, image: Path) -> Path | None:
        """Returns a file in masks/ whose name stands for an image's, such as a.jpg.png, a_mask.png."""
        stem = Path(image_stem(image, self.name))
        name = plain_name(stem.name)
        return self._other_masks.get((stem.parent, name)) or self._other_masks.get((Path(), name))

    @cached_property
    def _other_masks(self) -> dict[tuple[Path, str], Path]:
        """The files in masks/ by their folder and what their names mean."""
        root = self.root / "masks"
        files, _ = walk(root)
        return {(path.parent.relative_to(root), plain_name(path.name)): path for path in files}

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
    # The end of both errors: how a collection is laid out
    where = (
        f"Put the photographs into {root}/images/ (.jpg, .png, .webp, .tif, .bmp) and their masks "
        f"into {root}/masks/ (same name, .png, white = object)."
    )
    if not (root / "images").is_dir():
        # Commands work in the folder that they are called from, often another one than expected
        missing = f"{root}/images/" if root.is_dir() else f"{Path.cwd()}/{root}/"
        raise UserError(f"{missing} does not exist{folders_in(root)}. {where}")
    files, folders = walk(root / "images")
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    ignored = tuple(path for path in files if path.suffix.lower() not in SUFFIXES)
    if not images:
        word = word_about(ignored)
        raise UserError(f"{root}/images/ has no photographs. {word + '. ' if word else ''}{where}")
    # A folder in the place of a photograph, unless it is an oddly named folder of photographs
    filled = {parent for image in images for parent in image.parents}
    images += [f for f in folders if f.suffix.lower() in SUFFIXES and f not in filled]
    return Collection(
        name=name,
        root=root,
        images=tuple(sorted(images)),
        ignored=ignored,
        part_labels=_read_part_labels(root),
        **_read_facts(root, name),
    )


def word_about(ignored: tuple[Path, ...]) -> str:
    """Returns what to do about files that are no photographs of a format that is read; "" without."""
    if not ignored:
        return ""
    # One example of each suffix, the first in order
    suffixes = {path.suffix.lower(): path for path in reversed(ignored)}
    heic = next((suffixes[s] for s in HEIC_SUFFIXES if s in suffixes), None)
    raw = next((suffixes[s] for s in RAW_SUFFIXES if s in suffixes), None)
    if heic is not None:
        return f"HEIC pictures such as {heic} are not read: convert them to JPEG, with heif-convert"
    if raw is not None:
        return f"raw pictures such as {raw} are not read: develop them to JPEG or TIFF"
    if len(ignored) == 1:
        return f"ignored: {ignored[0]}, which is no photograph"
    return f"ignored: {len(ignored)} files that are no photographs, such as {ignored[0]}"


def folders_in(root: Path) -> str:
    """Returns the names of the folders in a folder, as the end of a clause; "" without any."""
    names = sorted(f"{path.name}/" for path in root.glob("*") if path.is_dir())
    return f" ({root}/ has {', '.join(names[:5])})" if names else ""


def plain_name(name: str) -> str:
    """Returns a name without suffixes of pictures and words for masks, whatever its spelling."""
    # Names are compared as people read them: accents in one Unicode form, any case
    name = unicodedata.normalize("NFC", name).casefold()
    # Some tools append their suffix, as in a.jpg.png
    while Path(name).suffix in SUFFIXES:
        name = Path(name).stem
    return _NAMES_OF_MASKS.sub("", name)


def walk(root: Path) -> tuple[list[Path], list[Path]]:
    """Returns all files and folders below a folder, sorted, except hidden ones.

    Follows links, into each folder once.

    Raises:
        OSError: if a folder may not be listed.
    """

    def stop(error: OSError) -> None:
        raise error

    files: list[Path] = []
    below: list[Path] = []
    seen = set()
    for parent, folders, names in os.walk(root, followlinks=True, onerror=stop):
        # Links may lead back, so that each real folder is entered once
        identity = os.path.realpath(parent)
        folders[:] = [] if identity in seen else [name for name in folders if name[0] != "."]
        if identity not in seen:
            files += (Path(parent) / name for name in names if name[0] != ".")
            below += (Path(parent) / name for name in folders)
        seen.add(identity)
    return sorted(files), sorted(below)


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
    # Labels are values of the 8-bit part map; 0 is the background
    for label, name in labels.items():
        if not (label.isascii() and label.isdigit() and 1 <= int(label) <= 255):
            raise UserError(f"{path}: label {label!r} is not a number from 1 to 255.")
        check_word(name, str(path), "part")
    return {int(label): name for label, name in labels.items()}


def _read_facts(root: Path, name: str) -> dict[str, Any]:
    """Returns category, views and template_of as the collection states them, None where it does not."""
    checks = {
        "category": lambda value, where: check_word(value, where, "category"),
        "views": check_views,
        "template_of": lambda value, where: check_word(value, where, "category"),
    }
    # Later sources win: known names, then parts.json, then collection.json
    facts: dict[str, Any] = dict.fromkeys(checks) | {"category": DATASETS.get(name)}
    for path in (root / "parts.json", root / "collection.json"):
        content = _read_object(path)
        for key, check in checks.items():
            if content.get(key) is not None:
                facts[key] = check(content[key], f"{path}:" if key == "views" else str(path))
    return facts
