"""Fits the sphere to the silhouettes of a template: the fast way, seconds per template on a CPU."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from geometry.camera import Pose, project
from geometry.distances import hard_iou
from geometry.operators import flatness, volume
from geometry.sphere_mesh import SphereMesh
from geometry.surface_descent import SurfaceDescent
from rendering.rasterizer import rasterize, silhouette_loss

SHARPNESS = 7000.0
VIEWS_PER_STEP = 8
SILHOUETTE = 10.0  # weights of the terms
FLATNESS = 1e-5
SMOOTHNESS = 3e-4
PRESSURE = 0.1
NUM_POINTS = 40_000


class Targets(NamedTuple):
    """Silhouettes of T templates.

    Attributes:
        views: (T, N, 4) rotations.
        masks: (T, N, h, w) 0 or 1.
    """

    views: Tensor
    masks: Tensor


class Task(NamedTuple):
    """What a schedule has to fit.

    Attributes:
        template: the sphere.
        targets: silhouettes of T templates.
        extent: (T, 3) largest |coordinate| of each template.
        aligned: whether the templates share position and scale.
        step_factor: factor on the number of steps.
        generator: CPU generator of all random choices.
    """

    template: SphereMesh
    targets: Targets
    extent: Tensor
    aligned: bool
    step_factor: float
    generator: torch.Generator


class Phase(NamedTuple):
    """Part of the fast schedule.

    Attributes:
        stiffness: how far a vertex takes its neighbors along.
        steps: number of steps.
        sharpness: factor on the sharpness of silhouettes.
        shrink: factor by which images are reduced.
        rate: step length; falls to a tenth within the phase.
    """

    stiffness: float
    steps: int
    sharpness: float
    shrink: int
    rate: float


# From a stiff surface and blurred outlines to a loose one and crisp outlines
PHASES = (
    Phase(50.0, 100, 1.0, 2, 0.1),
    Phase(20.0, 100, 1.0, 2, 0.1),
    Phase(8.0, 200, 1.0, 2, 0.1),
    Phase(3.0, 300, 5.0, 2, 0.1),
    Phase(1.0, 300, 20.0, 2, 0.1),
    Phase(1.0, 300, 40.0, 1, 0.05),
)


def to_screen(vertices: Tensor, views: Tensor) -> Tensor:
    """Shows a mesh (1, V, 3) or N meshes from N directions, unit spheres within 0.71 of the image."""
    count = len(views)
    scale, zero = views.new_full((count, 1), 0.5**0.5), views.new_zeros(count, 2)
    return project(vertices, Pose(scale, zero, views, zero[:, :1]), orthographic=True)


def overlap(template: SphereMesh, vertices: Tensor, targets: Targets) -> Tensor:
    """Returns the mean intersection over union (T,) of rendered and target silhouettes."""
    results = []
    # Hard silhouettes, since soft ones depend on the sharpness of the phase
    for mesh, views, masks in zip(vertices, *targets, strict=True):
        screen = to_screen(mesh[None], views)
        raster = rasterize(screen, template.faces, masks.shape[-1], soft=False)
        results.append(hard_iou(raster.coverage[:, 0], masks).mean())
    return torch.stack(results)


def fit_fast(task: Task) -> Tensor:
    """Fits each template by itself, from an ellipsoid inside its silhouettes.

    Gradients are spread over the surface by a stiffness that decreases from phase to phase (Nicolet,
    Jacobson and Jakob 2021, "Large Steps in Inverse Rendering of Geometry"), which moves whole limbs
    at once and keeps triangles from folding. A slight pressure from inside keeps the two sides of thin
    parts apart, about which silhouettes say nothing. All templates start from the same sphere, so
    that their vertices correspond.

    Returns:
        (T, V, 3) symmetric meshes.
    """
    results = []
    for views, masks, extent in zip(*task.targets, task.extent, strict=True):
        vertices = _inner_ellipsoid(task, views, masks, extent)
        for phase in PHASES:
            steps = max(1, round(phase.steps * task.step_factor))
            small = F.avg_pool2d(masks[:, None], phase.shrink)[:, 0]
            vertices = _descend(task, vertices, Targets(views, small), phase._replace(steps=steps))
        results.append(vertices)
    return torch.stack(results)


def _inner_ellipsoid(task: Task, views: Tensor, masks: Tensor, extent: Tensor) -> Tensor:
    """Sphere (V, 3) turned into an ellipsoid with center and spread of the visual hull."""
    # Carve the visual hull: random points of the box that fall inside every mask
    random = torch.rand(NUM_POINTS, 3, generator=task.generator)
    points = (2 * random.to(extent) - 1) * extent
    where = to_screen(points[None], views)[:, :, None, :2] * extent.new_tensor([1.0, -1.0])
    hits = F.grid_sample(masks[:, None], where, align_corners=False)[:, 0, :, 0]  # (N, points)
    inside = points[hits.amin(0) > 0.5]
    if len(inside) < NUM_POINTS // 1000:  # thinner than a pixel nearly everywhere
        return 0.8 * extent * task.template.vertices
    # Match center and second moments, with the center on the mirror plane
    center = inside.mean(0) * extent.new_tensor([0.0, 1.0, 1.0])
    radii = (5 * (inside - center).square().mean(0)).sqrt()  # exact for an ellipsoid
    return center + 0.8 * radii * task.template.vertices


def _descend(task: Task, vertices: Tensor, targets: Targets, phase: Phase) -> Tensor:
    """Runs one phase on a mesh (V, 3) and its silhouettes (N, 4), (N, h, w)."""
    template, views = task.template, targets.views
    descent = SurfaceDescent(vertices[None], template.faces, phase.stiffness)
    for step in range(1, phase.steps + 1):
        # A few random views per step are enough, since the stiffness smooths their gradients
        chosen = torch.randperm(len(views), generator=task.generator)[:VIEWS_PER_STEP]
        loss = _loss(
            template,
            template.symmetrize(descent.vertices()[0]),
            targets,
            chosen.to(views.device),
            SHARPNESS * phase.sharpness,
        )
        descent.step(loss, phase.rate * (1 - 0.9 * step / phase.steps))
    return template.symmetrize(descent.vertices()[0].detach())


def _loss(
    template: SphereMesh, mesh: Tensor, targets: Targets, chosen: Tensor, sharpness: float
) -> Tensor:
    """What a mesh (V, 3) is to minimize, seen from the chosen views."""
    # Overlap of the silhouettes, less the pressure from inside
    screen = to_screen(mesh[None], targets.views[chosen])
    errors, _ = silhouette_loss(screen, template.faces, targets.masks, chosen, sharpness=sharpness)
    loss = SILHOUETTE * errors.mean() - PRESSURE * volume(mesh, template.faces)
    loss = loss + SMOOTHNESS * template.laplacian(mesh).square().sum()
    return loss + FLATNESS * flatness(mesh[None], template.faces, template.neighbors).sum()
