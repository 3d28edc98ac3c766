"""The files under cache/ that one stage writes and another reads: paths, typed readers and writers.

Files are plain tensors, plain arrays or JSON, written atomically. A reader that misses its file names the
command that makes it. Hypotheses and poses carry the fingerprint of the detections they refer to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.definitions import CATEGORIES, DATASETS
from data.storage import check_numbers, load_arrays, load_tensors, save_arrays, save_tensors
from rendering.camera import Pose
from utils import checkpoint
from utils.cli import UserError
from utils.files import read_json

CACHE_FOLDER = Path("cache")
IMAGE_RESOLUTION = 299  # of the Inception network
ORTHOGRAPHIC_Z0 = 20.0  # a camera distance of 5e8: no perspective in single precision
_POSE_KEYS = {"scale": "s", "translation": "t", "rotation": "R", "z0": "z0"}
# Shapes of the entries of both kinds of pose files
HYPOTHESES = {
    **{"R": ("N", "H", 4), "s": ("N", "H", 1), "t": ("N", "H", 2), "z0": ("N", "H", 1)},
    **{"w": ("N", "H", "T"), "iou": ("N", "H")},
}
ESTIMATED = {
    **{"R": ("K", 4), "s": ("K", 1), "t": ("K", 2), "z0": ("K", 1)},
    **{"w": ("K", "T"), "iou": ("K", 1), "miou": ("K", 1), "indices": ("K",)},
}


class Hypotheses(NamedTuple):
    """Candidate poses of all N detections (step 1).

    Attributes:
        pose: members of shape (N, H, ...).
        template_weights: (N, H, T) one-hot.
        iou: (N, H) overlap of the silhouettes in [0, 1].
    """

    pose: Pose
    template_weights: Tensor
    iou: Tensor


class EstimatedPoses(NamedTuple):
    """The chosen poses of the K kept detections (step 2).

    Attributes:
        indices: (K,) int64 ascending rows of the detections.
        pose: members of shape (K, ...).
        template_weights: (K, T) one-hot.
        iou: (K, 1) overlap of the silhouettes.
        miou: (K, 1) mean overlap of the parts.
        confidence: (K, 1) probability that the pose is right; 1 in published files.
    """

    indices: Tensor
    pose: Pose
    template_weights: Tensor
    iou: Tensor
    miou: Tensor
    confidence: Tensor


class SemanticTemplate(NamedTuple):
    """Which part every vertex of the templates belongs to (step 2).

    Attributes:
        probabilities: (T, V, K + 1), channel 0 = object without part.
        part_names: the K names behind channels 1..K.
    """

    probabilities: Tensor
    part_names: list[str]


class PoseMetadata(NamedTuple):
    """Poses of the K pseudo-ground-truth items, from which the GAN draws its views.

    Attributes:
        scale: (K, 1).
        translation: (K, 3), the third component is 0.
        rotation: (K, 4).
        z0: (K, 1).
        category: (K,) int64, position in the category list of the run (0 for a single dataset).
        paths: K image paths.
    """

    scale: Tensor
    translation: Tensor
    rotation: Tensor
    z0: Tensor
    category: Tensor
    paths: list[str]

    @property
    def pose(self) -> Pose:
        """The K poses as a batch."""
        return Pose(self.scale, self.translation[:, :2], self.rotation, self.z0)


class PseudoItem(NamedTuple):
    """Pseudo-ground-truth of one image; arrays of the types stored.

    Attributes:
        mesh: (3, 32, 32) float32 displacement map.
        seg: (K + 1, h, w) float32 part probabilities in UV space.
        texture: (3, R, R) float16 in [-1, 1], 0 where unseen.
        texture_alpha: (1, R, R) float16 in [0, 1].
        image: (4, 299, 299) float16, premultiplied RGB in [-1, 1] and mask.
        category: position in the category list of the run.
    """

    mesh: np.ndarray
    seg: np.ndarray
    texture: np.ndarray
    texture_alpha: np.ndarray
    image: np.ndarray
    category: int


def cache_folder(dataset: str) -> Path:
    """Returns the folder of a dataset's artifacts."""
    return CACHE_FOLDER / dataset


