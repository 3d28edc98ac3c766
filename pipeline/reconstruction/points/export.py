"""Writes the points of images and the surfaces through them: of a collection, or of photographs of one's own.

A folder holds points.ply, the points that can be seen, mesh.obj, the surface through them, panel.png, and
origin.json, which says what they were made from and is written last. Points lie in the frame that the
training has found, in which objects stand about upright and look anywhere.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.collection import image_stem
from data.image_files import UnreadablePicture
from geometry.mesh_files import save_meshes
from geometry.points.files import save_points
from pipeline.reconstruction.meshes import photograph_files
from pipeline.reconstruction.meshes.collection_meshes import choose_rows
from pipeline.reconstruction.meshes.own_photographs import make_detector
from pipeline.reconstruction.points.config import PointConfig
from pipeline.reconstruction.points.dataset import PointData, framed, to_input
from pipeline.reconstruction.points.model_file import PointModel, load_model
from pipeline.reconstruction.points.pictures import from_sides
from pipeline.reconstruction.points.surface import try_to_rebuild, visible_points
from utils import distributed
from utils.cli import UserError
from utils.digests import file_digest
from utils.files import read_json, write_json
from utils.pictures import labeled_rows, save_image
from utils.progress import progress
from utils.run_directory import configure_logging

PANEL_SIZE = 128
_ORIGIN = "origin.json"

logger = logging.getLogger(__name__)


@torch.no_grad()
def export_views(device: torch.device, config: PointConfig) -> None:
    """Writes points and meshes of the images of a part.

    Raises:
        UserError: if model or renderings are missing, or the folder holds those of other options.
    """
    configure_logging()
    model = load_model(config, device)
    data = PointData(config.dataset, config.split, model.options.image_resolution)
    rows = choose_rows(len(data.images), config.how_many, config.seed)
    folder = Path(config.out_path or f"output/{config.name}_meshes")
    paths = [data.detections[int(data.source[row])].image_path for row in rows]
    names = [image_stem(path, config.dataset) for path in paths]
    origins = [_origin(model, config, Path(path)) for path in paths]
    done = _done(folder, names, origins, config.overwrite)
    for i in progress(_mine(done), description="points"):
        _write(folder / names[i], model, data.images[rows[i]], device, origins[i])
    _finish(folder, len(names))


@torch.no_grad()
def reconstruct_photographs(device: torch.device, config: PointConfig) -> None:
    """Writes points and meshes of photographs that can be used, and a line about each of the others.

    Square cut-outs are taken as they are, as renderings; of other photographs the object is brought to
    the usual size.

    Raises:
        UserError: if the model is missing, or no photograph can be used.
    """
    configure_logging()
    model, options = load_model(config, device), config.photograph
    assert options.photo is not None
    photographs = photograph_files.find_photographs(Path(options.photo))
    masks = photograph_files.match_masks(Path(options.mask) if options.mask else None, photographs)
    detector = make_detector(options, model.category, device)
    names = photograph_files.folder_names(Path(options.photo), photographs)
    folder = Path(config.out_path or f"output/{config.name}_photographs")
    origins = [_origin(model, config, path) for path in photographs]
    done = _done(folder, names, origins, config.overwrite)
    size, cut_out = model.options.image_resolution, options.mask is None and detector is None
    failed = []
    for i in progress(_mine(done), description="photographs"):
        try:
            found = photograph_files.read_object(
                photographs[i], masks if options.mask else None, detector, size
            )
        except UnreadablePicture as error:
            failed.append(f"{photographs[i]} {error.reason}")
            continue
        subject = found.subject
        whole = cut_out and subject.width == subject.height
        pixels = framed(subject.pixels, subject.box, size, subject.width if whole else None)
        _write(folder / names[i], model, pixels, device, origins[i])
    failed = [reason for part in distributed.gather(failed) for reason in part]
    if len(failed) == len(photographs):
        raise UserError(f"{failed[0]}.")
    for reason in failed:
        logger.warning("%s", reason)
    _finish(folder, len(photographs) - len(failed))


def _origin(model: PointModel, config: PointConfig, image: Path) -> dict[str, Any]:
    return {
        "run": config.name,
        "step": model.step,
        "model_sha256": file_digest(model.path),
        "image_sha256": file_digest(image),
    }


def _done(
    folder: Path, names: Sequence[str], origins: Sequence[Mapping[str, Any]], overwrite: bool
) -> list[bool]:
    """Returns which folders are complete; UserError if one is of another origin."""
    done = []
    for name, origin in zip(names, origins, strict=True):
        path = folder / name / _ORIGIN
        known = None if overwrite or not path.exists() else read_json(path, "Delete it.")
        if known not in (None, origin):
            raise UserError(
                f"{path.parent}/ holds points of another model or image. Choose another --out_path, or "
                "add --overwrite to replace them."
            )
        done.append(known is not None)
    distributed.barrier()
    return done


def _mine(done: Sequence[bool]) -> list[int]:
    return [i for i in distributed.shard(len(done)) if not done[i]]


def _write(
    folder: Path,
    model: PointModel,
    pixels: Tensor,
    device: torch.device,
    origin: Mapping[str, Any],
) -> None:
    """Writes the folder of an image (4, h, h) uint8."""
    image = to_input(pixels)[None]
    cloud = model.network.decode(model.network.encode(image.to(device)))
    points = cloud.points[0].cpu()
    save_points(folder / "points.ply", visible_points(points).numpy())
    mesh = try_to_rebuild(points)
    if mesh is not None:
        vertices, faces = (torch.from_numpy(x) for x in mesh)
        save_meshes(folder / "mesh.obj", vertices[None], faces)
    size = (PANEL_SIZE, PANEL_SIZE)
    seen = {"image": torch.nn.functional.interpolate(image[:, :3], size)}
    seen |= from_sides(points[None], [mesh], PANEL_SIZE)
    save_image(folder / "panel.png", labeled_rows(seen, model.category))
    write_json(folder / _ORIGIN, origin)


def _finish(folder: Path, count: int) -> None:
    distributed.barrier()
    logger.info("points and meshes of %d images: %s/", count, folder)
