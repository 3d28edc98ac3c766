"""Pose hypotheses (step 1), chosen poses and the semantic template (step 2) of a dataset.

Plain tensors, written atomically. A reader that misses its file names the command that makes it. Files
carry the fingerprints of the detections and the templates that they were made from.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.cache.folders import cache_folder
from data.cache.storage import Origin, check_numbers, load_tensors, save_tensors
from data.cache.template_files import templates_fingerprint
from data.detections import Detections
from geometry import camera
from geometry.camera import VECTOR_SIZE, Pose
from geometry.shape_modes import deform
from utils.cli import UserError

_POSE_KEYS = {"scale": "s", "translation": "t", "rotation": "R", "z0": "z0"}
HYPOTHESES = {
    **{"R": ("N", "H", 4), "s": ("N", "H", 1), "t": ("N", "H", 2), "z0": ("N", "H", 1)},
    **{"w": ("N", "H", "T"), "iou": ("N", "H")},
}
ESTIMATED = {
    **{"R": ("K", 4), "s": ("K", 1), "t": ("K", 2), "z0": ("K", 1)},
    **{"w": ("K", "T"), "iou": ("K", 1), "miou": ("K", 1), "indices": ("K",)},
}
SHAPES = {
    **{"modes": ("T", "M", 962, 3), "shapes": ("K", "M")},
    **{"shape_poses": ("K", VECTOR_SIZE), "shape_iou": ("K", 1)},
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


class FittedShapes(NamedTuple):
    """How the objects of the K kept detections deviate from their templates.

    The first mode is the mean deviation, of which every object has 1. The others have unit spread: their
    coefficients have mean 0 and mean square 1 over the collection. All are mirror-symmetric.

    Attributes:
        modes: (T, M, 962, 3) displacements of the vertices, object space.
        coefficients: (K, M).
        vectors: (K, 8) poses that were fitted with the shapes, near those of the templates; see
            `geometry.camera.to_vector`.
        iou: (K, 1) overlap of the silhouettes of the deformed templates in these poses.
    """

    modes: Tensor
    coefficients: Tensor
    vectors: Tensor
    iou: Tensor

    def to(self, device: torch.device) -> "FittedShapes":
        """Moves every member to a device."""
        return FittedShapes(*(member.to(device) for member in self))

    def deform(self, templates: Tensor, choice: Tensor) -> Tensor:
        """Returns the shapes (K, 962, 3) of objects whose templates are choice (K,) of (T, 962, 3)."""
        return deform(templates[choice], self.coefficients, self.modes[choice])

    def select(self, index: Tensor) -> "FittedShapes":
        """Returns the shapes of some rows (n,) in 0..K-1."""
        return FittedShapes(self.modes, *(member[index] for member in self[1:]))


class EstimatedPoses(NamedTuple):
    """The chosen poses of the K kept detections (step 2).

    Attributes:
        indices: (K,) int64 ascending rows of the detections.
        pose: members of shape (K, ...).
        template_weights: (K, T) one-hot.
        iou: (K, 1) overlap of the silhouettes.
        miou: (K, 1) mean overlap of the parts.
        confidence: (K, 1) probability that the pose is right; 1 in published files.
        shapes: of the objects; None, as in published files, if they are those of the templates.
    """

    indices: Tensor
    pose: Pose
    template_weights: Tensor
    iou: Tensor
    miou: Tensor
    confidence: Tensor
    shapes: FittedShapes | None = None

    def select(self, index: Tensor) -> "EstimatedPoses":
        """Returns the poses of some rows (n,) in 0..K-1."""
        return EstimatedPoses(
            self.indices[index],
            camera.select(self.pose, index),
            self.template_weights[index],
            self.iou[index],
            self.miou[index],
            self.confidence[index],
            None if self.shapes is None else self.shapes.select(index),
        )

    @property
    def fitted_pose(self) -> Pose:
        """The poses of the fitted shapes, members of shape (K, ...)."""
        return self.pose if self.shapes is None else camera.from_vector(self.shapes.vectors)

    def vertices(self, templates: Tensor, rows: Tensor) -> Tensor:
        """Returns the fitted shapes (n, 962, 3) of rows (n,) in 0..K-1, for templates (T, 962, 3)."""
        choice = self.template_weights[rows].argmax(dim=1)
        if self.shapes is None:
            return templates[choice]
        return self.shapes.select(rows).deform(templates, choice)


class SemanticTemplate(NamedTuple):
    """Which part every vertex of the templates belongs to (step 2).

    Attributes:
        probabilities: (T, V, K + 1), channel 0 = object without part.
        part_names: the K names behind channels 1..K.
    """

    probabilities: Tensor
    part_names: list[str]


def origin_of(detections: Detections, templates: Tensor) -> Origin:
    """Returns what poses are made from: detections, and the templates (T, 962, 3) of their category."""
    return Origin(detections.fingerprint, templates_fingerprint(templates))


def hypotheses_path(dataset: str, mode: str) -> Path:
    """Returns the path of the result of step 1."""
    return cache_folder(dataset) / f"camera_hypotheses_silhouette_{mode}.bin"


def poses_path(dataset: str, mode: str) -> Path:
    """Returns the path of the result of step 2."""
    return cache_folder(dataset) / f"poses_estimated_{mode}.bin"


def semantic_template_path(dataset: str, mode: str) -> Path:
    """Returns the path of the part probabilities of the vertices."""
    return cache_folder(dataset) / f"semantic_template_{mode}.bin"


def save_hypotheses(dataset: str, mode: str, hypotheses: Hypotheses, origin: Origin) -> Path:
    """Writes the result of step 1; returns the path."""
    content = _pose_entries(hypotheses.pose)
    content |= {"w": hypotheses.template_weights, "iou": hypotheses.iou}
    return save_tensors(hypotheses_path(dataset, mode), content, origin)


def load_hypotheses(dataset: str, mode: str, origin: Origin) -> Hypotheses:
    """Reads the result of step 1; UserError if it was made from something else."""
    path = hypotheses_path(dataset, mode)
    command = f"python pose_optimization_step1.py --dataset {dataset} --mode {mode}"
    content = load_tensors(path, tuple(HYPOTHESES), origin, command)
    check_poses(path, content, HYPOTHESES, f"Make it again with: {command}")
    return Hypotheses(_pose_from(content), content["w"], content["iou"])


def save_estimated_poses(dataset: str, mode: str, poses: EstimatedPoses, origin: Origin) -> Path:
    """Writes the result of step 2; returns the path."""
    content = _pose_entries(poses.pose)
    content |= {"indices": poses.indices, "w": poses.template_weights}
    content |= {"iou": poses.iou, "miou": poses.miou, "confidence": poses.confidence}
    if poses.shapes is not None:
        content |= dict(zip(SHAPES, poses.shapes, strict=True))
    return save_tensors(poses_path(dataset, mode), content, origin)


def load_estimated_poses(dataset: str, mode: str, origin: Origin) -> EstimatedPoses:
    """Reads the result of step 2; UserError if it was made from something else."""
    command = f"python pose_optimization_step2.py --dataset {dataset} --mode {mode}"
    return read_estimated_poses(poses_path(dataset, mode), origin, command)


def read_estimated_poses(path: Path, origin: Origin, command: str) -> EstimatedPoses:
    """Reads such poses from a file; errors name the command that makes it."""
    optional = ["confidence", *SHAPES]  # published files have none of them
    content = load_tensors(path, tuple(ESTIMATED), origin, command, optional)
    # Shapes are complete, or there are none
    has_shapes = not SHAPES.keys().isdisjoint(content)
    expected = ESTIMATED | SHAPES if has_shapes else ESTIMATED
    check_poses(path, content, expected, f"Make it again with: {command}")
    confidence = content.get("confidence", torch.ones_like(content["iou"]))
    scores = (content["iou"], content["miou"], confidence)
    shapes = FittedShapes(*(content[name] for name in SHAPES)) if has_shapes else None
    return EstimatedPoses(content["indices"], _pose_from(content), content["w"], *scores, shapes)


def check_poses(
    path: Path, content: dict[str, Any], shapes: dict[str, tuple[int | str, ...]], remedy: str
) -> None:
    """Raises a UserError unless a pose file has these entries, finite, and rows in ascending order."""
    # A missing entry is reported before the numbers are looked at
    missing = [name for name in shapes if name not in content]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}. {remedy}")
    check_numbers(path, content, shapes, remedy)
    # Rows that ascend name no image twice
    rows = content.get("indices", torch.arange(1))
    if rows.dtype != torch.int64 or rows[0] < 0 or (rows.diff() <= 0).any():
        raise UserError(f"{path}: indices are not ascending whole numbers from 0 on. {remedy}")


def save_semantic_template(
    dataset: str, mode: str, template: SemanticTemplate, origin: Origin
) -> Path:
    """Writes the part probabilities of the vertices; returns the path."""
    content = {"probabilities": template.probabilities, "part_names": list(template.part_names)}
    return save_tensors(semantic_template_path(dataset, mode), content, origin)


def load_semantic_template(dataset: str, mode: str, origin: Origin) -> SemanticTemplate:
    """Reads the part probabilities of the vertices."""
    path = semantic_template_path(dataset, mode)
    command = f"python pose_optimization_step2.py --dataset {dataset} --mode {mode}"
    content = load_tensors(path, ("probabilities", "part_names"), origin, command)
    # One channel for each part, and one for the object without part
    names, shape = content["part_names"], ("T", "V", "K")
    check_numbers(path, content, {"probabilities": shape}, f"Make it again with: {command}")
    width = content["probabilities"].shape[2]
    if not isinstance(names, list) or not all(isinstance(x, str) for x in names) or len(names) + 1 != width:  # fmt: skip
        raise UserError(
            f"{path}: part_names are not {width - 1} texts. Make it again with: {command}"
        )
    return SemanticTemplate(content["probabilities"], names)


def _pose_entries(pose: Pose) -> dict[str, Any]:
    return {key: getattr(pose, name) for name, key in _POSE_KEYS.items()}


def _pose_from(content: dict[str, Any]) -> Pose:
    return Pose(**{name: content[key] for name, key in _POSE_KEYS.items()})