def prepare_command(dataset: str) -> str:
    """Returns the command that makes the detections of a dataset."""
    category = "" if dataset in DATASETS else " --category <category>"
    return f"python -m data.prepare --dataset {dataset}{category}"


def collection_path(dataset: str) -> Path:
    """Returns the path of the record of a prepared collection."""
    return cache_folder(dataset) / "collection.json"


def category_of(dataset: str) -> str:
    """Returns the category of a dataset, known by name or recorded by its preparation."""
    if dataset == "all":
        raise UserError("--dataset all stands for 13 datasets, but this needs a single one.")
    path = collection_path(dataset)
    if not path.exists() and dataset in DATASETS:
        return DATASETS[dataset]
    remedy = (
        f"Put photographs into datasets/{dataset}/images/ and masks into datasets/{dataset}/masks/, "
        f"then prepare them with: {prepare_command(dataset)}"
    )
    record = read_json(path, remedy)
    category = record.get("category") if isinstance(record, dict) else None
    if category not in CATEGORIES:
        raise UserError(f"{path}: unknown category {category!r}. {remedy}")
    return category


# Templates


def templates_path(category: str, mode: str) -> Path:
    """Returns the path of a category's remeshed templates."""
    return CACHE_FOLDER / "remeshed_templates" / mode / f"{category}_templates.pth"


def save_templates(category: str, mode: str, vertices: Tensor) -> Path:
    """Writes the vertices (T, 962, 3) of the remeshed templates; returns the path."""
    path = templates_path(category, mode)
    checkpoint.save(path, vertices.detach().cpu().float().contiguous())
    return path


def load_templates(category: str, mode: str) -> Tensor:
    """Reads the remeshed templates of a category.

    Returns:
        (T, 962, 3) float32; T = 1 in mode singletpl.

    Raises:
        UserError: if the file is missing, damaged, or has another shape.
    """
    path = templates_path(category, mode)
    remedy = f"Create it with: python remesh.py --mode {mode} --classes {category}"
    vertices = read_templates(path, remedy)
    if mode == "singletpl" and len(vertices) != 1:
        raise UserError(f"{path}: singletpl expects 1 template, got {len(vertices)}. {remedy}")
    return vertices


def read_templates(path: Path, remedy: str) -> Tensor:
    """Reads remeshed templates (T, 962, 3) from a file."""
    vertices = checkpoint.load_plain(path, remedy=remedy)
    check_numbers(path, {"the tensor": vertices}, {"the tensor": ("T", 962, 3)}, remedy)
    return vertices.float()


# Poses


def hypotheses_path(dataset: str, mode: str) -> Path:
    """Returns the path of the result of step 1."""
    return cache_folder(dataset) / f"camera_hypotheses_silhouette_{mode}.bin"


def poses_path(dataset: str, mode: str) -> Path:
    """Returns the path of the result of step 2."""
    return cache_folder(dataset) / f"poses_estimated_{mode}.bin"


def semantic_template_path(dataset: str, mode: str) -> Path:
    """Returns the path of the part probabilities of the vertices."""
    return cache_folder(dataset) / f"semantic_template_{mode}.bin"


def save_hypotheses(dataset: str, mode: str, hypotheses: Hypotheses, fingerprint: str) -> Path:
    """Writes the result of step 1 for the detections of that fingerprint; returns the path."""
    content = _pose_entries(hypotheses.pose)
    content |= {"w": hypotheses.template_weights, "iou": hypotheses.iou}
    return save_tensors(hypotheses_path(dataset, mode), content, fingerprint)


def load_hypotheses(dataset: str, mode: str, fingerprint: str) -> Hypotheses:
    """Reads the result of step 1; UserError if it was made from other detections."""
    path = hypotheses_path(dataset, mode)
    command = f"python pose_optimization_step1.py --dataset {dataset} --mode {mode}"
    content = load_tensors(path, tuple(HYPOTHESES), fingerprint, command)
    check_poses(path, content, HYPOTHESES, f"Make it again with: {command}")
    return Hypotheses(_pose_from(content), content["w"], content["iou"])


