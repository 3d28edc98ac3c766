"""The objects of a dataset and their parts: cache/<name>/detections.json in the COCO instance format.

Part annotations are annotations too: "part_of" is the id of the object they belong to.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data.cache.folders import cache_folder, category_of, prepare_command
from data.cache.storage import PUBLISHED
from data.definitions import CATEGORIES, PART_NAMES, is_word
from data.packed_rows import PackedRows
from data.published.unpickling import load_pickled
from data.run_lengths import RLE, Box4, checked_mask, mask_area
from utils.cli import UserError
from utils.digests import check_json, json_with_digest
from utils.files import read_json, to_json, write_bytes

_MALFORMED = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError),
    *(OverflowError, RecursionError),
)

_FIRST_PART_ID = 101


@dataclass(frozen=True)
class Part:
    """One detected part of an object.

    Attributes:
        name: one of `PART_NAMES`, or a word of the collection's own.
        score: confidence in [0, 1].
        bbox: x1, y1, x2, y2 in pixels of the image, both ends included.
        mask: run lengths, size of the whole image.
        frequency: share of the dataset's objects that have such a part.
    """

    name: str
    score: float
    bbox: Box4
    mask: RLE
    frequency: float


@dataclass(frozen=True)
class Detection:
    """One object in a photograph.

    Attributes:
        id: running number, equal to the row.
        image_path: relative to the working directory.
        height: of the whole image, pixels.
        width: of the whole image, pixels.
        bbox: x1, y1, x2, y2 in pixels, both ends included.
        score: confidence in [0, 1].
        mask: run lengths, size of the whole image.
        parts: in the order of detection.
    """

    id: int
    image_path: str
    height: int
    width: int
    bbox: Box4
    score: float
    mask: RLE
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Detections:
    """All objects of a dataset; pose files refer to them by row.

    Attributes:
        dataset: its name.
        category: what all objects are.
        items: the objects; kept packed, as a fifth of the memory.
        published: whether they are the published ones, whose pose files carry no fingerprint.
    """

    dataset: str
    category: str
    items: Sequence[Detection]
    published: bool = False

    def __post_init__(self) -> None:
        """Packs the objects."""
        if not isinstance(self.items, PackedRows):
            object.__setattr__(self, "items", PackedRows(self.items, _pack, _unpack))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Detection:
        return self.items[row]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what the rows are: category, image, box and mask of each (parts may change)."""
        if self.published:
            return PUBLISHED
        rows = [
            [item.image_path, [round(x, 3) for x in item.bbox], item.mask["counts"]]
            for item in self.items
        ]
        return hashlib.sha256(to_json([self.category, rows]).encode()).hexdigest()


def _pack(item: Detection) -> bytes:
    *fields, parts = vars(item).values()
    return to_json([*fields, [[*vars(part).values()] for part in parts]]).encode()


def _unpack(row: bytes) -> Detection:
    number, path, height, width, box, score, mask, parts = json.loads(row)
    found = (Part(name, share, tuple(at), rle, rate) for name, share, at, rle, rate in parts)
    return Detection(number, path, height, width, tuple(box), score, mask, tuple(found))


def detections_path(dataset: str) -> Path:
    """Returns the path of the detections of a dataset."""
    return cache_folder(dataset) / "detections.json"


def published_path(dataset: str) -> Path:
    """Returns the path of the published detections of a dataset."""
    return cache_folder(dataset) / "detections.npy"


def save_detections(detections: Detections) -> Path:
    """Writes the detections of a dataset; returns the path."""
    return write_detections(detections_path(detections.dataset), detections)


def write_detections(path: Path, detections: Detections) -> Path:
    """Writes detections to a file; returns the path."""
    images, annotations = [], []
    objects, part_ids = _ids(detections)
    # Objects come first, with the ids of their images, then parts with the following ids
    for item in detections.items:
        size = {"height": item.height, "width": item.width}
        images.append({"id": item.id, "file_name": item.image_path, **size})
        category_id = objects[detections.category]
        annotations.append(_annotation(item, category_id, image_id=item.id, id=item.id))
    next_id = len(detections)
    for item in detections.items:
        for part in item.parts:
            extra = {"image_id": item.id, "id": next_id}
            extra |= {"part_of": item.id, "frequency": part.frequency}
            annotations.append(_annotation(part, part_ids[part.name], **extra))
            next_id += 1
    # Objects and parts have separate ranges of category ids
    content = {
        "info": {"dataset": detections.dataset, "category": detections.category},
        "images": images,
        "categories": [
            *({"id": i, "name": name, "supercategory": "object"} for name, i in objects.items()),
            *({"id": i, "name": name, "supercategory": "part"} for name, i in part_ids.items()),
        ],
        "annotations": annotations,
    }
    write_bytes(path, json_with_digest(content))
    return path


def load_detections(dataset: str) -> Detections:
    """Reads the detections of a dataset.

    Raises:
        UserError: if the dataset is unknown or not prepared, or the file is damaged.
    """
    path = detections_path(dataset)
    if not path.exists() and published_path(dataset).exists():
        return read_published(published_path(dataset), dataset)
    if not path.exists():
        category_of(dataset)  # an unknown dataset is the more helpful message
    remedy = f"Create it with: {prepare_command(dataset)}"
    content = read_json(path, remedy)
    try:
        check_json(path.read_bytes(), content)
        return _parse(content, dataset)
    except _MALFORMED as error:
        raise UserError(f"{path}: not a detections file ({error!r}). {remedy}") from error


