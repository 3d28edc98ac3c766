"""Textured meshes of photographs that belong to no collection: run_reconstruction.py --photo.

Reads the model file of a run and nothing else; writes a folder for every photograph, and a page.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from data.crops import network_input
from data.image_files import UnreadablePicture
from data.preparation import detectors, saliency
from data.preparation.masking import Detector
from pipeline.reconstruction.config import PhotographOptions, ReconstructionConfig
from pipeline.reconstruction.meshes import mesh_folder, photograph_files
from pipeline.reconstruction.meshes.collection_meshes import require_texture
from pipeline.reconstruction.meshes.estimator import Estimator, estimate, make_estimator
from pipeline.reconstruction.meshes.mask_search import ESTIMATED_MASK, MaskFinder
from pipeline.reconstruction.meshes.mesh_folder import Estimate
from pipeline.reconstruction.meshes.photograph_files import Found
from pipeline.reconstruction.model_file import Model, load_model
from rendering import gallery, rasterizer
from utils import distributed, model_file
from utils.cli import UserError
from utils.digests import file_digest
from utils.pictures import save_image
from utils.progress import progress
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)

# Share of the overlap of silhouettes and masks in training, below which a photograph is unlike the
# category. Of the unseen ones of their category, a network of horses has 5 of 32 below, one of cars 0 of 77;
# of cars, the first has 10 of 19 below; of horses, the second all
LEAST_SHARE = 0.75
EARLIER_OVERLAP = 0.75  # of models that do not know their own


class Work(NamedTuple):
    """What is made where, and with what.

    Attributes:
        folder: of all photographs.
        photographs: their files.
        names: their folders below it.
        masks: mask files of those that have one; None where --mask was not given.
        origins: what the files of each are a function of.
    """

    folder: Path
    photographs: list[Path]
    names: list[str]
    masks: dict[Path, Path] | None
    origins: list[dict[str, Any]]


@torch.no_grad()
def reconstruct(device: torch.device, config: ReconstructionConfig) -> None:
    """Writes the meshes of the photographs that can be used, and a line about each of the others.

    Raises:
        UserError: if the model or all photographs are missing or cannot be used, or the folder holds
            meshes of other options.
    """
    rasterizer.set_backend(config.rasterizer)
    configure_logging()
    # Everything that concerns all photographs comes before the first one
    estimator = _open(config, device)
    given = make_detector(config.photograph, estimator.category_name, device)
    detector = given or estimator.mask_finder
    work = _plan(estimator.model, detector, config)
    done = [
        not config.export.overwrite and mesh_folder.is_complete(work.folder / name, origin)
        for name, origin in zip(work.names, work.origins, strict=True)
    ]
    distributed.barrier()
    mine = [i for i in distributed.shard(len(work.photographs)) if not done[i]]
    failed: dict[int, str] = {}
    for i in progress(mine, description="photographs"):
        try:
            path, resolution = work.photographs[i], config.export.pseudogt_resolution
            found = photograph_files.read_object(path, work.masks, detector, resolution)
        except UnreadablePicture as error:
            failed[i] = error.reason
            continue
        _reconstruct(estimator, found, work, i, config)
    failed = {i: reason for part in distributed.gather(failed) for i, reason in part.items()}
    _report(work, failed, estimator.model.options.rings)


def _open(config: ReconstructionConfig, device: torch.device) -> Estimator:
    """Reads the model file and finds the category in it."""
    remedy = f"Train it with: python run_reconstruction.py --name {config.name} --dataset <dataset>"
    path = model_file.resolve(config.folder, config.which_epoch, remedy)
    model = load_model(path, device)
    require_texture(model)
    options = config.photograph
    return make_estimator(model, options.category, options.camera, device)


def make_detector(
    options: PhotographOptions, category: str, device: torch.device
) -> Detector | None:
    """Returns what finds the objects of photographs without masks, if anything does."""
    if options.mask_rcnn is not None:
        weights = Path(options.mask_rcnn)
        return detectors.mask_rcnn_detector(weights, device, category)
    if options.mask_model is not None:
        return saliency.saliency_detector(Path(options.mask_model))
    return None


def _plan(
    model: Model, detector: Detector | MaskFinder | None, config: ReconstructionConfig
) -> Work:
    options = config.photograph
    assert options.photo is not None
    photographs = photograph_files.find_photographs(Path(options.photo))
    masks = photograph_files.match_masks(Path(options.mask) if options.mask else None, photographs)
    common = {
        "run": config.name,
        "step": model.step,
        "model_sha256": file_digest(model.path),
        "category": options.category,
        "camera": options.camera,
        "refine_steps": options.refine_steps,
        "texture_resolution": config.export.pseudogt_resolution,
    }
    source = detector.origin if isinstance(detector, Detector) else "transparency or mask head"
    origins = [
        common
        | {
            "photograph": path.name,
            "photograph_sha256": file_digest(path),
            "mask": f"sha256 {file_digest(masks[path])}" if path in masks else source,
        }
        for path in photographs
    ]
    return Work(
        Path(config.export.out_path or f"output/{config.name}_photographs"),
        photographs,
        photograph_files.folder_names(Path(options.photo), photographs),
        masks if options.mask else None,
        origins,
    )


def _reconstruct(
    estimator: Estimator, found: Found, work: Work, number: int, config: ReconstructionConfig
) -> None:
    """Estimates mesh and camera of a photograph, and writes its folder."""
    path, subject = work.photographs[number], found.subject
    size = estimator.model.options.image_resolution
    image = network_input(subject.pixels, size)
    mesh, camera = estimate(estimator, image.to(estimator.device), config.photograph.refine_steps)
    # What a person should know of the result, in a line each
    for oddity in found.oddities:
        logger.warning("%s %s", path, oddity)
    summary = "%s: overlap of the outlines %.2f, color error %.3f"
    logger.info(summary, path, camera.iou, camera.color_error)
    least = least_overlap(estimator.model.usual_overlap)
    if camera.iou < least:
        text = "%s is unlike the photographs of a %s that the network knows: overlap %.2f, expected %.2f"
        logger.warning(text, path, estimator.category_name, camera.iou, least)
    sphere = estimator.scene.sphere
    result = Estimate(mesh.vertices[0], mesh.texture[0], mesh.pose)
    resolution, origin = config.export.pseudogt_resolution, work.origins[number]
    folder = work.folder / work.names[number]
    if found.estimated_mask is not None:
        pixels = np.uint8(255) * found.estimated_mask
        save_image(folder / ESTIMATED_MASK, np.dstack(3 * [pixels]))
    mesh_folder.write(folder, subject, result, sphere, resolution, origin)


def least_overlap(usual: float | None) -> float:
    """Returns the least overlap with the mask of a photograph that is like those of the training."""
    return LEAST_SHARE * (EARLIER_OVERLAP if usual is None else usual)


def _report(work: Work, failed: Mapping[int, str], rings: int) -> None:
    """Writes the page of what was made, meshes of so many rings, and says what was not."""
    reasons = [f"{work.photographs[i]} {failed[i]}" for i in sorted(failed)]
    made = [name for i, name in enumerate(work.names) if i not in failed]
    if not made:
        several = len(reasons) > 1
        first = f"None of the {len(reasons)} photographs can be used: " if several else ""
        raise UserError(f"{first}{reasons[0]}.")
    if not distributed.is_main():
        return
    for reason in reasons:
        logger.warning("%s", reason)
    mesh_folder.save_overview(work.folder, work.folder.name, made, rings)
    gallery.announce(work.folder, len(made))
