"""How the sphere finds the silhouettes of a template: a fast schedule and the published one."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from models.losses import flatness
from rendering.camera import Pose, project
from rendering.mesh_template import MeshTemplate
from rendering.rasterizer import rasterize, silhouette_loss

SHARPNESS = 7000.0
VIEWS_PER_STEP = 8
FLATNESS = 2.5e-6
SMOOTHNESS = 3e-4
NUM_POINTS = 40_000


class Targets(NamedTuple):
    """Silhouettes of T templates.

    Attributes:
        views: (T, N, 4) rotations.
        masks: (T, N, h, w) 0 or 1.
    """

    views: Tensor
    masks: Tensor


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
    Phase(8.0, 150, 1.0, 2, 0.1),
    Phase(3.0, 150, 5.0, 1, 0.1),
    Phase(1.0, 150, 20.0, 1, 0.05),
)


def to_screen(vertices: Tensor, views: Tensor) -> Tensor:
    """Shows meshes (1 or N, V, 3) from N directions so that the unit cube's edges stay inside."""
    count = len(views)
    scale, zero = views.new_full((count, 1), 0.5**0.5), views.new_zeros(count, 2)
    return project(vertices, Pose(scale, zero, views, zero[:, :1]), orthographic=True)


def overlap(template: MeshTemplate, vertices: Tensor, targets: Targets) -> Tensor:
    """Returns the mean intersection over union (T,) of rendered and target silhouettes."""
    results = []
    for mesh, views, masks in zip(vertices, *targets, strict=True):
        screen = to_screen(mesh[None], views)
        raster = rasterize(screen, template.faces, masks.shape[-1], soft=False)
        mine, theirs = raster.coverage[:, 0] > 0.5, masks > 0.5
        results.append(((mine & theirs).sum((1, 2)) / (mine | theirs).sum((1, 2))).mean())
    return torch.stack(results)


def fit_fast(
    template: MeshTemplate,
    targets: Targets,
    extent: Tensor,
    *,
    coupled: bool,
    aligned: bool,
    step_factor: float,
    generator: torch.Generator,
) -> Tensor:
    """Fits each template within seconds, from an ellipsoid inside its silhouettes.

    Gradients are spread over the surface by a stiffness that decreases from phase to phase (Nicolet,
    Jacobson and Jakob 2021, "Large Steps in Inverse Rendering of Geometry"), which moves whole limbs
    at once and keeps triangles from folding.

    Args:
        template: the sphere.
        targets: silhouettes.
        extent: (T, 3) largest |coordinate| of each template.
        coupled: not used: all templates start alike, which keeps their vertices in correspondence.
        aligned: not used.
        step_factor: factor on the number of steps.
        generator: draws views and points.

    Returns:
        (T, V, 3) symmetric meshes.
    """
    del coupled, aligned
    results = []
    for views, masks, box in zip(*targets, extent, strict=True):
        vertices = _inner_ellipsoid(template, views, masks, box, generator)
        for phase in PHASES:
            small = F.avg_pool2d(masks[:, None], phase.shrink)[:, 0]
            steps = max(1, round(phase.steps * step_factor))
            phase = phase._replace(steps=steps)
            vertices = _descend(template, vertices, views, small, phase, generator)
        results.append(vertices)
    return torch.stack(results)


def _inner_ellipsoid(
    template: MeshTemplate,
    views: Tensor,
    masks: Tensor,
    box: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Sphere (V, 3) turned into an ellipsoid with center and spread of the visual hull."""
    points = (2 * torch.rand(NUM_POINTS, 3, generator=generator).to(box) - 1) * box
    where = to_screen(points[None], views)[:, :, None, :2] * box.new_tensor([1.0, -1.0])
    hits = F.grid_sample(masks[:, None], where, align_corners=False)[:, 0, :, 0]  # (N, points)
    inside = points[hits.amin(0) > 0.5]
    if len(inside) < 100:  # thinner than a pixel nearly everywhere
        return 0.8 * box * template.vertices
    center = inside.mean(0) * box.new_tensor([0.0, 1.0, 1.0])
    radii = (5 * (inside - center).square().mean(0)).sqrt()
    return center + 0.8 * radii * template.vertices


def _descend(
    template: MeshTemplate,
    vertices: Tensor,
    views: Tensor,
    masks: Tensor,
    phase: Phase,
    generator: torch.Generator,
) -> Tensor:
    """Runs one phase on a mesh (V, 3) and silhouettes (N, h, w)."""
    stiff = stiffness_matrix(template.faces, len(vertices), phase.stiffness)
    relax = torch.linalg.inv(stiff).float()
    state = stiff.float() @ vertices
    mean, spread = torch.zeros_like(state), state.new_zeros(())
    for step in range(1, phase.steps + 1):
        state.requires_grad_()
        mesh = template.symmetrize(relax @ state)
        chosen = torch.randperm(len(views), generator=generator)[:VIEWS_PER_STEP].to(views.device)
        loss = 10 * _silhouette_term(template, mesh, views, masks, chosen, phase.sharpness)
        loss = loss + SMOOTHNESS * template.laplacian(mesh).square().sum()
        loss = loss + FLATNESS * flatness(mesh[None], template.faces, template.neighbors).sum()
        (gradient,) = torch.autograd.grad(loss, state)
        # Adam with one step length for all vertices, so that the stiffness has its way
        mean = 0.9 * mean + 0.1 * gradient
        spread = 0.95 * spread + 0.05 * gradient.square().sum(1).max()
        unbiased = (mean / (1 - 0.9**step)) / ((spread / (1 - 0.95**step)).sqrt() + 1e-12)
        rate = phase.rate * (1 - 0.9 * step / phase.steps)
        state = state.detach() - rate * unbiased
    return template.symmetrize(relax @ state)


def _silhouette_term(
    template: MeshTemplate,
    mesh: Tensor,
    views: Tensor,
    masks: Tensor,
    chosen: Tensor,
    sharpness: float,
) -> Tensor:
    screen = to_screen(mesh[None], views[chosen])
    loss, _ = silhouette_loss(
        screen, template.faces, masks, chosen, sharpness=SHARPNESS * sharpness
    )
    return loss.mean()


def stiffness_matrix(faces: Tensor, num_vertices: int, stiffness: float) -> Tensor:
    """Returns the identity plus `stiffness` times the graph Laplacian, (V, V) float64."""
    adjacency = torch.zeros(num_vertices, num_vertices, dtype=torch.float64, device=faces.device)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        adjacency[faces[:, i], faces[:, j]] = 1.0
    laplacian = torch.diag(adjacency.sum(1)) - adjacency
    return torch.eye(num_vertices, dtype=torch.float64, device=faces.device) + stiffness * laplacian


class Schedule(Protocol):
    """A way of fitting; see `fit_fast` for the arguments."""

    def __call__(
        self,
        template: MeshTemplate,
        targets: Targets,
        extent: Tensor,
        *,
        coupled: bool,
        aligned: bool,
        step_factor: float,
        generator: torch.Generator,
    ) -> Tensor: ...


SCHEDULES: dict[str, Schedule] = {"fast": fit_fast}
