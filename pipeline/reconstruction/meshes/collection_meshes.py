"""Textured meshes of the photographs that a network was trained on: run_reconstruction.py --export_meshes.

Reads checkpoints_recon/<run>/ and what it was trained on; writes a folder for every photograph, and a
page of them all. An interrupted export continues where it stopped.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from data.crops import detection_photograph, square_box
from data.definitions import expand_dataset
from data.run_lengths import decode_mask
from pipeline.reconstruction.cameras.sources import pose_paths
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.meshes import mesh_folder
from pipeline.reconstruction.meshes.mesh_folder import Estimate, cut_subject
from pipeline.reconstruction.model import Scene, make_scene, predict
from pipeline.reconstruction.model_file import Model, load_trained
from rendering import gallery, rasterizer
from utils import distributed
from utils.cli import UserError
from utils.digests import file_digest
from utils.progress import progress
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)


class Export(NamedTuple):
    """What is exported where.

    Attributes:
        folder: of all photographs.
        rows: of the photographs among the data.
        names: their folders below it.
        origins: what the files of each are a function of.
        resolution: of the textures, in texels.
    """

    folder: Path
    rows: list[int]
    names: list[str]
    origins: list[dict[str, Any]]
    resolution: int


@torch.no_grad()
def export_meshes(device: torch.device, config: ReconstructionConfig) -> None:
    """Writes the meshes of all photographs with a pose, or of some of them.

    Raises:
        UserError: if there is no model, its network has no texture head, or the folder holds meshes of
            another one.
    """
    rasterizer.set_backend(config.rasterizer)
    configure_logging()
    # Everything that may fail comes before the first file
    model, data, config = load_trained(config, device)
    require_texture(model)
    plan = _plan(model, data, config)
    done = [
        not config.export.overwrite and mesh_folder.is_complete(plan.folder / name, origin)
        for name, origin in zip(plan.names, plan.origins, strict=True)
    ]
    distributed.barrier()
    # Each process writes those of its shard that are missing
    mine = [i for i in distributed.shard(len(plan.rows)) if not done[i]]
    scene = make_scene(model.vocabulary, model.options, device)
    for i in progress(mine, description="meshes"):
        estimate = _estimate(model, data, scene, plan.rows[i], device)
        _write(plan, i, data, estimate, scene)
    distributed.barrier()
    if distributed.is_main():
        mesh_folder.save_overview(plan.folder, config.name, plan.names, model.options.rings)
        gallery.announce(plan.folder, len(plan.rows))


def require_texture(model: Model) -> None:
    """Refuses a model that predicts no colors."""
    if not model.options.predicts_texture:
        raise UserError(
            f"{model.path} was trained with --prediction_type {model.options.prediction_type}; "
            "meshes of photographs need --prediction_type texture or both."
        )


def _plan(model: Model, data: ReconstructionData, config: ReconstructionConfig) -> Export:
    folder = Path(config.export.out_path or f"output/{config.name}_meshes")
    rows = choose_rows(len(data), config.export.how_many, config.seed)
    names = folder_names(data)
    resolution = config.export.pseudogt_resolution
    # The poses are part of what is exported
    poses = pose_paths(config.model.poses_from, data.detections, config.data.mode)
    common = {
        "run": config.name,
        "step": model.step,
        "model_sha256": file_digest(model.path),
        "poses_sha256": ",".join(map(file_digest, poses)),
        "texture_resolution": resolution,
    }
    origins = [common | {"photograph": data.detection(row).image_path} for row in rows]
    return Export(folder, rows, [names[row] for row in rows], origins, resolution)


def choose_rows(count: int, how_many: int | None, seed: int) -> list[int]:
    """Returns ascending rows of that many of all photographs; fewer are among more of the same seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return sorted(order[: how_many or count].tolist())


def folder_names(data: ReconstructionData) -> list[str]:
    """Returns the folder of every photograph, like its path below images/; of several datasets, of each."""
    several, names = len(expand_dataset(data.dataset)) > 1, []
    for row in range(len(data)):
        dataset = data.detections[data.source(row)[0]].dataset
        stem = stem_of(data.detection(row).image_path)
        names.append(f"{dataset}/{stem}" if several else stem)
    return distinct(names)


def stem_of(path: str) -> str:
    """Returns the path of an image below the folder images/, where there is one, without suffix."""
    parts = Path(path).with_suffix("").parts
    start = parts.index("images") + 1 if "images" in parts[:-1] else 0
    return "/".join(parts[start:])


def distinct(names: Sequence[str]) -> list[str]:
    """Numbers the names that come more than once."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found


def _estimate(
    model: Model, data: ReconstructionData, scene: Scene, row: int, device: torch.device
) -> Estimate:
    """Applies the network to a photograph, with its pose; alone, or batches would round differently."""
    labels = data.labels.select(torch.tensor([row])).to(device)
    prediction = predict(model.network, scene, data[row].image[None].to(device), labels)
    assert prediction.texture is not None
    return Estimate(prediction.vertices[0], prediction.texture[0], labels.pose)


def _write(
    plan: Export, number: int, data: ReconstructionData, estimate: Estimate, scene: Scene
) -> None:
    """Writes the folder of a photograph."""
    detection = data.detection(plan.rows[number])
    photograph, mask = detection_photograph(detection), decode_mask(detection.mask)
    subject = cut_subject(photograph, mask, square_box(detection.bbox), plan.resolution)
    folder, origin = plan.folder / plan.names[number], plan.origins[number]
    mesh_folder.write(folder, subject, estimate, scene.sphere, plan.resolution, origin)
