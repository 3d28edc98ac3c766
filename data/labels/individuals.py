"""Which individual each photograph shows, where that is known."""

from collections.abc import Sequence
from pathlib import Path

from data.collection import collection_folder, image_stem
from data.detections import Detections
from data.ground_truth import load_ground_truth
from data.labels.reading import LabelSets
from utils.cli import UserError
from utils.files import read_json

SET = "individual"  # name of the set of labels that individuals are


def path_of(dataset: str) -> Path:
    """Returns the path of the file that names the individuals of a collection."""
    return collection_folder(dataset) / "instances.json"


def individuals_of(detections: Detections) -> Sequence[str | int | None]:
    """Returns the individual (N) that each detection shows, by instances.json or else the true shapes; None if unknown.

    Raises:
        UserError: if the file is damaged.
    """
    path, count = path_of(detections.dataset), len(detections)
    if not path.exists():
        truth = load_ground_truth(detections)
        ids = [-1] * count if truth is None else truth.shape_id.tolist()
        return [number if number >= 0 else None for number in ids]
    remedy = f'Write {path}: {{"<image without suffix>": "<individual>", ...}}.'
    content = read_json(path, remedy)
    if not isinstance(content, dict) or not all(isinstance(x, str) for x in content.values()):
        raise UserError(f"{path}: expected the name of an individual for each image. {remedy}")
    stems = [image_stem(item.image_path, detections.dataset) for item in detections.items]
    return [content.get(stem) for stem in stems]


def with_individuals(labels: LabelSets, detections: Detections) -> LabelSets:
    """Adds the individuals as a set of labels, if several photographs show each on average, and none has that name."""
    names = {
        item.image_path: str(name)
        for item, name in zip(detections.items, individuals_of(detections), strict=True)
        if name is not None
    }
    if SET in labels or not 1 < len(set(names.values())) <= len(names) / 2:
        return labels
    return {**labels, SET: names}