def read_published(path: Path, dataset: str) -> Detections:
    """Reads published detections: a pickled list of dictionaries.

    Raises:
        UserError: if the file is missing, damaged, or holds more than plain data.
    """
    remedy = "Download it again."
    rows = load_pickled(path, remedy)
    try:
        # All objects of a published file have the category of the first
        category = rows[0]["class"]
        if category not in CATEGORIES:
            raise ValueError(f"unknown category {category}")
        items = [_published_object(row, number) for number, row in enumerate(rows)]
    except _MALFORMED as error:
        raise UserError(f"{path}: not a detections file ({error!r}). {remedy}") from error
    return Detections(dataset, category, items, published=True)


def _published_object(row: dict[str, Any], number: int) -> Detection:
    height, width = int(row["image_height"]), int(row["image_width"])
    return Detection(
        id=number,
        image_path=_safe_path(row["image_path"]),
        height=height,
        width=width,
        bbox=_published_box(row["bbox"], height, width),
        score=_checked_share(row["score"]),
        mask=checked_mask(row["mask"], height, width),
        parts=tuple(_published_part(part, height, width) for part in row["parts"]),
    )


def _published_part(row: dict[str, Any], height: int, width: int) -> Part:
    if (name := row["class"]) not in PART_NAMES:
        raise ValueError(f"unknown part {name}")
    mask = checked_mask(row["mask"], height, width)
    box = _published_box(row["bbox"], height, width)
    return Part(name, _checked_share(row["score"]), box, mask, _checked_share(row["frequency"]))


def _published_box(bbox: np.ndarray, height: int, width: int) -> Box4:
    x1, y1, x2, y2 = (float(x) for x in np.asarray(bbox, np.float64).reshape(4))
    return _checked_box((x1, y1, x2, y2), height, width)


def _checked_share(value: Any) -> float:
    """Returns a score or frequency; ValueError if it is not in [0, 1]."""
    if not 0 <= float(value) <= 1 + 1e-6:
        raise ValueError(f"a score or frequency of {value}, expected 0 to 1")
    return float(value)


def _checked_box(box: Box4, height: int, width: int) -> Box4:
    """Returns a box that lies in its image, up to the rounding of detectors; ValueError otherwise."""
    x1, y1, x2, y2 = box
    if not (-1 <= x1 <= x2 <= width + 1 and -1 <= y1 <= y2 <= height + 1):
        raise ValueError(f"a box {box} in an image of {width} x {height} pixels")
    return box


def _safe_path(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} leads out of the working directory")
    return str(path)


def _ids(detections: Detections) -> tuple[dict[str, int], dict[str, int]]:
    """Returns the numbers of objects and of parts; names of the collection's own follow the known ones."""
    # Known names keep their numbers, whatever a collection adds
    objects = dict.fromkeys([*CATEGORIES, detections.category])
    used = (part.name for item in detections.items for part in item.parts)
    parts = dict.fromkeys([*sorted(PART_NAMES), *used])
    return (
        {name: i for i, name in enumerate(objects, 1)},
        {name: i for i, name in enumerate(parts, _FIRST_PART_ID)},
    )


def _word(name: Any) -> str:
    """Returns the name of a category or part; ValueError if it is none."""
    if not is_word(name):
        raise ValueError(f"{name!r} is no name of a category or part")
    return name


def _annotation(thing: Detection | Part, category_id: int, **extra: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.bbox
    return {
        **extra,
        "category_id": category_id,
        # COCO's boxes have a corner and a size; ours include both ends
        "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
        "area": mask_area(thing.mask),
        "segmentation": thing.mask,
        "iscrowd": 0,
        "score": thing.score,
    }


def _parse(content: Any, dataset: str) -> Detections:
    """Builds the detections from COCO JSON; KeyError, TypeError or ValueError if it is malformed."""
    category = _word(content["info"]["category"])
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    images = {entry["id"]: entry for entry in content["images"]}
    objects = [entry for entry in content["annotations"] if "part_of" not in entry]
    parts: dict[int, list[Part]] = {entry["id"]: [] for entry in objects}
    for entry in content["annotations"]:
        if "part_of" in entry:
            parts[entry["part_of"]].append(_parse_part(entry, names, images[entry["image_id"]]))
    items = [_parse_object(e, images[e["image_id"]], tuple(parts[e["id"]])) for e in objects]
    # Poses refer to objects by row, which the ids must confirm
    if [item.id for item in items] != list(range(len(images))):
        raise ValueError("its objects are not numbered as its images, from 0 on")
    return Detections(dataset, category, items)


def _parse_object(
    entry: dict[str, Any], image: dict[str, Any], parts: tuple[Part, ...]
) -> Detection:
    height, width = int(image["height"]), int(image["width"])
    return Detection(
        id=int(entry["id"]),
        image_path=_safe_path(image["file_name"]),
        height=height,
        width=width,
        bbox=_corners(entry["bbox"], height, width),
        score=_checked_share(entry["score"]),
        mask=checked_mask(entry["segmentation"], height, width),
        parts=parts,
    )


def _parse_part(entry: dict[str, Any], names: dict[int, str], image: dict[str, Any]) -> Part:
    name = _word(names[entry["category_id"]])
    height, width = int(image["height"]), int(image["width"])
    mask = checked_mask(entry["segmentation"], height, width)
    box, score = _corners(entry["bbox"], height, width), _checked_share(entry["score"])
    return Part(name, score, box, mask, _checked_share(entry["frequency"]))


def _corners(bbox: list[float], image_height: int, image_width: int) -> Box4:
    x, y, width, height = map(float, bbox)
    return _checked_box((x, y, x + width - 1, y + height - 1), image_height, image_width)
