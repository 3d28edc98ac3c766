"""The objects of a collection that are seen from several sides: views.json, and their true shapes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.cache.storage import check_numbers, load_arrays
from data.collection import collection_folder, image_stem
from data.detections import Detections
from utils.cli import UserError
from utils.files import read_json, write_json

_REMEDY = "Remove images/ beside it, and prepare the data set again."


class Entry(NamedTuple):
    """An object, the part that it belongs to ("train" or "valid"), and the stems of its images."""

    name: str
    part: str
    images: list[str]


class Object(NamedTuple):
    """An object, the part that it belongs to ("train" or "valid"), and its rows of the detections."""

    name: str
    part: str
    rows: list[int]


def views_path(dataset: str) -> Path:
    """Returns where it is said which images show the same object."""
    return collection_folder(dataset) / "views.json"


def points_path(dataset: str) -> Path:
    """Returns where points of the true shapes lie, if there are any."""
    return collection_folder(dataset) / "true_points.npz"


def write_entries(dataset: str, entries: Sequence[Entry]) -> None:
    """Writes views.json."""
    write_json(views_path(dataset), {"objects": [entry._asdict() for entry in entries]})


def load_objects(detections: Detections, least: int = 1) -> list[Object]:
    """Returns the objects of a prepared collection that have at least some images that can be used.

    Raises:
        UserError: if the file is missing, damaged, or of other images.
    """
    path = views_path(detections.dataset)
    row_of = {
        image_stem(item.image_path, detections.dataset): row
        for row, item in enumerate(detections.items)
    }
    # Photographs of single objects have no such file
    if not path.exists():
        raise UserError(
            f"{path} does not exist, but points are learned from several views of each object. Prepare "
            f"renderings with: python -m data.prepare --dataset {detections.dataset} --source <folder>"
        )
    content = read_json(path, _REMEDY)
    try:
        entries = [Entry(**entry) for entry in content["objects"]]
        objects = [
            Object(str(name), str(part), [row_of[stem] for stem in images if stem in row_of])
            for name, part, images in entries
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged. {_REMEDY}") from None
    return [each for each in objects if len(each.rows) >= least]


def load_true_points(dataset: str) -> dict[str, NDArray[np.float32]]:
    """Returns points (P, 3) on the surface of each object whose shape is known, by its name."""
    path = points_path(dataset)
    if not path.exists():
        return {}
    arrays = load_arrays(path, ("name", "points"), _REMEDY)
    numbers = {"points": arrays["points"], "name": np.zeros(arrays["name"].shape)}
    check_numbers(path, numbers, {"name": ("S",), "points": ("S", "P", 3)}, _REMEDY)
    return {str(name): some for name, some in zip(arrays["name"], arrays["points"], strict=True)}
