"""The published schedule of the fit: all views at every step, hours per category on a CPU."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.operators import flatness
from pipeline.remeshing.sphere_fitting import SHARPNESS, Task, to_screen
from rendering.rasterizer import rasterize, silhouette_loss

ALIGNMENT_STEPS = 1000
FIRST_RATE, TOP_RATE = 1e-4, 5e-4
WARMUP_STEPS = 400
DECAY = 0.9999
FLATNESS, LENGTH, SMOOTHNESS, TEMPLATE_AGREEMENT = 1e-5, 0.01, 0.003, 0.001
SMALLEST_SCALE = 0.8


class Placement(NamedTuple):
    """Where the templates lie, and where they lie when they are compared with one another.

    Attributes:
        offset: (T, 1, 3) translation in the frame of the silhouettes.
        scale: (T, 1, 1) factor before it.
        common_offset: (T, 1, 3) from the frame of the silhouettes to the common one.
        common_scale: (T, 1, 1) factor before it.
    """

    offset: Tensor
    scale: Tensor
    common_offset: Tensor
    common_scale: Tensor


def fit_published(task: Task) -> Tensor:
    """Aligns a scaled sphere, then moves its vertices down the silhouettes' gradient.

    All gradients are normalized per vector, so that a step has the length of the learning rate.

    Returns:
        (T, V, 3) symmetric meshes in the common frame.
    """
    vertices, placement = _align(task)
    vertices, placement = _refine(task, vertices, placement)
    placed = vertices * placement.scale + placement.offset
    return placed * placement.common_scale + placement.common_offset


def _align(task: Task) -> tuple[Tensor, Placement]:
    """First phase: finds size and position of the sphere, common to all its vertices."""
    # The stretch along the axes is common to all templates, so that their vertices correspond
    count = len(task.extent)
    sphere = task.template.vertices.expand(count, -1, -1)
    stretch = task.extent.amax(0).view(1, 1, 3).clone()
    placement = _start(count, sphere)
    velocity = [torch.zeros_like(value) for value in (stretch, *placement)]
    for _ in range(max(1, round(ALIGNMENT_STEPS * task.step_factor))):
        state = [value.detach().requires_grad_() for value in (stretch, *placement)]
        placed = _place(state[0] * sphere, Placement(*state[1:]))
        loss = _coverage_error(task, placed) + _template_disagreement(placed, Placement(*state[1:]))
        stretch, *moved = _normalized_step(loss, state, velocity, FIRST_RATE)
        placement = _constrain(task, Placement(*moved))
        if not _is_free(task):
            placement = placement._replace(scale=torch.ones_like(placement.scale))
    # The vertices absorb size and position, and the second phase starts from a neutral placement
    vertices = stretch * placement.scale * sphere + placement.offset
    fresh = _start(count, sphere)
    return vertices, fresh._replace(
        common_offset=placement.common_offset, common_scale=placement.common_scale
    )


def _refine(task: Task, vertices: Tensor, placement: Placement) -> tuple[Tensor, Placement]:
    """Second phase: moves every vertex; rate, smoothness and blur decrease slowly."""
    # With fewer steps the rate follows the same course, only faster
    rate, smoothness, blur = FIRST_RATE, SMOOTHNESS, 1.0
    warm = (TOP_RATE - FIRST_RATE) / max(1.0, WARMUP_STEPS * task.step_factor)
    decay = DECAY ** (1 / task.step_factor)
    rising = True
    velocity = [torch.zeros_like(value) for value in (vertices, *placement)]
    # The rate climbs to its top and then decays; the phase ends where it began
    while rising or rate >= FIRST_RATE:
        state = [value.detach().requires_grad_() for value in (vertices, *placement)]
        loss = _refinement_loss(task, state[0], Placement(*state[1:]), smoothness, blur)
        vertices, *moved = _normalized_step(loss, state, velocity, rate)
        vertices = task.template.symmetrize(vertices)
        placement = _constrain(task, Placement(*moved))
        if rising:
            rate += warm
            rising = rate < TOP_RATE
        else:
            rate, smoothness, blur = rate * decay, smoothness * decay, blur * decay
    return vertices, placement


def _refinement_loss(
    task: Task, vertices: Tensor, placement: Placement, smoothness: float, blur: float
) -> Tensor:
    template = task.template
    # All views of all templates in one batch
    placed = _place(vertices, placement)
    targets = task.targets.masks.flatten(0, 1)
    screen = _all_views(task, placed)
    index = torch.arange(len(targets), device=screen.device)
    errors, _ = silhouette_loss(
        screen, template.faces, targets, index, sharpness=int(SHARPNESS / blur)
    )
    # Silhouettes and agreement of the templates, then the regularizers of the surface
    loss = errors.mean() + _template_disagreement(placed, placement)
    loss = loss + FLATNESS * flatness(vertices, template.faces, template.neighbors).mean()
    loss = loss + LENGTH * template.edge_length(vertices)
    return loss + smoothness * template.laplacian(placed).square().sum((1, 2)).mean()


def _start(count: int, like: Tensor) -> Placement:
    """Everything at the origin and at its own scale."""
    zero, one = like.new_zeros(count, 1, 3), like.new_ones(count, 1, 1)
    return Placement(zero, one, zero.clone(), one.clone())


def _place(vertices: Tensor, placement: Placement) -> Tensor:
    return placement.scale * vertices + placement.offset


def _all_views(task: Task, placed: Tensor) -> Tensor:
    """Screen vertices (T * N, V, 3) of meshes (T, V, 3)."""
    views = task.targets.views
    repeated = placed[:, None].expand(-1, views.shape[1], -1, -1)
    return to_screen(repeated.flatten(0, 1), views.flatten(0, 1))


def _coverage_error(task: Task, placed: Tensor) -> Tensor:
    """Mean absolute difference of soft silhouettes and masks."""
    masks = task.targets.masks
    raster = rasterize(_all_views(task, placed), task.template.faces, masks.shape[-1])
    assert raster.alpha is not None
    return (raster.alpha[:, 0] - masks.flatten(0, 1)).abs().mean()


def _template_disagreement(placed: Tensor, placement: Placement) -> Tensor:
    """Mean distance of corresponding vertices over all pairs of templates, weighted."""
    if len(placed) == 1:
        return placed.new_zeros(())
    common = placement.common_scale * placed + placement.common_offset
    difference = common[:, None] - common[None]
    # The square root has no slope at 0, where a template meets itself
    distance = difference.square().sum(-1).clamp(min=1e-12).sqrt()
    return TEMPLATE_AGREEMENT * distance.mean()


def _normalized_step(
    loss: Tensor, state: list[Tensor], velocity: list[Tensor], rate: float
) -> list[Tensor]:
    """One step with momentum 0.9; updates `velocity` in place, returns the new state.

    Directions are gradients divided by their length: per vector, of the last member as a whole.
    """
    # Only directions count, since the gradients of the members differ by orders of magnitude
    gradients = torch.autograd.grad(loss, state, allow_unused=True)
    moved = []
    for i, (value, gradient, speed) in enumerate(zip(state, gradients, velocity, strict=True)):
        if gradient is not None:
            whole = i == len(state) - 1
            length = gradient.norm() if whole else gradient.norm(dim=-1, keepdim=True)
            speed.mul_(0.9).add_(gradient / (length + 1e-6))
        moved.append(value.detach() - rate * speed)
    return moved


def _is_free(task: Task) -> bool:
    """Whether each template has a size and position of its own."""
    return not task.aligned and len(task.extent) > 1


def _constrain(task: Task, placement: Placement) -> Placement:
    """Keeps the mirror plane, and the common frame where the templates share one."""
    in_plane = placement.offset.new_tensor([0.0, 1.0, 1.0])
    placement = placement._replace(offset=placement.offset * in_plane)
    # Aligned templates, and a single one, are in the common frame already
    if not _is_free(task):
        fixed = _start(len(placement.offset), placement.offset)
        return placement._replace(
            common_offset=fixed.common_offset, common_scale=fixed.common_scale
        )
    # Scales are relative: otherwise templates would agree by shrinking
    relative = placement.common_scale / placement.common_scale.amax()
    shift = placement.common_offset * in_plane
    return placement._replace(
        common_offset=shift - shift.mean(0, keepdim=True),
        common_scale=relative.clamp(min=SMALLEST_SCALE),
    )
