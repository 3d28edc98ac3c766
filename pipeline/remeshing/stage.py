"""Stage 0: deforms the UV sphere onto the modeled templates of each category.

Reads <templates>/<category><n>.obj, writes cache/remeshed_templates/<mode>/<category>_templates.pth
and, for looking at, an .obj beside it. Only silhouettes count, so open shells, loose parts and wrong
windings do no harm.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from data.cache.template_files import save_templates
from data.definitions import ALIGNED_CATEGORIES
from geometry import quaternion
from geometry.mesh_files import MESH_SUFFIXES, Mesh, load_mesh, save_meshes
from geometry.sphere_mesh import SphereMesh
from pipeline.remeshing.paper_schedule import fit_published
from pipeline.remeshing.sphere_fitting import Targets, Task, fit_fast, overlap, to_screen
from rendering.rasterizer import rasterize
from utils import distributed
from utils.cli import UserError
from utils.seeding import torch_generator
from utils.threads import one_torch_thread

SCHEDULES = {"fast": fit_fast, "reference": fit_published}
NUM_VIEWS = 64
NUM_TEST_VIEWS = 32
LOW_IOU = 0.8
_VIEWS_AT_ONCE = 16
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Options of the stage; `remesh.py` describes them and holds the defaults."""

    mode: str
    classes: tuple[str, ...]
    templates: Path
    up: str | None
    front: str | None
    image_resolution: int
    schedule: str
    step_factor: float
    seed: int


class Remeshed(NamedTuple):
    """Result for one category.

    Attributes:
        vertices: (T, 962, 3) symmetric meshes of sphere topology, max |coordinate| = 1.
        iou: (T,) mean overlap with the silhouettes of the template from views not used.
    """

    vertices: Tensor
    iou: Tensor


@one_torch_thread()
def run(device: torch.device, config: Config) -> None:
    """Remeshes and saves this process's share of the categories."""
    files = {c: find_templates(config.templates, c, config.mode) for c in config.classes}
    for i in distributed.shard(len(config.classes)):
        category = config.classes[i]
        meshes = [load_mesh(path, up=config.up, front=config.front) for path in files[category]]
        result = remesh(meshes, category in ALIGNED_CATEGORIES, config, device)
        path = save_templates(category, config.mode, result.vertices)
        save_meshes(path.with_suffix(".obj"), result.vertices, SphereMesh().faces)
        overlaps = " ".join(f"{value:.3f}" for value in result.iou.tolist())
        _LOG.info("%s: silhouette IoU from unseen views %s -> %s", category, overlaps, path)
        if (result.iou < LOW_IOU).any():
            _LOG.warning("%s: this is low. Look at the .obj; are --up and --front right?", category)


def find_templates(folder: Path, category: str, mode: str) -> list[Path]:
    """Returns the files <category>1, <category>2, ... of a folder; the first only in singletpl.

    Raises:
        UserError: if there is no <category>1.
    """
    present = {path.name.lower(): path for path in sorted(folder.glob("*")) if path.is_file()}
    found: list[Path] = []
    while matches := [
        present[name]
        for suffix in MESH_SUFFIXES
        if (name := f"{category}{len(found) + 1}{suffix}") in present
    ]:
        found.append(matches[0])
    if not found:
        raise UserError(
            f"{folder}/{category}1.obj does not exist, so {category} has no template to remesh. "
            f"Put one there, or leave {category} out of --classes."
        )
    return found[:1] if mode == "singletpl" else found


def remesh(meshes: Sequence[Mesh], aligned: bool, config: Config, device: torch.device) -> Remeshed:
    """Fits the sphere to the silhouettes of the templates of one category.

    Args:
        meshes: T templates in object space.
        aligned: whether the templates share position and scale.
        config: schedule and resolution.
        device: where to compute.

    Returns:
        The fitted meshes and how well they do from unseen views.
    """
    meshes = normalize(meshes, aligned)
    template = SphereMesh().to(device)
    shape = (len(meshes), NUM_VIEWS + NUM_TEST_VIEWS, 4)
    views = quaternion.normalize(torch.randn(shape, generator=torch_generator(config.seed)))
    masks = [
        silhouettes(mesh, rotations, config.image_resolution)
        for mesh, rotations in zip(meshes, views, strict=True)
    ]
    targets = Targets(views.to(device), torch.stack(masks).to(device))
    extent = torch.tensor(np.array([np.abs(mesh.vertices).max(0) for mesh in meshes]))
    task = Task(
        template,
        Targets(*(member[:, :NUM_VIEWS] for member in targets)),
        extent.float().to(device),
        aligned,
        config.step_factor,
        torch_generator(config.seed, 1),
    )
    vertices = SCHEDULES[config.schedule](task)
    unseen = Targets(*(member[:, NUM_VIEWS:] for member in targets))
    iou = overlap(template, vertices, unseen)
    return Remeshed(_normalize_jointly(vertices).cpu(), iou.cpu())


def normalize(meshes: Sequence[Mesh], aligned: bool) -> list[Mesh]:
    """Centers the templates and scales them to max |coordinate| = 1.

    Aligned templates share one bounding box, others have their own. The plane x = 0 stays where it
    is, as it is the mirror plane, unless the box lies clearly to one side of it.
    """
    boxes = np.array([[mesh.vertices.min(0), mesh.vertices.max(0)] for mesh in meshes])
    if aligned:
        boxes[:] = np.stack([boxes[:, 0].min(0), boxes[:, 1].max(0)])
    centers = boxes.mean(1)
    off_center = np.abs(centers[:, 0]) > 0.1 * (boxes[:, 1] - boxes[:, 0])[:, 0]
    centers[~off_center, 0] = 0.0
    centered = [mesh.vertices - center for mesh, center in zip(meshes, centers, strict=True)]
    sizes = np.array([np.abs(vertices).max() for vertices in centered])
    if (sizes == 0).any():
        raise UserError("a template has no extent: all of its vertices are one point.")
    sizes[:] = sizes.max() if aligned else sizes
    return [
        Mesh(vertices / size, mesh.faces)
        for mesh, vertices, size in zip(meshes, centered, sizes, strict=True)
    ]


def silhouettes(mesh: Mesh, views: Tensor, size: int) -> Tensor:
    """Returns the masks (N, size, size) of a mesh, both sides of its faces visible.

    Holes are filled, because a sphere has none, unless the mesh is a closed surface without handles:
    what shines through between its legs is something that the sphere can copy.
    """
    vertices = torch.from_numpy(mesh.vertices).float()[None]
    faces = torch.from_numpy(mesh.faces)
    masks = [
        rasterize(to_screen(vertices, part), faces, size, cull=False, soft=False).coverage[:, 0]
        for part in views.split(_VIEWS_AT_ONCE)
    ]
    masks = torch.cat(masks)
    solid = trimesh.Trimesh(*mesh)
    if solid.is_watertight and solid.euler_number == 2:
        return masks
    filled = [binary_fill_holes(mask) for mask in masks.numpy() > 0.5]
    return torch.from_numpy(np.array(filled)).float()


def _normalize_jointly(vertices: Tensor) -> Tensor:
    """Centers (T, V, 3) by one bounding box and scales to max |coordinate| = 1."""
    points = vertices.flatten(0, 1)
    center = (points.amin(0) + points.amax(0)) / 2
    return (vertices - center) / (points - center).abs().max()
