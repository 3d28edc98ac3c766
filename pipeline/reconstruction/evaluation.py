"""Evaluation of the mesh estimator: a list of measures, and one loop over the photographs."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from geometry.camera import concatenate, project, select
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Labels, ReconstructionData
from pipeline.reconstruction.meshes.refinement import Refined, refine
from pipeline.reconstruction.metrics.cameras import FoundCameras
from pipeline.reconstruction.metrics.interface import Measured, Metric, Setting, Unavailable
from pipeline.reconstruction.metrics.keypoints import KeypointTransfer
from pipeline.reconstruction.metrics.novel_view import NovelViews
from pipeline.reconstruction.metrics.own_view import Colors, Silhouettes
from pipeline.reconstruction.metrics.student_poses import StudentPoses
from pipeline.reconstruction.metrics.true_shapes import ShapeDistance
from pipeline.reconstruction.model import Prediction, Scene, make_scene, predict, render
from pipeline.reconstruction.model_file import Model, load_trained
from pipeline.reconstruction.splits import trained_on
from rendering import rasterizer
from utils import distributed
from utils.cli import UserError
from utils.pictures import save_image
from utils.progress import progress
from utils.run_directory import RunDirectory, configure_logging

logger = logging.getLogger(__name__)

METRICS: dict[str, type[Metric]] = {  # by their names in --metrics, in the order of the report
    "iou": Silhouettes,
    "color": Colors,
    "shape": ShapeDistance,
    "keypoints": KeypointTransfer,
    "novel_view": NovelViews,
    "pose": StudentPoses,
    "camera": FoundCameras,
}


@torch.no_grad()
def evaluate(device: torch.device, config: ReconstructionConfig) -> dict[str, float]:
    """Prints and records the figures of all photographs of a part that have a pose.

    Args:
        device: where to compute.
        config: `config.evaluation` chooses the measures, `config.data.part` the photographs.

    Returns:
        The figures by name; each measure lists its own.

    Raises:
        UserError: if the model or an artifact is missing, or a measure that was asked for has no
            meaning for them.
    """
    rasterizer.set_backend(config.rasterizer)
    model, data, config = load_trained(config, device, config.data.cache_bytes)
    configure_logging(config.folder / "log.txt")
    setting = Setting(
        config, data, make_scene(model.vocabulary, config.model, device), model.student
    )
    metrics = choose_metrics(setting)
    for batch in _batches(model.network, setting, device):
        for metric in metrics:
            metric.add(batch)
    figures = [metric.figures() for metric in metrics]
    _report(model, setting, metrics, figures)
    if config.evaluation.visualize:
        _visualize(config.name, metrics)
    return {name: value for some in figures for name, value in some.items()}


def choose_metrics(setting: Setting) -> list[Metric]:
    """Returns the measures that were asked for, or else all that have a meaning and are quick.

    Raises:
        Unavailable: if one that was asked for has none.
    """
    asked = setting.config.evaluation.metrics
    found = []
    for name, kind in METRICS.items():
        try:
            if name in asked if asked is not None else not kind.on_request:
                found.append(kind(setting))
        except Unavailable:
            if asked is not None:
                raise
    return found


def _batches(
    network: ReconstructionNetwork, setting: Setting, device: torch.device
) -> Iterator[Measured]:
    """Yields what the network makes of this process's share of the photographs."""
    config, data, scene = setting.config, setting.data, setting.scene
    mine = distributed.shard(len(data))
    with progress(total=len(mine), description="evaluating") as bar:
        for start in range(mine.start, mine.stop, config.batch_size):
            index = torch.arange(start, min(start + config.batch_size, mine.stop))
            # Estimate and render
            image = torch.stack([data[int(i)].image for i in index]).to(device)
            labels = data.labels.select(index).to(device)
            prediction = predict(network, scene, image, labels)
            if config.photograph.refine_steps:
                prediction, labels = _refined(scene, prediction, labels, image, config)
            maps, alpha = render(scene, prediction, labels, config.model.image_resolution)
            colors = maps[:, -3:] if maps is not None and config.model.predicts_texture else None
            yield Measured(index, image, labels, prediction, colors, alpha)
            bar.update(len(index))


def _refined(
    scene: Scene,
    prediction: Prediction,
    labels: Labels,
    image: Tensor,
    config: ReconstructionConfig,
) -> tuple[Prediction, Labels]:
    """Improves meshes and poses for their own photographs, one after another."""
    if prediction.texture is None:
        raise UserError("--refine_steps needs a model with --prediction_type texture or both.")
    steps, meshes = config.photograph.refine_steps, []
    for row in range(len(image)):
        one = slice(row, row + 1)
        start = Refined(prediction.vertices[one], prediction.texture[one], select(labels.pose, one))
        meshes.append(refine(scene.sphere, start, image[one], steps))
    vertices, texture = (torch.cat(x) for x in zip(*(mesh[:2] for mesh in meshes), strict=True))
    pose = concatenate([mesh.pose for mesh in meshes])
    screen = project(vertices, pose)
    prediction = prediction._replace(vertices=vertices, texture=texture, screen=screen)
    return prediction, labels._replace(pose=pose)


def _report(
    model: Model, setting: Setting, metrics: Sequence[Metric], figures: Sequence[dict[str, float]]
) -> None:
    data, part = setting.data, setting.config.data.part
    step = "?" if model.step is None else model.step
    logger.info("evaluated %d images after %s steps (part: %s)", len(data), step, part)
    # Figures of photographs that were trained on say little about others
    seen = _count_seen(model, data)
    if seen is not None:
        logger.info("the model was trained on %d of them", seen)
    for metric, some in zip(metrics, figures, strict=True):
        for line in metric.lines(some):
            logger.info("%s", line)
    # One record, with what the figures refer to
    record = {name: value for some in figures for name, value in some.items()}
    about = {"images": len(data), "trained_on": seen, "split": str(part)}
    if any(isinstance(metric, KeypointTransfer) for metric in metrics):
        about["kp_mode"] = setting.config.evaluation.transfer.kp_mode
    run = RunDirectory(setting.config.folder)
    run.record(**({} if model.step is None else {"step": model.step}), **about, **record)


def _count_seen(model: Model, data: ReconstructionData) -> int | None:
    """Returns how many of the photographs the model was trained on; None if unknown."""
    seen = 0
    sources = [data.source(i) for i in range(len(data))]
    for number, detections in enumerate(data.detections):
        rows = trained_on(detections, model.args)
        if rows is None:
            return None
        seen += sum(int(rows[row]) for k, row in sources if k == number)
    return seen


def _visualize(name: str, metrics: Sequence[Metric]) -> None:
    """Writes the pictures of the measures that have one to output/."""
    for metric in metrics:
        # Processes collect together what one of them writes
        for kind, pixels in metric.pictures().items():
            path = Path("output") / f"{name}_{kind}.png"
            if distributed.is_main():
                save_image(path, pixels)
            logger.info("%s", path)
