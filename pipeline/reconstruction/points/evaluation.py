"""Measures poses and points: after the rotation that makes both frames one, since cameras were not known."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.ground_truth import load_ground_truth
from data.multiview.objects import load_true_points
from geometry import quaternion
from geometry.distances import surface_points
from pipeline.reconstruction.points import alignment
from pipeline.reconstruction.points.config import PointConfig
from pipeline.reconstruction.points.dataset import PointData
from pipeline.reconstruction.points.model_file import PointNetwork, load_model
from pipeline.reconstruction.points.pictures import from_sides
from pipeline.reconstruction.points.projection import to_screen
from pipeline.reconstruction.points.surface import try_to_rebuild
from rendering.projection.losses import volume_loss
from rendering.projection.schedule import SIGMA
from utils import distributed
from utils.pictures import labeled_rows, save_image
from utils.run_directory import RunDirectory, configure_logging

SHOWN = 6  # objects in the picture
PICTURE_SIZE = 128

logger = logging.getLogger(__name__)


class Estimates(NamedTuple):
    """What the network makes of N images: points (N, P, 3), scale (N,), the student's rotation (N, 4)."""

    points: Tensor
    scale: Tensor
    rotation: Tensor


@torch.no_grad()
def evaluate(device: torch.device, config: PointConfig) -> dict[str, float]:
    """Prints and records the figures of a part of the objects, and draws some of them to output/.

    The common rotation is that of the objects for training, so that it has not seen the others. Every
    image is judged by its own points.

    Returns:
        The figures by name; those without ground truth are missing.

    Raises:
        UserError: if model or renderings are missing.
    """
    configure_logging(config.folder / "log.txt")
    if not distributed.is_main():  # minutes at the most, on one device
        return {}
    model = load_model(config, device)
    size = model.options.image_resolution
    train = PointData(config.dataset, "train", size)
    part = "test" if config.split == "all" else config.split
    data = train if part == "train" else PointData(config.dataset, part, size)
    known, made = estimate(model.network, train, device), estimate(model.network, data, device)
    figures: dict[str, float] = {"images": len(data.images), "objects": len(data.objects)}
    truth, common = load_ground_truth(data.detections), torch.tensor([1.0, 0.0, 0.0, 0.0])
    if truth is not None:
        upright, seen = model.options.camera_prior == "upright", truth.rotation[train.source]
        common = alignment.common_rotation(known.rotation, seen, upright).float()
        true = truth.rotation[data.source]
        found = alignment.accuracy(made.rotation, true, common)
        figures |= {"pose_under_30": found.share, "pose_median": found.median}
        aligned = quaternion.multiply(true, common)
        figures["iou"] = overlap(made, aligned, data, model.options.point_grid)
        figures |= _shape_figures(config.dataset, known, train, made, data, common)
    _report(figures, part)
    RunDirectory(config.folder).record(step=model.step or 0, split=part, **figures)
    _draw(Path("output") / f"{config.name}_points.png", made, data, common)
    return figures


def estimate(
    network: PointNetwork, data: PointData, device: torch.device, batch_size: int = 64
) -> Estimates:
    """Returns what a network makes of all images, each by itself."""
    parts = []
    for rows in torch.arange(len(data.images)).split(batch_size):
        cloud, rotation = network(data.select(rows).to(device))
        parts.append((*cloud, rotation))
    return Estimates(*(torch.cat(members).cpu() for members in zip(*parts, strict=True)))


def overlap(made: Estimates, rotation: Tensor, data: PointData, grid: int) -> float:
    """Returns the mean overlap of masks and points, from all images in all views of the same object.

    Args:
        made: of the N images.
        rotation: (N, 4) true rotations, from the frame of the points.
        data: the images.
        grid: side of the silhouettes.
    """
    pairs = [(i, j) for each in data.objects for i in each.rows for j in each.rows]
    source, view = torch.tensor(pairs).T
    screen = to_screen(made.points[source], rotation[view])
    masks = data.images[:, 3].float() / 255
    scale = made.scale[source]
    return float(volume_loss(screen, masks, view, size=grid, sigma=SIGMA[1], scale=scale)[1].mean())


def _shape_figures(
    dataset: str,
    known: Estimates,
    train: PointData,
    made: Estimates,
    data: PointData,
    common: Tensor,
) -> dict[str, float]:
    """Returns Chamfer distances of rebuilt surfaces, in percent of the diagonal of a shape.

    Of every object, the first image is judged. Beside them are those of two guesses for all: the surface of
    the mean of the estimates for training, and that true shape for training which is nearest to the others.
    """
    truth = load_true_points(dataset)
    rows = [(each.rows[0], truth[each.name]) for each in data.objects if each.name in truth]
    surfaces = [(_surface(made.points[row], common), true) for row, true in rows]
    found = [(surface, true) for surface, true in surfaces if surface is not None]
    if not found:
        return {}
    distances = [alignment.chamfer(surface, true) for surface, true in found]
    figures = {"chamfer": float(np.mean(distances)), "surfaces": len(found)}
    guesses = {"chamfer_mean_estimate": _surface(known.points.mean(0), common)}
    others = [truth[each.name] for each in train.objects if each.name in truth]
    if others:
        guesses["chamfer_typical_shape"] = others[alignment.medoid(others)]
    for name, guess in guesses.items():
        if guess is not None:
            figures[name] = float(np.mean([alignment.chamfer(guess, true) for _, true in found]))
    return figures


def _surface(points: Tensor, common: Tensor) -> np.ndarray | None:
    """Returns points on the surface through a cloud (P, 3), in the frame of the true shapes; None if none."""
    mesh = try_to_rebuild(points)
    if mesh is None:
        return None
    return quaternion.rotate(common, torch.from_numpy(surface_points(*mesh)).float()).numpy()


def _report(figures: dict[str, float], part: str) -> None:
    text = "evaluated %d images of %d objects (part: %s)"
    logger.info(text, figures["images"], figures["objects"], part)
    if "pose_under_30" in figures:
        share, median = 100 * figures["pose_under_30"], figures["pose_median"]
        logger.info("poses within 30 degrees: %.1f %%, median %.1f degrees", share, median)
        logger.info("overlap in all views of an object: %.3f", figures["iou"])
    for name, words in _GUESSES.items():
        if name in figures:
            logger.info("Chamfer distance %s: %.2f %% of the diagonal", words, figures[name])


_GUESSES = {
    "chamfer": "of the rebuilt surfaces",
    "chamfer_mean_estimate": "of the mean of the estimates for training",
    "chamfer_typical_shape": "of the most typical true shape for training",
}


def _draw(path: Path, made: Estimates, data: PointData, common: Tensor) -> None:
    """Draws the first image of some objects, its points, and the mesh through them, from three sides."""
    spread = torch.linspace(0, len(data.objects) - 1, min(SHOWN, len(data.objects))).long()
    rows = torch.tensor([data.objects[int(i)].rows[0] for i in spread])
    points, size = quaternion.rotate(common, made.points[rows]), PICTURE_SIZE
    image = torch.nn.functional.interpolate(data.select(rows)[:, :3], (size, size))
    meshes = [try_to_rebuild(cloud) for cloud in points]
    pictures = {"images": image, **from_sides(points, meshes, size)}
    save_image(path, labeled_rows(pictures, data.detections.category))
    logger.info("%s", path)
