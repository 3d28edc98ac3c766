"""Masks for photographs that have none: from a COCO file of any tool, or from Mask R-CNN.

Of the objects of the right category in a photograph, the best one is taken: whole, large enough, and
not in contact with another object. Without such an object the mask stays empty.
"""

import logging
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from data.collection import Collection
from data.detections import check_size, checked_mask, decode_mask
from data.image_files import UnreadablePicture, read_mask, read_photograph
from data.preparation.quality import grow, is_cut_off
from utils import checkpoint
from utils.cli import UserError
from utils.files import atomic_path, read_json
from utils.progress import progress

logger = logging.getLogger(__name__)

MIN_AREA = 96 * 96  # pixels
MIN_SCORE = 0.9
_LARGE = 0.3  # of the image; so large an object may touch others
_COCO_CLASSES = 91
_MAX_OUTLINE = 10**7  # pixels of the polygons of an object
_AGAIN = "Export it again."
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
# Names of COCO, in the order of torchvision's labels, of our 13 categories
COCO_LABELS = {
    "car": 3,
    "motorcycle": 4,
    "airplane": 5,
    "bus": 6,
    "truck": 8,
    "bird": 16,
    "horse": 19,
    "sheep": 20,
    "cow": 21,
    "elephant": 22,
    "bear": 23,
    "zebra": 24,
    "giraffe": 25,
}


class Candidate(NamedTuple):
    """A detected object.

    Attributes:
        category: its name in COCO.
        score: confidence in [0, 1].
        mask: (h, w) bool.
    """

    category: str
    score: float
    mask: np.ndarray


Detector = Callable[[Path], list[Candidate]]


def write_masks(collection: Collection, category: str, detect: Detector) -> dict[Path, str]:
    """Writes the masks that are missing or empty.

    Returns:
        Why the mask stays empty, by photograph.

    Raises:
        UserError: if the masks of a photograph are of another size.
    """
    reasons, found = {}, 0
    for image in progress(collection.images, description="masks"):
        path = collection.mask_path(image)
        if path.exists() and read_mask(path).any():
            continue
        try:
            shape = read_photograph(image).shape[:2]
        except UnreadablePicture:
            continue  # the preparation tells of it, together with what else is wrong
        candidates = detect(image)
        for height, width in {candidate.mask.shape for candidate in candidates} - {shape}:
            raise UserError(
                f"{image}: its masks have {width} x {height} pixels, expected {shape[1]} x {shape[0]}."
                " They were made for another photograph, or for this one turned."
            )
        best = choose(candidates, category)
        mask = np.zeros(shape, bool) if best is None else candidates[best].mask
        with atomic_path(path) as temporary:
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(temporary)
        found += best is not None
        if best is None:
            reasons[image] = _why_none(candidates, category)
    logger.info("%s/masks/: %d new masks with an object", collection.root, found)
    return reasons


def choose(candidates: list[Candidate], category: str) -> int | None:
    """Returns the position of the most certain usable object of a category; None if there is none."""
    usable = [
        i
        for i, candidate in enumerate(candidates)
        if candidate.category == category and complaint(candidates, i) is None
    ]
    return max(usable, key=lambda i: candidates[i].score * candidates[i].mask.sum(), default=None)


def complaint(candidates: list[Candidate], number: int) -> str | None:
    """Returns what speaks against an object, the end of a sentence; None if it is usable."""
    candidate = candidates[number]
    area = int(candidate.mask.sum())
    if candidate.score < MIN_SCORE:
        return f"is uncertain: score {candidate.score:.2f}, expected {MIN_SCORE}"
    if area < MIN_AREA:
        return f"is small: {area} pixels, expected {MIN_AREA}"
    if is_cut_off(candidate.mask):
        return "is cut off at the border"
    return "touches another object" if _collides(candidates, number) else None


def _why_none(candidates: list[Candidate], category: str) -> str:
    """Returns why no object of a photograph is usable, by the largest of the category."""
    numbers = [i for i, candidate in enumerate(candidates) if candidate.category == category]
    if not numbers:
        return f"shows no {category}"
    largest = max(numbers, key=lambda i: candidates[i].mask.sum())
    return f"shows a {category} that {complaint(candidates, largest)}"


def _collides(candidates: list[Candidate], number: int) -> bool:
    mask = candidates[number].mask
    if mask.mean() >= _LARGE:
        return False
    grown = grow(mask)
    others = (c.mask for i, c in enumerate(candidates) if i != number)
    return any((grown & grow(other)).any() for other in others)


