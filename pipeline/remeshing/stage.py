"""Stage 0: deforms the UV sphere onto the modeled templates of each category.

Reads <templates>/<category><n>.obj or points on a surface, writes cache/remeshed_templates/<mode>/<category>_templates.pth
(cache/own_templates/ if the templates are a user's own), beside it an .obj and a picture to look at.
Only silhouettes count, so open shells, loose parts and wrong windings do no harm.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.cache import template_files
from data.definitions import ALIGNED_CATEGORIES, CATEGORIES, MODELED_TEMPLATES, MODES
from geometry import quaternion
from geometry.mesh_files import MESH_SUFFIXES, Mesh, format_axes, load_mesh, save_meshes
from geometry.sphere_mesh import SphereMesh
from pipeline.remeshing.diagnosis import better_axes, cause_of_poor_fit
from pipeline.remeshing.paper_schedule import fit_published
from pipeline.remeshing.picture import compare
from pipeline.remeshing.points import surface_from_points
from pipeline.remeshing.sphere_fitting import Targets, Task, fit_fast, overlap
from pipeline.remeshing.targets import normalize, silhouettes
from utils import distributed
from utils.cli import UserError
from utils.files import shipped
from utils.pictures import save_image
from utils.seeding import torch_generator
from utils.threads import one_torch_thread

SCHEDULES = {"fast": fit_fast, "reference": fit_published}
NUM_VIEWS = 64
NUM_TEST_VIEWS = 32
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Options of the stage; `remesh.py` describes them and holds the defaults."""

    mode: str
    classes: tuple[str, ...]
    templates: Path
    from_points: Path | None
    normals: str | None
    poisson_depth: int
    up: str | None
    front: str | None
    image_resolution: int
    schedule: str
    step_factor: float
    min_iou: float
    seed: int

    @property
    def own(self) -> bool:
        """Whether the templates are a user's own rather than those modeled here."""
        return self.from_points is not None or self.templates != MODELED_TEMPLATES


class Remeshed(NamedTuple):
    """Result for one category.

    Attributes:
        vertices: (T, 962, 3) symmetric meshes of sphere topology, max |coordinate| = 1.
        iou: (T,) mean overlap with the silhouettes of the template from views not used; NaN if the
            fit has diverged.
        picture: (h, w, 3) uint8 comparison with the templates; None if the fit has diverged.
    """

    vertices: Tensor
    iou: Tensor
    picture: np.ndarray | None


@one_torch_thread()
def run(device: torch.device, config: Config) -> None:
    """Remeshes and saves this process's share of the categories.

    Raises:
        UserError: before anything is fitted, if a file cannot be read or seems to have other axes; at
            the end, if a fit is too poor to take the place of present templates.
    """
    # Read and check all files first: a fit takes minutes, and a mistake should show at once
    mine = [config.classes[i] for i in distributed.shard(len(config.classes))]
    loaded = {category: _load(category, config) for category in mine}
    refused = []
    for category, meshes in loaded.items():
        result = remesh(meshes, category in ALIGNED_CATEGORIES, config, device)
        refused += _keep(category, meshes, result, config)
    # One error for the complaints of all processes, after all good results are saved
    refused = [line for lines in distributed.gather(refused) for line in lines]
    if refused:
        raise UserError(" ".join(refused))


def _load(category: str, config: Config) -> list[Mesh]:
    """Reads the templates of a category, and questions the axes of a user's own."""
    # Templates of the modeled meshes, if present, show how objects of the category are oriented
    faces = SphereMesh().faces.numpy()
    paths = [shipped(template_files.written_path(category, mode, own=False)) for mode in MODES]
    known = [
        Mesh(vertices.double().numpy(), faces)
        for path in paths
        if config.own and path.exists()
        for vertices in template_files.read_templates(path, "Delete it.")
    ]
    meshes = []
    # Options take precedence over the axes that the file format defines
    for path in _sources(category, config):
        up, front = (given or by_format for given, by_format in zip(_given(config), format_axes(path), strict=True))  # fmt: skip
        meshes.append(_read(path, up, front, config))
        # Axes that the user gave are only questioned; guessed ones must be confirmed
        if known and (found := better_axes(meshes[-1], up, front, known)):
            now, best = found
            doubt = (
                f"{path}: read with {now}, it resembles the {category} templates at hand less (IoU "
                f"{now.iou:.2f}) than with {best} ({best.iou:.2f})."
            )
            if _given(config) == (None, None):
                raise UserError(f"{doubt} Add these two options, or {now} if it is right as it is.")
            _LOG.warning("%s Look at the picture that is written.", doubt)
    return meshes


def _sources(category: str, config: Config) -> list[Path]:
    if config.from_points:
        return [config.from_points]
    return find_templates(config.templates, category, config.mode)


def _read(path: Path, up: str, front: str, config: Config) -> Mesh:
    if config.from_points:
        return surface_from_points(path, up, front, config.normals, config.poisson_depth)
    return load_mesh(path, up=up, front=front)


