"""Labels of photographs in a collection: any number of sets, such as species, body shape and color.

Either datasets/<name>/labels.json, {"species": {"001": "robin", ...}, "color": {...}}, or labels.csv,
whose first column names the photographs and whose others are sets. A photograph is named by its path
below images/, or by its file name where that is unique, with or without suffix.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data.collection import image_stem
from data.definitions import check_word
from data.image_files import SUFFIXES
from utils.cli import UserError
from utils.files import read_json

LABEL_FILES = ("labels.json", "labels.csv")
_SPECIES = re.compile(r"\d{3}\.(.+)")  # a folder of CUB, such as 001.Black_footed_Albatross

LabelSets = dict[str, dict[str, str]]


def read_labels(name: str, root: Path, images: Sequence[Path]) -> LabelSets:
    """Returns the label of every photograph that has one, by set and path; {} without labels.

    Args:
        name: of the collection; the folders of `cub` are labels too, its 200 species.
        root: folder of the collection.
        images: its photographs.

    Raises:
        UserError: if the file cannot be read, or names no photograph at all.
    """
    files = [root / file for file in LABEL_FILES if (root / file).exists()]
    if len(files) > 1:
        raise UserError(f"{files[0]} and {files[1]}: expected one of them; remove the other.")
    if not files:
        return _species(images) if name == "cub" else {}
    path = files[0]
    entries = list(_json_entries(path) if path.suffix == ".json" else _csv_entries(path))
    photographs = _by_name(name, images)
    sets: LabelSets = {}
    for label_set, key, label in entries:
        image = photographs.get(_key(key))
        if image is None:
            continue
        found = sets.setdefault(label_set, {})
        if found.setdefault(image, label) != label:
            raise UserError(f"{path}: {image} has two labels of {label_set}.")
    if not sets:
        raise UserError(
            f"{path}: none of its {len(entries)} entries names a photograph of {root}/images/ with a "
            f"label. Names are such as {image_stem(images[0], name)}."
        )
    return sets


def _json_entries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields set, photograph and label of every entry."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(x, dict) for x in content.values()):
        raise UserError(
            f'{path}: expected sets of labels such as {{"species": {{"001": "robin"}}}}.'
        )
    for label_set, labels in content.items():
        check_word(label_set, str(path), "label set")
        for key, label in labels.items():
            if not isinstance(label, str):
                raise UserError(f"{path}: the {label_set} of {key} is {label!r}, expected a text.")
            yield from _entry(path, label_set, key, label)


def _csv_entries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields the same of every cell."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}).") from None
    header = rows[0] if rows else []
    if len(header) < 2:
        raise UserError(f"{path}: expected a first line such as image,species,color.")
    names = [check_word(word.strip().lower(), str(path), "label set") for word in header[1:]]
    for row in rows[1:]:
        if len(row) != len(header):
            raise UserError(
                f"{path}: {row[0]} has {len(row)} columns, the first line {len(header)}."
            )
        for label_set, label in zip(names, row[1:], strict=True):
            yield from _entry(path, label_set, row[0], label)


def _entry(path: Path, label_set: str, key: str, label: str) -> Iterator[tuple[str, str, str]]:
    # An empty cell is no label; others are words for the command line
    label = label.strip()
    if not label.isprintable() or "," in label or "=" in label:
        raise UserError(f"{path}: {label!r:.60} is no label: a comma, = or line break is in it.")
    if label:
        yield label_set, key, label


def _key(name: str) -> str:
    path = Path(name.strip())
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()


def _by_name(name: str, images: Iterable[Path]) -> dict[str, str]:
    """Returns photographs by their stems, and by their file names alone where these are unique."""
    stems = {image_stem(image, name): image.as_posix() for image in images}
    short: dict[str, list[str]] = {}
    for stem, image in stems.items():
        short.setdefault(Path(stem).name, []).append(image)
    return {key: found[0] for key, found in short.items() if len(found) == 1} | stems


def _species(images: Iterable[Path]) -> LabelSets:
    found = {image: _SPECIES.fullmatch(image.parent.name) for image in images}
    species = {image.as_posix(): match[1].lower() for image, match in found.items() if match}
    return {"species": species} if species else {}
