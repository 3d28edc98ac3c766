"""Stage 1: pose hypotheses of every image from its silhouette alone.

Reads the detections and the remeshed templates, writes camera_hypotheses_silhouette_<mode>.bin.
Section 3.1 of https://arxiv.org/abs/2103.15627.
"""

import logging
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from data.cache import folders, pose_files, template_files
from data.cache.pose_files import Hypotheses
from data.crops import ObjectImages
from data.definitions import ViewPrior
from data.detections import Detections, load_detections
from data.loading import load_once
from geometry.camera import VECTOR_SIZE, from_vector, to_vector
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import report
from pipeline.poses.contour_search import NUM_MODES, ContourSearch
from pipeline.poses.fitting import NUM_FREE, Schedule, fit_poses, search_poses
from pipeline.poses.options import CollectionOptions, SearchOptions, Step1Options
from pipeline.poses.photographs import images_per_batch
from pipeline.poses.report import agreement
from rendering import rasterizer
from rendering.projection.terms import describe, make_term
from utils import distributed
from utils.progress import progress
from utils.row_files import Column, Table, open_folder
from utils.run_directory import configure_logging
from utils.threads import one_torch_thread

# Per device: small enough to lose little when interrupted
IMAGES_PER_BATCH = {"contour": 16, "reference": 4}

logger = logging.getLogger(__name__)


@one_torch_thread()
def estimate_hypotheses(device: torch.device, options: Step1Options) -> None:
    """Fits the poses of all images of a dataset and writes them; continues an interrupted run.

    Args:
        device: where this process computes.
        options: of the stage.
    """
    configure_logging()
    rasterizer.set_backend(options.compute.rasterizer)
    collection, kind = options.collection, options.search.search
    detections = load_detections(collection.dataset)
    report.check(detections)
    templates = template_files.templates_of(detections, collection.mode)
    views = folders.record_of(collection.dataset, detections.category).views
    table = open_table(options, detections, templates, views)
    # Search what an interrupted run has not finished
    shard = distributed.shard(len(detections))
    rows = table.unfinished(shard)
    dataset = ObjectImages(detections, collection.image_resolution, rows=rows)
    search = make_search(options.search, collection.mode, views, templates.to(device))
    logger.info(
        "silhouettes: %s", describe(options.search.silhouette, options.search.point_grid, device)
    )
    start = len(shard) - len(rows)
    size = images_per_batch(options.compute.batch_size, IMAGES_PER_BATCH[kind], device)
    with (
        progress(total=len(shard), description="images", initial=start) as bar,
        closing(load_once(dataset, size, options.compute.num_workers)) as loaded,
    ):
        for images in loaded:
            found = search(images.image[:, 3].to(device))
            table.write([rows[i] for i in images.index], _to_columns(found))
            bar.update(len(images.index))
    # Write what all processes have found
    distributed.barrier()
    if distributed.is_main():
        found = _from_columns(table.read(range(len(detections))))
        pose_files.save_hypotheses(
            collection.dataset, collection.mode, found, pose_files.origin_of(detections, templates)
        )
        shutil.rmtree(step1_folder(collection))
        report_hypotheses(options, detections, found)


def make_search(
    options: SearchOptions, mode: str, views: ViewPrior, templates: Tensor
) -> Callable[[Tensor], Hypotheses]:
    """Returns the search that the options ask for: from masks (N, h, w) to their hypotheses."""
    faces = SphereMesh().faces.to(templates.device)
    term = make_term(options.silhouette, templates, faces, options.point_grid)
    if options.search == "reference":
        schedule = make_schedule(options, mode)
        return lambda masks: fit_poses(masks, templates, faces, schedule, term)
    search = ContourSearch(templates, faces, views)
    steps, spread = options.refine_steps, options.adapt_shape
    return lambda masks: search_poses(masks, search, templates, faces, steps, spread, term)


def make_schedule(options: SearchOptions, mode: str) -> Schedule:
    """Returns the schedule of the reference search."""
    prune = mode == "multitpl" if options.prune is None else options.prune
    return Schedule(options.camera_optim_steps, options.camera_lr_decay_after, prune)


def report_hypotheses(options: Step1Options, detections: Detections, found: Hypotheses) -> None:
    """Logs how well the hypotheses fit, and the rotation error of the best of each image."""
    # The best overlap of each image is its pose, so far
    rotation = found.pose.rotation
    best = found.iou.argmax(dim=1)
    confident = agreement(found.iou, rotation) < options.v_agr_threshold
    figures = {
        "mean_iou": found.iou.mean().item(),
        "mean_best_iou": found.iou.amax(dim=1).mean().item(),
    }
    chosen, mode = rotation[torch.arange(len(best)), best], options.collection.mode
    report.report(detections, "step1", mode, figures, chosen, confident.nonzero()[:, 0])
    logger.info("step 1: %s", report.verdict(figures["mean_best_iou"]))


def step1_folder(collection: CollectionOptions) -> Path:
    """Returns the folder of what an interrupted run has finished."""
    return folders.cache_folder(collection.dataset) / f".step1_{collection.mode}"


def open_table(
    options: Step1Options, detections: Detections, templates: Tensor, views: ViewPrior
) -> Table:
    """Opens the hypotheses that an interrupted run of the same command has finished, or none."""
    search, mode = options.search, options.collection.mode
    schedule = make_schedule(search, mode)
    # Everything that the hypotheses depend on
    contour = search.search == "contour"
    steps = [search.refine_steps, search.adapt_shape, *views] if contour else asdict(schedule)
    settings = {
        "detections": detections.fingerprint,
        "templates": template_files.templates_fingerprint(templates),
        "resolution": options.collection.image_resolution,
        "search": search.search,
        "steps": steps,
    }
    if search.silhouette != "raster":
        settings["silhouette"] = [search.silhouette, search.point_grid]
    # As many hypotheses for every image
    count = NUM_MODES + NUM_FREE if contour else schedule.num_hypotheses(len(templates))
    columns = {
        "pose": Column((count, VECTOR_SIZE)),
        "weights": Column((count, len(templates))),
        "iou": Column((count,)),
    }
    folder = open_folder(step1_folder(options.collection), settings, resume=options.resume)
    return Table(folder, len(detections), columns)


def _to_columns(hypotheses: Hypotheses) -> dict[str, Tensor]:
    pose = to_vector(hypotheses.pose)
    return {"pose": pose, "weights": hypotheses.template_weights, "iou": hypotheses.iou}


def _from_columns(columns: dict[str, Tensor]) -> Hypotheses:
    return Hypotheses(from_vector(columns["pose"]), columns["weights"], columns["iou"])