def save_estimated_poses(dataset: str, mode: str, poses: EstimatedPoses, fingerprint: str) -> Path:
    """Writes the result of step 2 for the detections of that fingerprint; returns the path."""
    content = _pose_entries(poses.pose)
    content |= {"indices": poses.indices, "w": poses.template_weights}
    content |= {"iou": poses.iou, "miou": poses.miou, "confidence": poses.confidence}
    return save_tensors(poses_path(dataset, mode), content, fingerprint)


def load_estimated_poses(dataset: str, mode: str, fingerprint: str) -> EstimatedPoses:
    """Reads the result of step 2; UserError if it was made from other detections."""
    path = poses_path(dataset, mode)
    command = f"python pose_optimization_step2.py --dataset {dataset} --mode {mode}"
    content = load_tensors(path, tuple(ESTIMATED), fingerprint, command, optional=["confidence"])
    check_poses(path, content, ESTIMATED, f"Make it again with: {command}")
    confidence = content.get("confidence", torch.ones_like(content["iou"]))  # published: none
    scores = (content["iou"], content["miou"], confidence)
    return EstimatedPoses(content["indices"], _pose_from(content), content["w"], *scores)


def check_poses(
    path: Path, content: dict[str, Any], shapes: dict[str, tuple[int | str, ...]], remedy: str
) -> None:
    """Raises a UserError unless a pose file has these entries, finite, and rows in ascending order."""
    missing = [name for name in shapes if name not in content]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}. {remedy}")
    check_numbers(path, content, shapes, remedy)
    rows = content.get("indices", torch.arange(1))
    if rows.dtype != torch.int64 or rows[0] < 0 or (rows.diff() <= 0).any():
        raise UserError(f"{path}: indices are not ascending whole numbers from 0 on. {remedy}")


def save_semantic_template(
    dataset: str, mode: str, template: SemanticTemplate, fingerprint: str
) -> Path:
    """Writes the part probabilities of the vertices; returns the path."""
    content = {"probabilities": template.probabilities, "part_names": list(template.part_names)}
    return save_tensors(semantic_template_path(dataset, mode), content, fingerprint)


def load_semantic_template(dataset: str, mode: str, fingerprint: str) -> SemanticTemplate:
    """Reads the part probabilities of the vertices."""
    path = semantic_template_path(dataset, mode)
    command = f"python pose_optimization_step2.py --dataset {dataset} --mode {mode}"
    content = load_tensors(path, ("probabilities", "part_names"), fingerprint, command)
    return SemanticTemplate(content["probabilities"], content["part_names"])


def _pose_entries(pose: Pose) -> dict[str, Any]:
    return {key: getattr(pose, name) for name, key in _POSE_KEYS.items()}


def _pose_from(content: dict[str, Any]) -> Pose:
    return Pose(**{name: content[key] for name, key in _POSE_KEYS.items()})


# Pseudo-ground-truth


def metadata_path(dataset: str, mode: str) -> Path:
    """Returns the path of the poses that belong to the pseudo-ground-truth."""
    return cache_folder(dataset) / f"poses_metadata_{mode}.npz"


def pseudo_folder(dataset: str, resolution: int, mode: str) -> Path:
    """Returns the folder of the pseudo-ground-truth items."""
    return cache_folder(dataset) / f"pseudogt_{resolution}x{resolution}_{mode}"


def save_metadata(dataset: str, mode: str, metadata: PoseMetadata) -> Path:
    """Writes the poses that belong to the pseudo-ground-truth; returns the path."""
    return write_metadata(metadata_path(dataset, mode), metadata)


def write_metadata(path: Path, metadata: PoseMetadata) -> Path:
    """Writes such poses to a file; returns the path."""
    tensors = metadata._asdict()
    paths = np.array(tensors.pop("paths"), dtype=np.str_)
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return save_arrays(path, arrays | {"path": paths})


def load_metadata(dataset: str, mode: str) -> PoseMetadata:
    """Reads the poses that belong to the pseudo-ground-truth."""
    remedy = f"Create it with: {_export_command(dataset, mode)}"
    return read_metadata(metadata_path(dataset, mode), remedy)


