"""The objects of a dataset and their parts: cache/<name>/detections.json in the COCO instance format.

Part annotations are annotations too: "part_of" is the id of the object they belong to.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from data.artifacts import cache_folder, category_of, prepare_command
from data.definitions import CATEGORIES, PART_NAMES
from utils.cli import UserError
from utils.files import read_json, to_json, write_bytes

# {"size": [h, w], "counts": compressed run lengths as text}
RLE = dict[str, Any]
Box4 = tuple[float, float, float, float]

_FIRST_PART_ID = 101


@dataclass(frozen=True)
class Part:
    """One detected part of an object.

    Attributes:
        name: one of `PART_NAMES`.
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
    """All objects of a dataset; pose files refer to them by row."""

    dataset: str
    category: str
    items: tuple[Detection, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Detection:
        return self.items[row]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what the rows are: category, image, box and mask of each (parts may change)."""
        rows = [
            [item.image_path, [round(x, 3) for x in item.bbox], item.mask["counts"]]
            for item in self.items
        ]
        return hashlib.sha256(to_json([self.category, rows]).encode()).hexdigest()


def encode_mask(mask: np.ndarray) -> RLE:
    """Compresses a boolean mask (h, w) to run lengths."""
    rle: Any = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: RLE) -> np.ndarray:
    """Returns the boolean mask (h, w) of run lengths."""
    return coco_mask.decode(_packed(rle)) > 0


def _packed(rle: RLE) -> Any:
    """Returns run lengths in the spelling of pycocotools, which wants bytes."""
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}


def mask_box(mask: np.ndarray) -> Box4:
    """Returns x1, y1, x2, y2 of a mask (h, w) with at least one pixel, both ends included."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def detections_path(dataset: str) -> Path:
    """Returns the path of the detections of a dataset."""
    return cache_folder(dataset) / "detections.json"


def save_detections(detections: Detections) -> Path:
    """Writes the detections of a dataset; returns the path."""
    images, annotations = [], []
    for item in detections.items:
        size = {"height": item.height, "width": item.width}
        images.append({"id": item.id, "file_name": item.image_path, **size})
        category_id = CATEGORIES.index(detections.category) + 1
        annotations.append(_annotation(item, category_id, image_id=item.id, id=item.id))
    next_id = len(detections)
    for item in detections.items:
        for part in item.parts:
            extra = {"part_of": item.id, "frequency": part.frequency}
            part_id = _part_ids()[part.name]
            annotations.append(_annotation(part, part_id, image_id=item.id, id=next_id, **extra))
            next_id += 1
    content = {
        "info": {"dataset": detections.dataset, "category": detections.category},
        "images": images,
        "categories": _categories(),
        "annotations": annotations,
    }
    path = detections_path(detections.dataset)
    write_bytes(path, (to_json(content) + "\n").encode())
    return path


def load_detections(dataset: str) -> Detections:
    """Reads the detections of a dataset.

    Raises:
        UserError: if the dataset is unknown or not prepared, or the file is damaged.
    """
    path = detections_path(dataset)
    if not path.exists():
        category_of(dataset)  # an unknown dataset is the more helpful message
    remedy = f"Create it with: {prepare_command(dataset)}"
    content = read_json(path, remedy)
    try:
        return _parse(content, dataset)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a detections file ({error!r}). {remedy}") from error


def _part_ids() -> dict[str, int]:
    return {name: _FIRST_PART_ID + i for i, name in enumerate(sorted(PART_NAMES))}


def _categories() -> list[dict[str, Any]]:
    objects = [{"id": i, "name": c, "supercategory": "object"} for i, c in enumerate(CATEGORIES, 1)]
    parts = [{"id": i, "name": n, "supercategory": "part"} for n, i in _part_ids().items()]
    return objects + parts


def _annotation(thing: Detection | Part, category_id: int, **extra: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.bbox
    return {
        **extra,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
        "area": int(coco_mask.area(_packed(thing.mask))),
        "segmentation": thing.mask,
        "iscrowd": 0,
        "score": thing.score,
    }


def _parse(content: Any, dataset: str) -> Detections:
    """Builds the detections from COCO JSON; KeyError, TypeError or ValueError if it is malformed."""
    category = content["info"]["category"]
    if category not in CATEGORIES:
        raise ValueError(f"unknown category {category}")
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    images = {entry["id"]: entry for entry in content["images"]}
    objects = [entry for entry in content["annotations"] if "part_of" not in entry]
    parts: dict[int, list[Part]] = {entry["id"]: [] for entry in objects}
    for entry in content["annotations"]:
        if "part_of" in entry:
            parts[entry["part_of"]].append(_parse_part(entry, names))
    items = [_parse_object(e, images[e["image_id"]], tuple(parts[e["id"]])) for e in objects]
    return Detections(dataset, category, tuple(items))


def _parse_object(
    entry: dict[str, Any], image: dict[str, Any], parts: tuple[Part, ...]
) -> Detection:
    path = PurePosixPath(image["file_name"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} leads out of the working directory")
    return Detection(
        id=int(entry["id"]),
        image_path=str(path),
        height=int(image["height"]),
        width=int(image["width"]),
        bbox=_corners(entry["bbox"]),
        score=float(entry["score"]),
        mask=entry["segmentation"],
        parts=parts,
    )


def _parse_part(entry: dict[str, Any], names: dict[int, str]) -> Part:
    name = names[entry["category_id"]]
    if name not in PART_NAMES:
        raise ValueError(f"unknown part {name}")
    box, score = _corners(entry["bbox"]), float(entry["score"])
    return Part(name, score, box, entry["segmentation"], float(entry["frequency"]))


def _corners(bbox: list[float]) -> Box4:
    x, y, width, height = map(float, bbox)
    return x, y, x + width - 1, y + height - 1