def _given(config: Config) -> tuple[str | None, str | None]:
    return config.up, config.front


def _keep(category: str, meshes: Sequence[Mesh], result: Remeshed, config: Config) -> list[str]:
    """Saves a result, or what is wrong with it beside the present templates; returns the complaint."""
    # A poor fit never replaces existing templates, but is better than none
    present = template_files.templates_path(category, config.mode)
    target = template_files.written_path(category, config.mode, own=config.own)
    poor = not (result.iou >= config.min_iou).all()  # NaN too
    rejected = result.picture is None or (poor and present.exists())
    stem = f"{category}_rejected" if rejected else target.stem
    # The picture of a rejected fit is saved too, as it shows what went wrong
    if result.picture is not None:
        save_image(target.with_name(f"{stem}.png"), result.picture)
        save_meshes(target.with_name(f"{stem}.obj"), result.vertices, SphereMesh().faces)
    # Say what is wrong and what may help
    overlaps = " ".join(f"{value:.3f}" for value in result.iou.tolist())
    complaint = f"{category}: silhouette IoU {overlaps}, expected {config.min_iou:g} or more."
    if poor and result.picture is None:
        complaint = f"{category}: the fit has diverged, its vertices are not finite."
    elif poor:
        worst = int(result.iou.argmin())
        cause = cause_of_poor_fit(meshes[worst], float(result.iou[worst]))
        complaint += f" Likely cause: {cause} See {target.with_name(f'{stem}.png')}."
    if rejected:
        kept = f" {present} stays as it was." if present.exists() else ""
        force = f" --min_iou {float(result.iou.min()) - 0.005:.2f} accepts it anyway."
        return [complaint + kept + (force if result.picture is not None else "")]
    # A surface through points was never a file, and is worth looking at
    if config.from_points:
        surface = torch.from_numpy(meshes[0].vertices)[None], torch.from_numpy(meshes[0].faces)
        save_meshes(target.with_name(f"{category}_surface.obj"), *surface)
    # Save, and remove the leftovers of a rejected attempt, which would mislead
    template_files.save_templates(category, config.mode, result.vertices, own=config.own)
    for suffix in (".png", ".obj"):  # of an earlier attempt
        target.with_name(f"{category}_rejected{suffix}").unlink(missing_ok=True)
    _LOG.info("%s: silhouette IoU from unseen views %s -> %s", category, overlaps, target)
    if poor:
        _LOG.warning("%s", complaint)
    # Say which templates the later stages read, since a user's own take precedence
    if config.own:
        _LOG.info("%s: these are used from now on; delete them to go back to the others", category)
    elif (present := template_files.templates_path(category, config.mode)) != target:
        _LOG.warning("%s: %s is still used in their place; delete it", category, present)
    return []


def find_templates(folder: Path, category: str, mode: str) -> list[Path]:
    """Returns the files <category>1, <category>2, ... of a folder; the first only in singletpl.

    Raises:
        UserError: if there is no <category>1.
    """
    # Upper and lower case count alike; numbers run without a gap, and the first known format wins
    present = {
        path.name.lower(): path for path in sorted(shipped(folder).glob("*")) if path.is_file()
    }
    found: list[Path] = []
    while matches := [
        present[name]
        for suffix in MESH_SUFFIXES
        if (name := f"{category}{len(found) + 1}{suffix}") in present
    ]:
        found.append(matches[0])
    if not found and category not in CATEGORIES and folder == MODELED_TEMPLATES:
        raise UserError(template_files.ways_to_templates(category, mode=mode))
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
    # Silhouettes of all templates from random views, some of which are held out
    meshes = normalize(meshes, aligned)
    template = SphereMesh().to(device)
    shape = (len(meshes), NUM_VIEWS + NUM_TEST_VIEWS, 4)
    views = quaternion.normalize(torch.randn(shape, generator=torch_generator(config.seed)))
    masks = [
        silhouettes(mesh, rotations, config.image_resolution)
        for mesh, rotations in zip(meshes, views, strict=True)
    ]
    targets = Targets(views.to(device), torch.stack(masks).to(device))
    # The fit starts from the extent of the templates
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
    # A diverged fit has no overlap and no picture
    if not vertices.isfinite().all():
        return Remeshed(vertices.cpu(), torch.full((len(meshes),), torch.nan), None)
    # Judge the fit by the held-out views
    unseen = Targets(*(member[:, NUM_VIEWS:] for member in targets))
    iou = overlap(template, vertices, unseen).cpu()
    faces = template.faces.cpu().numpy()
    fitted = [Mesh(mesh, faces) for mesh in vertices.cpu().double().numpy()]
    picture = compare(meshes, fitted, iou.tolist())
    return Remeshed(_normalize_jointly(vertices).cpu(), iou, picture)


def _normalize_jointly(vertices: Tensor) -> Tensor:
    """Centers (T, V, 3) by one bounding box and scales to max |coordinate| = 1."""
    points = vertices.flatten(0, 1)
    center = (points.amin(0) + points.amax(0)) / 2
    return (vertices - center) / (points - center).abs().max()