def coco_detector(path: Path) -> Detector:
    """Returns the objects of a COCO file (polygons or run lengths), by the names of photographs.

    Folders and suffixes may differ; of several images of a name, that in the same folders is taken.

    Raises:
        UserError: if the file is missing or no COCO file.
    """
    content = read_json(path, _AGAIN)
    try:
        names = {entry["id"]: entry["name"].strip().lower() for entry in content["categories"]}
        images = {entry["id"]: entry for entry in content["images"]}
        places: dict[str, dict[tuple[str, ...], list[tuple[dict, dict]]]] = {}
        for image in images.values():
            parts = _parts_of(image["file_name"])
            places.setdefault(parts[-1], {}).setdefault(parts, [])
        for entry in content["annotations"]:
            image = images[entry["image_id"]]
            parts = _parts_of(image["file_name"])
            places[parts[-1]][parts].append((entry, image))
    except _MALFORMED as error:
        raise UserError(
            f"{path}: no COCO file of instances, with images, categories and annotations "
            f"({error!r}). {_AGAIN}"
        ) from None

    def detect(photograph: Path) -> list[Candidate]:
        there = places.get(photograph.stem, {})
        nearest = _nearest(photograph, there)
        if len(nearest) > 1:
            listed = ", ".join("/".join(parts) for parts in nearest[:3])
            raise UserError(
                f"{path}: {photograph} may be any of {listed}. Arrange the photographs in the "
                "folders that the file names."
            )
        try:
            found = [_candidate(e, image, names) for parts in nearest for e, image in there[parts]]
            return [candidate for candidate in found if candidate is not None]
        except _MALFORMED as error:
            raise UserError(
                f"{path}: {photograph.name} has no masks ({error!r}). {_AGAIN}"
            ) from None

    return detect


def _parts_of(name: str) -> tuple[str, ...]:
    """Returns folders and name, without suffix, of a path as any system writes it."""
    return PureWindowsPath(name).with_suffix("").parts


def _nearest(photograph: Path, places: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Returns those of some places that end in most of the folders of a photograph."""
    own = _parts_of(photograph.as_posix())

    def shared(parts: tuple[str, ...]) -> int:
        same = zip(reversed(parts), reversed(own), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], same))

    most = max(map(shared, places), default=0)
    return [parts for parts in places if shared(parts) == most]


def _candidate(entry: dict, image: dict, names: dict[int, str]) -> Candidate | None:
    """Returns the object of an annotation; None for one without area, such as a box or a line."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):
        segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not segmentation:
        return None
    mask = _decode(segmentation, int(image["height"]), int(image["width"]))
    score = entry.get("score")
    return Candidate(names[entry["category_id"]], 1.0 if score is None else float(score), mask)


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Returns a mask from polygons, or from run lengths as numbers or text."""
    if isinstance(segmentation, list):
        check_size(height, width)
        polygons = [np.array(polygon, np.float64) for polygon in segmentation]
        steps = sum(np.abs(np.diff(p.reshape(-1, 2), axis=0)).sum() for p in polygons)
        if not steps < _MAX_OUTLINE:  # pycocotools takes 40 bytes for each, and trusts its input
            raise ValueError(f"an outline of {steps} pixels")
        outlines = [polygon.tolist() for polygon in polygons]
        runs = coco_mask.merge(coco_mask.frPyObjects(outlines, height, width))  # type: ignore[arg-type]
        return coco_mask.decode(runs) > 0
    if "size" in segmentation and [*map(int, segmentation["size"])] != [height, width]:
        raise ValueError(
            f"a mask of {segmentation['size']} in an image of {[height, width]} pixels"
        )
    if isinstance(segmentation["counts"], list):
        check_size(height, width)
        counts = np.array(segmentation["counts"], np.int64)
        if counts.min() < 0 or counts.sum() != height * width:
            raise ValueError("run lengths that do not fill the image")
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(height, width, order="F")
    return decode_mask(checked_mask(segmentation, height, width))


def mask_rcnn_detector(weights: Path, device: torch.device) -> Detector:
    """Returns what torchvision's Mask R-CNN (ResNet-50 FPN, trained on COCO) sees in photographs.

    Raises:
        UserError: if the weights are missing or do not fit.
    """
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    network = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=_COCO_CLASSES, box_score_thresh=0.5
    )
    remedy = "Get https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth."
    state = checkpoint.load(weights, remedy=remedy)
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{weights} does not hold the weights of Mask R-CNN. {remedy}") from None
    network.eval().requires_grad_(False).to(device)
    labels = {label: name for name, label in COCO_LABELS.items()}

    def detect(path: Path) -> list[Candidate]:
        picture = torch.from_numpy(read_photograph(path)).permute(2, 0, 1).float() / 255
        (found,) = network([picture.to(device)])
        names = [labels.get(int(label), "other") for label in found["labels"]]
        masks = (found["masks"][:, 0] > 0.5).cpu().numpy()
        return [Candidate(*x) for x in zip(names, found["scores"].tolist(), masks, strict=True)]

    return detect