def read_metadata(path: Path, remedy: str) -> PoseMetadata:
    """Reads such poses from a file, also a published one.

    Files of the predecessor's predecessor know neither categories nor perspective: one category, and
    a camera far away.
    """
    names = ("scale", "translation", "rotation", "path")
    arrays = load_arrays(path, names, remedy, optional=("z0", "category"))
    count = arrays["path"].size
    arrays.setdefault("z0", np.full((count, 1), ORTHOGRAPHIC_Z0, np.float32))
    arrays.setdefault("category", np.zeros(count, np.int64))
    widths = {"scale": 1, "translation": 3, "rotation": 4, "z0": 1}
    shapes = {name: (count, width) for name, width in widths.items()}
    check_numbers(path, arrays, {**shapes, "category": (count,)}, remedy)
    category = arrays["category"]
    if category.dtype.kind not in "iu" or not np.isin(category, range(len(CATEGORIES))).all():
        raise UserError(
            f"{path}: category has other numbers than 0-{len(CATEGORIES) - 1}. {remedy}"
        )
    pose = {name: torch.from_numpy(arrays[name]).float() for name in widths}
    paths = [str(entry) for entry in arrays["path"]]
    return PoseMetadata(**pose, category=torch.from_numpy(category).long(), paths=paths)


def save_pseudo_item(
    dataset: str, resolution: int, mode: str, index: int, item: PseudoItem
) -> Path:
    """Writes one item of the pseudo-ground-truth; returns the path.

    The arrays stay uncompressed: training reads them again and again.
    """
    path = pseudo_folder(dataset, resolution, mode) / f"{index}.npz"
    half = {name: getattr(item, name) for name in ("texture", "texture_alpha", "image")}
    single = {"mesh": item.mesh, "seg": item.seg}
    arrays = {name: np.asarray(value, np.float16) for name, value in half.items()}
    arrays |= {name: np.asarray(value, np.float32) for name, value in single.items()}
    return save_arrays(path, arrays | {"category": np.asarray(item.category, np.int64)})


def load_pseudo_arrays(
    dataset: str, resolution: int, mode: str, index: int, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Reads only the named members (fields of `PseudoItem`) of one item."""
    path = pseudo_folder(dataset, resolution, mode) / f"{index}.npz"
    command = _export_command(dataset, mode, resolution)
    return load_arrays(path, names, f"Create it with: {command}")


def load_pseudo_item(dataset: str, resolution: int, mode: str, index: int) -> PseudoItem:
    """Reads one item of the pseudo-ground-truth."""
    arrays = load_pseudo_arrays(dataset, resolution, mode, index, PseudoItem._fields)
    category = int(arrays.pop("category"))
    return PseudoItem(**arrays, category=category)


def pseudo_item_paths(dataset: str, resolution: int, mode: str) -> list[Path]:
    """Lists the items present, in order of their number; empty if the folder is missing."""
    paths = pseudo_folder(dataset, resolution, mode).glob("*.npz")
    return sorted((p for p in paths if p.stem.isdecimal()), key=lambda p: int(p.stem))


def check_pseudo_ground_truth(dataset: str, resolution: int, mode: str, expected: int) -> None:
    """Raises a UserError unless exactly the items 0..expected-1 are present."""
    paths = pseudo_item_paths(dataset, resolution, mode)
    if [int(path.stem) for path in paths] != list(range(expected)):
        folder = pseudo_folder(dataset, resolution, mode)
        raise UserError(
            f"{folder}/ has {len(paths)} items, but {metadata_path(dataset, mode)} lists {expected}. "
            f"Export them (again) with: {_export_command(dataset, mode, resolution)}"
        )


def _export_command(dataset: str, mode: str, resolution: int | None = None) -> str:
    option = f" --pseudogt_resolution {resolution}" if resolution else ""
    return (
        f"python run_reconstruction.py --name <model> --dataset {dataset} --mode {mode} "
        f"--generate_pseudogt{option}"
    )
