"""Stage 1: pose hypotheses of every image from its silhouette alone.

Reads the detections and the remeshed templates, writes camera_hypotheses_silhouette_<mode>.bin.
Section 3.1 of https://arxiv.org/abs/2103.15627.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.cache import folders, pose_files, template_files
from data.cache.pose_files import Hypotheses
from data.crops import ObjectImages
from data.definitions import VIEW_PRIORS
from data.detections import Detections, load_detections
from geometry.camera import Pose
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import report
from pipeline.poses.contour_search import ContourSearch
from pipeline.poses.fitting import Schedule, fit_poses, search_poses
from pipeline.poses.report import agreement
from rendering import rasterizer
from utils import distributed
from utils.cli import UserError
from utils.partial_results import PartialResults
from utils.progress import progress
from utils.run_directory import configure_logging
from utils.threads import one_torch_thread

# Per device: small enough to lose little when interrupted
IMAGES_PER_BATCH = {"contour": 16, "reference": 4}


@dataclass(frozen=True)
class SilhouetteConfig:
    """Options of pose_optimization_step1.py, described there."""

    dataset: str
    mode: str
    mesh_path: str
    batch_size: int
    image_resolution: int
    symmetric: bool
    num_workers: int
    resume: bool
    search: str
    refine_steps: int
    adapt_shape: float
    prune: bool | None
    camera_optim_steps: int
    camera_lr_decay_after: int
    v_agr_threshold: float
    gpu_ids: tuple[int | str, ...] | None
    seed: int
    rasterizer: str


@one_torch_thread()
def estimate_hypotheses(device: torch.device, config: SilhouetteConfig) -> None:
    """Fits the poses of all images of a dataset and writes them; continues an interrupted run.

    Args:
        device: where this process computes.
        config: options of the stage.
    """
    configure_logging()
    prepare(config.rasterizer, config.mesh_path)
    detections = load_detections(config.dataset)
    templates = template_files.load_templates(detections.category, config.mode)
    partial = _open_partial_results(config, detections, templates)
    rows = [row for row in distributed.shard(len(detections)) if row not in partial.rows]
    dataset = ObjectImages(detections, config.image_resolution, rows=rows, cache=False)
    search = make_search(config, detections.category, templates.to(device))
    with progress(
        total=len(partial.rows) + len(rows), description="images", initial=len(partial.rows)
    ) as bar:
        size = images_per_batch(config.batch_size, IMAGES_PER_BATCH[config.search])
        for images in load_batches(dataset, size, config.num_workers):
            found = search(images.image[:, 3].to(device))
            partial.add([rows[i] for i in images.index], _to_tensors(found))
            bar.update(len(images.index))
    found = _from_tensors(partial.gather())
    if distributed.is_main():
        origin = pose_files.origin_of(detections, templates)
        pose_files.save_hypotheses(config.dataset, config.mode, found, origin)
        partial.remove()
        report_hypotheses(config, detections, found)


def prepare(backend: str, mesh_path: str) -> None:
    """Sets the process up for stage 1 or 2, and refuses spheres other than that of the templates."""
    if mesh_path != "autodetect" and "31rings" not in mesh_path:
        raise UserError(
            f"--mesh_path {mesh_path}: remeshed templates are spheres of 31 rings. Use autodetect."
        )
    rasterizer.set_backend(backend)


def make_search(
    config: SilhouetteConfig, category: str, templates: Tensor
) -> Callable[[Tensor], Hypotheses]:
    """Returns the search that the options ask for: from masks (N, h, w) to their hypotheses."""
    faces = SphereMesh().faces.to(templates.device)
    if config.search == "reference":
        schedule = make_schedule(config)
        return lambda masks: fit_poses(masks, templates, faces, schedule)
    search = ContourSearch(templates, faces, VIEW_PRIORS[category])
    steps, spread = config.refine_steps, config.adapt_shape
    return lambda masks: search_poses(masks, search, templates, faces, steps, spread)


def make_schedule(config: SilhouetteConfig) -> Schedule:
    """Returns the schedule of the reference search."""
    prune = config.mode == "multitpl" if config.prune is None else config.prune
    return Schedule(config.camera_optim_steps, config.camera_lr_decay_after, prune)


def report_hypotheses(
    config: SilhouetteConfig, detections: Detections, hypotheses: Hypotheses
) -> None:
    """Logs how well the hypotheses fit, and the rotation error of the best of each image."""
    rotation = hypotheses.pose.rotation
    best = hypotheses.iou.argmax(dim=1)
    confident = agreement(hypotheses.iou, rotation) < config.v_agr_threshold
    figures = {
        "mean_iou": hypotheses.iou.mean().item(),
        "mean_best_iou": hypotheses.iou.amax(dim=1).mean().item(),
    }
    chosen = rotation[torch.arange(len(best)), best]
    report.report(detections, "step1", config.mode, figures, chosen, confident.nonzero()[:, 0])


def _open_partial_results(
    config: SilhouetteConfig, detections: Detections, templates: Tensor
) -> PartialResults:
    """Finished rows of this process from an interrupted run of the same command."""
    settings = {
        "detections": detections.fingerprint,
        "templates": template_files.templates_fingerprint(templates),
        "resolution": config.image_resolution,
        "search": config.search,
        "schedule": [config.refine_steps, config.adapt_shape]
        if config.search == "contour"
        else asdict(make_schedule(config)),
    }
    folder = folders.cache_folder(config.dataset) / f".step1_{config.mode}"
    if distributed.is_main() and not config.resume:
        shutil.rmtree(folder, ignore_errors=True)
    return PartialResults(folder, settings, distributed.shard(len(detections)))


def images_per_batch(batch_size: int, automatic: int) -> int:
    """Returns this process's share of the batch size over all; -1 chooses `automatic`."""
    return max(1, batch_size // distributed.world_size()) if batch_size > 0 else automatic


def load_batches(dataset: ObjectImages, size: int, num_workers: int) -> DataLoader:
    """Loads images in order, `size` at a time."""
    workers = min(num_workers, len(dataset), os.cpu_count() or 1)
    return DataLoader(dataset, batch_size=size, num_workers=workers)


def _to_tensors(hypotheses: Hypotheses) -> dict[str, Tensor]:
    flat = {"template_weights": hypotheses.template_weights, "iou": hypotheses.iou}
    return flat | hypotheses.pose._asdict()


def _from_tensors(tensors: dict[str, Tensor]) -> Hypotheses:
    pose = Pose(*(tensors[name] for name in Pose._fields))
    return Hypotheses(pose, tensors["template_weights"], tensors["iou"])
