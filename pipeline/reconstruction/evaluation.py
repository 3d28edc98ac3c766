"""Evaluation of the mesh estimator: silhouettes, colors and, where known, the true shapes."""

import logging
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.detections import Detections
from data.ground_truth import GroundTruth, TrueShapes, load_ground_truth, load_true_shapes
from geometry.distances import chamfer_distance, hard_iou, iou
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.model import make_scene, predict, render
from pipeline.reconstruction.model_file import load_trained
from rendering import rasterizer
from utils import distributed
from utils.progress import progress
from utils.run_directory import RunDirectory, configure_logging

logger = logging.getLogger(__name__)

TITLES = {
    "iou": "IoU of the silhouettes at 0.5",
    "soft_iou": "IoU of the soft silhouettes",
    "color_error": "mean absolute color error inside the mask, in 0-1",
    "chamfer": "Chamfer distance to the true shape, in percent of its diagonal",
    "chamfer_template": "the same of the template instead of the estimate",
}


class Truth(NamedTuple):
    """True shapes of a dataset."""

    poses: GroundTruth
    shapes: TrueShapes


@torch.no_grad()
def evaluate(device: torch.device, config: ReconstructionConfig) -> dict[str, float]:
    """Prints and records means over all images with a pose; returns them by name (see TITLES)."""
    rasterizer.set_backend(config.rasterizer)
    model, data, config = load_trained(config, device)
    configure_logging(config.folder / "log.txt")
    scene = make_scene(model.vocabulary, device)
    truths = [_load_truth(detections) for detections in data.detections]
    mine = distributed.shard(len(data))
    values: dict[str, list[float]] = defaultdict(list)
    with progress(total=len(mine), description="evaluating") as bar:
        for start in range(mine.start, mine.stop, config.batch_size):
            index = torch.arange(start, min(start + config.batch_size, mine.stop))
            # Estimate and render
            image = torch.stack([data[int(i)].image for i in index]).to(device)
            labels = data.labels.select(index).to(device)
            prediction = predict(model.network, scene, image, labels)
            maps, alpha = render(scene, prediction, labels, config.model.image_resolution)
            colors = maps[:, -3:] if maps is not None and config.model.predicts_texture else None
            # Compare with the photographs
            for name, column in picture_measures(image, alpha, colors).items():
                values[name] += column.tolist()
            # Compare with true shapes, where they are known
            faces = scene.sphere.faces.cpu().numpy()
            templates = scene.templates[labels.template]
            for i, mesh, template in zip(index, prediction.vertices, templates, strict=True):
                true = _true_mesh(data, truths, int(i))
                if true is not None:
                    values["chamfer"].append(chamfer_distance((_numpy(mesh), faces), true))
                    values["chamfer_template"].append(
                        chamfer_distance((_numpy(template), faces), true)
                    )
            bar.update(len(index))
    means = _means(values)
    _report(means, len(data), RunDirectory(config.folder), model.step)
    return means


def picture_measures(image: Tensor, alpha: Tensor, colors: Tensor | None) -> dict[str, Tensor]:
    """Compares renderings with crops.

    Args:
        image: (B, 4, h, w) crops.
        alpha: (B, 1, h, w) rendered silhouettes.
        colors: (B, 3, h, w) rendered colors in [-1, 1], or None.

    Returns:
        (B,) each: iou, soft_iou and, with colors, color_error.
    """
    # The overlap at a threshold, as usually reported, and the soft one, which changes sooner
    mask = image[:, 3:]
    measures = {"iou": hard_iou(alpha, mask)[:, 0], "soft_iou": iou(alpha, mask)[:, 0]}
    if colors is not None:
        # Colors in [-1, 1] differ by 2 at most
        error = (colors - image[:, :3]).abs().mean(1, keepdim=True) / 2
        area = mask.flatten(1).sum(1)
        measures["color_error"] = (error * mask).flatten(1).sum(1) / area.clamp(min=1e-6)
    return measures


def _load_truth(detections: Detections) -> Truth | None:
    poses, shapes = load_ground_truth(detections), load_true_shapes(detections.dataset)
    return Truth(poses, shapes) if poses is not None and shapes is not None else None


def _true_mesh(
    data: ReconstructionData, truths: list[Truth | None], index: int
) -> tuple[np.ndarray, np.ndarray] | None:
    number, row = data.source(index)
    truth = truths[number]
    if truth is None or truth.poses.shape_id[row] < 0:
        return None
    vertices = truth.shapes.vertices_of(int(truth.poses.shape_id[row]))
    return _numpy(vertices), truth.shapes.faces.numpy()


def _numpy(x: Tensor) -> np.ndarray:
    return x.double().cpu().numpy()


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    """Means over the images of all processes."""
    # Not every process has images with true shapes, so that the names may differ
    parts = distributed.gather(dict(values))
    names = [name for name in TITLES if any(name in part for part in parts)]
    columns = {name: [v for part in parts for v in part.get(name, [])] for name in names}
    return {name: float(np.mean(column)) for name, column in columns.items()}


def _report(means: dict[str, float], count: int, run: RunDirectory, step: int | None) -> None:
    logger.info("evaluated %d images after %s steps", count, "?" if step is None else step)
    for name, value in means.items():
        logger.info("%-10.4f %s", value, TITLES[name])
    run.record(**({} if step is None else {"step": step}), **means)
