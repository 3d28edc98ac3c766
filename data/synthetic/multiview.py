"""Renderings of synthetic objects from several sides, in the layout of ShapeNet's.

Every object is rendered without a background, from cameras at a common distance all around it.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from data.collection import collection_folder
from data.multiview import cameras
from data.multiview.layout import LISTS
from data.synthetic import scenes
from data.synthetic.collection import SyntheticConfig, new_folder, open_studio
from data.synthetic.individuals import Deformation, Template, random_deformation
from data.synthetic.photographs import Studio, blocks, paint, render_surface
from geometry import quaternion
from geometry.mesh_files import save_meshes
from utils.files import write_bytes, write_json
from utils.progress import progress
from utils.seeding import numpy_generator

ELEVATION = (-20.0, 40.0)  # degrees, of cameras
PROPORTIONS = 0.15  # standard deviation of the logarithms of length, width and height
HELD_OUT = 3  # one of so many objects is not trained on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MultiviewConfig:
    """Options of renderings from several sides; the parser holds their defaults."""

    dataset: str
    category: str
    num_shapes: int
    num_views: int
    image_size: int
    seed: int


def make_renderings(config: MultiviewConfig, edge_length: float = 0.05) -> Path:
    """Makes datasets/<name>/; the folder appears when it is complete.

    It has <category>/<model>/render_<k>.png with transparency, camera_<k>.json and model.obj, the
    latter two for evaluation only, and the lists <category>.train and <category>.valid.

    Args:
        config: what to make.
        edge_length: longest edge of the painted meshes relative to half the object's length.

    Raises:
        UserError: if the folder exists, or another process makes it.
    """
    folder = collection_folder(config.dataset)
    with new_folder(folder) as unfinished:
        _make(config, edge_length, unfinished)
    count = f"{config.num_shapes} objects of category {config.category}"
    logger.info("%s/: %s, %d views of each", folder, count, config.num_views)
    return folder


def _make(config: MultiviewConfig, edge_length: float, folder: Path) -> None:
    studio = open_studio(
        SyntheticConfig(config.dataset, config.category, 0, config.image_size, config.seed),
        edge_length,
    )
    names = [f"{index:05d}" for index in range(config.num_shapes)]
    for index, name in enumerate(progress(names, description="objects")):
        _make_object(studio, index, config.num_views, folder / config.category / name)
    # The last third is held out: templates take turns, so that it has all of them
    first = config.num_shapes - config.num_shapes // HELD_OUT
    for suffix, part in zip(LISTS, (names[:first], names[first:]), strict=True):
        text = "".join(f"{name}\n" for name in part)
        write_bytes(folder / f"{config.category}{suffix}", text.encode())


def _make_object(studio: Studio, index: int, num_views: int, folder: Path) -> None:
    """Writes the renderings, cameras and mesh of object number `index`, which does not depend on others."""
    rng = numpy_generator(studio.seed, studio.category, "object", index)
    template = studio.templates[index % len(studio.templates)]
    softness = 0.0 if studio.category in scenes.VEHICLES else 1.0
    deformation = random_deformation(rng, softness)
    # Classes of ShapeNet vary more than what a photograph collection shows
    proportions = deformation.scale * np.exp(rng.normal(0, PROPORTIONS, 3))
    deformation = _of_unit_size(template, replace(deformation, scale=proportions))
    vertices = deformation(template.vertices)
    shape = torch.from_numpy(vertices[: template.num_coarse])
    save_meshes(folder / "model.obj", cameras.to_model(shape)[None], _faces(template))
    for number in range(num_views):
        azimuth, elevation = rng.uniform(0, 360), rng.uniform(*ELEVATION)
        view = _view(azimuth, elevation, studio.size)
        # The same numbers for every view, so that all of them show the same paint
        paint_rng = numpy_generator(studio.seed, studio.category, "paint", index)
        surface = render_surface(template, deformation, vertices, view, studio.size)
        color, _ = paint(studio, template, surface, view, paint_rng)
        rows = np.concatenate([color, np.ones((len(color), 1))], axis=1)
        layers = blocks(studio, surface, rows, view, 0.0).mean(axis=(1, 3))
        Image.fromarray(_with_alpha(layers)).save(folder / f"render_{number}.png")
        position = cameras.position(azimuth, elevation, cameras.DISTANCE)
        write_json(folder / f"camera_{number}.json", {"pos": position})


def _of_unit_size(template: Template, deformation: Deformation) -> Deformation:
    """Returns the deformation whose result has a bounding box of diagonal 1, as ShapeNet's models."""
    vertices = deformation(template.vertices)
    diagonal = float(np.linalg.norm(vertices.max(axis=0) - vertices.min(axis=0)))
    return replace(deformation, scale=deformation.scale / diagonal)


def _view(azimuth: float, elevation: float, size: int) -> scenes.View:
    """Returns the camera in a direction in degrees, with the object in the middle of the picture."""
    angles = torch.tensor([azimuth, elevation, 0.0], dtype=torch.float64)
    scale = cameras.screen_scale(cameras.DISTANCE) * size / 2
    middle = np.full(2, size / 2)
    return scenes.View(quaternion.from_view(*angles), scale, middle, cameras.DISTANCE, size, size)


def _with_alpha(layers: NDArray) -> NDArray:
    """Returns RGBA (h, w, 4) uint8 of colors (h, w, 3), which coverage has been multiplied to, and it."""
    coverage = layers[..., 3:]
    color = np.divide(
        layers[..., :3], coverage, out=np.zeros_like(layers[..., :3]), where=coverage > 0
    )
    pixels = np.concatenate([color, coverage], axis=2)
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _faces(template: Template) -> torch.Tensor:
    return torch.from_numpy(template.coarse_faces)
