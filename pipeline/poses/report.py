"""How good estimated poses are: agreement of hypotheses, and errors where the truth is known."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.cache import folders, pose_files, template_files
from data.collection import ground_truth_path
from data.detections import Detections, load_detections
from data.ground_truth import load_ground_truth, load_keypoints, rotation_report
from data.view_labels import load_view_labels, view_report
from geometry import camera
from geometry.sphere_mesh import SphereMesh
from rendering.keypoint_transfer import (
    AnnotatedMeshes,
    TransferOptions,
    describe,
    measure_transfer,
    shows_pairs,
)
from utils import files
from utils.cli import UserError
from utils.run_directory import configure_logging

TEMPERATURE = 0.01  # of the probabilities of hypotheses, in units of their overlap

# Mean overlaps of the best poses: a template fits cars with .92, birds with .85, horses with .71
FITTING, UNLIKE = 0.8, 0.65
# Overlap that parts, colors and features may cost on average: .06 of birds, .14 if they are fitted with
# the template of a car
LARGEST_CONFLICT = 0.1
# Mean confidence of all poses: .86 to .99 of ten collections with their templates, .50 of cars with that of a bird
LEAST_CONFIDENCE = 0.65

logger = logging.getLogger(__name__)


def agreement(overlap: Tensor, rotation: Tensor) -> Tensor:
    """Spread of the likely rotations of each image: 0 if all hypotheses that fit agree.

    The expectation of 1 - <q_i, q_j>^2 under softmax(overlap / 0.01), from the second moment of the
    quaternions instead of all pairs.

    Args:
        overlap: (N, H) intersection over union of each hypothesis.
        rotation: (N, H, 4) unit quaternions.

    Returns:
        (N,) scores in [0, 1].
    """
    # The sum over all pairs of p_i p_j <q_i, q_j>^2 is the squared norm of the moment
    weights = torch.softmax(overlap.double() / TEMPERATURE, dim=1)
    q = rotation.double()
    moment = torch.einsum("nh,nhi,nhj->nij", weights, q, q)
    return (1 - moment.square().sum(dim=(1, 2))).to(overlap.dtype)


def check(detections: Detections) -> None:
    """Reads what a report reads, so that damaged files are told before work begins.

    Raises:
        UserError: if one of them is damaged.
    """
    load_ground_truth(detections)
    load_view_labels(detections)
    _earlier_figures(detections.dataset)


def evaluate_keypoints(dataset: str, mode: str, options: TransferOptions) -> dict[str, float]:
    """Measures how well the chosen poses carry keypoints from one photograph to another.

    The meshes are the templates, or the shapes that were fitted with the poses; no network is needed.
    Logs the figures and writes them to cache/<dataset>/metrics.json.

    Raises:
        UserError: if poses are missing, or the collection has no keypoints to compare with.
    """
    configure_logging()
    detections = load_detections(dataset)
    templates = template_files.templates_of(detections, mode)
    origin = pose_files.origin_of(detections, templates)
    poses = pose_files.load_estimated_poses(dataset, mode, origin)
    # Photographs with a pose
    keypoints, rows = load_keypoints(detections), poses.indices
    group = torch.zeros_like(rows)
    if keypoints is None or not shows_pairs(keypoints.visible[rows], group, options):
        raise UserError(
            f"--evaluate_keypoints: no two photographs of {dataset} with poses show the same keypoint "
            f"(keypoints in {ground_truth_path(dataset)})."
        )
    shapes = poses.vertices(templates, torch.arange(len(rows)))
    screen = camera.project(shapes, poses.fitted_pose)
    annotations = keypoints.position[rows], keypoints.visible[rows], keypoints.extent[rows]
    figures = measure_transfer(AnnotatedMeshes(screen, *annotations, group), SphereMesh(), options)
    for line in describe(figures, options):
        logger.info("%s", line)
    # Beside the figures of the steps
    content = _earlier_figures(dataset)
    content.setdefault("keypoints", {})[mode] = {"images": len(rows), **figures}
    files.write_json(_figures_path(dataset), content)
    return figures


def verdict(overlap: float, conflict: float = 0.0, confidence: float = 1.0) -> str:
    """Says what overlaps and confidences tell about the template.

    Args:
        overlap: mean of those of the best poses of all images.
        conflict: by how much the chosen poses overlap less on average.
        confidence: mean of the chosen poses.
    """
    if overlap < UNLIKE or conflict > LARGEST_CONFLICT:
        fit = "is unlike these objects; do not trust their poses"
    elif confidence < LEAST_CONFIDENCE:
        fit = "covers these objects, but most poses are uncertain; do not trust them"
    else:
        fit = "fits these objects" if overlap >= FITTING else "resembles these objects"
    best = f" of {overlap:.2f}" if conflict > LARGEST_CONFLICT else ""
    return f"overlap {overlap - conflict:.2f}{best}: the template {fit}"


def report(
    detections: Detections,
    stage: str,
    mode: str,
    figures: dict[str, Any],
    rotation: Tensor,
    kept: Tensor,
) -> None:
    """Logs the figures of a stage and writes them to cache/<dataset>/metrics.json.

    Args:
        detections: the N images.
        stage: "step1" or "step2", a key of the file.
        mode: singletpl or multitpl, the key below.
        figures: what the stage measured; errors are added where poses or viewing directions are known.
        rotation: (N, 4) chosen rotation of each image.
        kept: (K,) rows of the images that are kept.
    """
    figures = {"images": len(detections), "kept": len(kept), **figures}
    # Errors where the truth is known
    truth = load_ground_truth(detections)
    if truth is not None:
        figures["rotation_of_all"] = rotation_report(rotation, truth)
        figures["rotation_of_kept"] = rotation_report(rotation[kept], truth, kept)
    labels = load_view_labels(detections)
    if labels is not None:
        figures["view_of_all"] = view_report(rotation, labels)
        figures["view_of_kept"] = view_report(rotation[kept], labels, kept)
    _log(stage, figures)
    # Beside the figures of other stages and templates
    content = _earlier_figures(detections.dataset)
    content.setdefault(stage, {})[mode] = figures
    files.write_json(_figures_path(detections.dataset), content)


def _figures_path(dataset: str) -> Path:
    return folders.cache_folder(dataset) / "metrics.json"


def _earlier_figures(dataset: str) -> dict[str, dict[str, Any]]:
    path, remedy = _figures_path(dataset), "Delete it and run again."
    content = files.read_json(path, remedy) if path.exists() else {}
    if not isinstance(content, dict) or not all(isinstance(x, dict) for x in content.values()):
        raise UserError(f"{path} is damaged: expected figures by stage and mode. {remedy}")
    return content


def _log(title: str, figures: dict[str, Any]) -> None:
    """Logs numbers in one line, nested ones in a line of their own."""
    # Numbers first, then what is nested
    plain = {name: value for name, value in figures.items() if not isinstance(value, dict)}
    words = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in plain.items()
    )
    logger.info("%s: %s", title, "  ".join(words))
    for name, value in figures.items():
        if isinstance(value, dict):
            _log(f"{title} {name}", value)
