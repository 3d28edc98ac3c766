"""Templates whose vertices know their part: rendering, comparing, and fitting poses to part maps."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from data.definitions import ViewPrior
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.fitting import SHARPNESS, constrain, unpack
from pipeline.poses.view_prior import with_prior
from rendering.rasterizer import Raster, rasterize
from utils.optimizers import FullMatrixAdam

LEAST_MASS = 1e-6  # pixels that a part must cover to count as shown
SMOOTHING = 1e-6
LEARNING_RATE = 0.05
GRADIENT_SCALE = 40  # as in stage 1: the optimizer's epsilon is relative to it


class Targets(NamedTuple):
    """What the photographs show.

    Attributes:
        masks: (N, h, w) in [0, 1].
        parts: (N, K + 1, h, w) probabilities, channel 0 = object without part, 0 outside.
        trust: in [0, 1], weight of the parts' overlap; the rest is that of the masks.
    """

    masks: Tensor
    parts: Tensor
    trust: float = 1.0

    def select(self, index: Tensor | slice) -> "Targets":
        """Returns the targets at an index of the images."""
        return Targets(self.masks[index], self.parts[index], self.trust)

    def resized(self, size: int) -> "Targets":
        """Returns smaller targets, averaged over the pixels."""
        if self.masks.shape[-1] == size:
            return self
        together = torch.cat([self.masks[:, None], self.parts], dim=1)
        small = functional.interpolate(together, (size, size), mode="bilinear", antialias=True)
        return Targets(small[:, 0], small[:, 1:], self.trust)


class SemanticModel(NamedTuple):
    """Meshes with part probabilities on their vertices.

    Attributes:
        templates: (T, V, 3) object space.
        probabilities: (T, V, K + 1), channel 0 = object without part.
        faces: (F, 3).
    """

    templates: Tensor
    probabilities: Tensor
    faces: Tensor

    def render(self, pose: Pose, choice: Tensor, size: int, soft: bool) -> Raster:
        """Renders part probabilities (B, K + 1, size, size) of template choice (B,) in B poses."""
        screen = project(self.templates[choice], pose)
        parts = self.probabilities[choice]
        return rasterize(screen, self.faces, size, attributes=parts, soft=soft, sharpness=SHARPNESS)


def splat_parts(screen: Tensor, faces: Tensor, parts: Tensor) -> Tensor:
    """Collects part maps on the vertices under them: the adjoint of rendering vertex attributes.

    Args:
        screen: (B, V, 3) screen space.
        faces: (F, 3).
        parts: (B, K, h, w) part maps.

    Returns:
        (B, V, K) sums over the pixels of barycentric weight times part map.
    """
    attributes = screen.new_zeros(*screen.shape[:2], parts.shape[1], requires_grad=True)
    raster = rasterize(screen, faces, parts.shape[-1], attributes=attributes, soft=False)
    assert raster.attributes is not None
    (gradient,) = torch.autograd.grad((raster.attributes * parts).sum(), attributes)
    return gradient


def normalize_parts(sums: Tensor, mesh: SphereMesh, symmetric: bool = True) -> Tensor:
    """Turns sums per vertex (T, V, K) into probabilities; mirrored vertices get their mean."""
    probabilities = (sums + SMOOTHING) / (sums + SMOOTHING).sum(dim=-1, keepdim=True)
    if symmetric:
        mean = (probabilities[:, mesh.negative] + probabilities[:, mesh.positive]) / 2
        probabilities[:, mesh.negative] = mean
        probabilities[:, mesh.positive] = mean
    return probabilities


def part_overlap(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean soft intersection over union of the parts that the target shows.

    Args:
        predicted: (..., K, h, w) in [0, 1].
        target: (..., K, h, w) in [0, 1].

    Returns:
        (...), 0 where the target shows nothing at all.
    """
    mass = target.sum(dim=(-2, -1))
    smaller = torch.minimum(predicted, target).sum(dim=(-2, -1))
    larger = predicted.sum(dim=(-2, -1)) + mass - smaller
    shown = mass > LEAST_MASS
    ratio = smaller / (larger + 1e-6) * shown
    return ratio.sum(dim=-1) / shown.sum(dim=-1).clamp(min=1)


def mask_overlap(coverage: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union (...) of two masks (..., h, w), both cut at 0.5."""
    a, b = coverage > 0.5, masks > 0.5
    return (a & b).sum(dim=(-2, -1)) / ((a | b).sum(dim=(-2, -1)) + 1e-6)


@torch.no_grad()
def compare(
    model: SemanticModel, pose: Pose, choice: Tensor, targets: Targets
) -> tuple[Tensor, Tensor]:
    """Compares B rendered poses with their targets.

    Where a photograph shows no part, only the object, its parts cannot be compared: the overlap of
    the masks takes their place.

    Args:
        model: templates and part probabilities.
        pose: B poses.
        choice: (B,) template of each.
        targets: B targets, or one for all.

    Returns:
        Overlap of the masks (B,) and mean overlap of the parts (B,).
    """
    raster = model.render(pose, choice, targets.masks.shape[-1], soft=False)
    assert raster.attributes is not None
    iou = mask_overlap(raster.coverage[:, 0], targets.masks)
    shows_parts = targets.parts[:, 1:].sum(dim=(1, 2, 3)) > LEAST_MASS
    overlap = part_overlap(raster.attributes, targets.parts)
    overlap = targets.trust * overlap + (1 - targets.trust) * iou
    return iou, torch.where(shows_parts, overlap, iou)


def refine(
    model: SemanticModel,
    parameters: Tensor,
    choice: Tensor,
    targets: Targets,
    prior: ViewPrior,
    steps: int,
) -> Tensor:
    """Moves B poses so that silhouette and parts fit better.

    Args:
        model: templates and part probabilities.
        parameters: (B, 8) poses.
        choice: (B,) template of each.
        targets: B targets.
        prior: what is expected of the rotations.
        steps: number of steps; the learning rate falls linearly.

    Returns:
        (B, 8) poses.
    """
    optimizer = FullMatrixAdam(parameters)
    size = targets.masks.shape[-1]
    for step in range(steps):
        optimizer.lr = LEARNING_RATE * (1 - step / steps)
        parameters = parameters.detach().requires_grad_()
        pose = unpack(parameters)
        raster = model.render(pose, choice, size, soft=True)
        assert raster.alpha is not None
        assert raster.attributes is not None
        error = (raster.alpha[:, 0] - targets.masks).square().mean(dim=(1, 2))
        error = error + (raster.attributes - targets.parts).square().sum(dim=1).mean(dim=(1, 2))
        error = with_prior(error, pose.rotation, prior)
        (gradient,) = torch.autograd.grad(error.sum() / GRADIENT_SCALE, parameters)
        parameters = constrain(optimizer.step(parameters, gradient))
    return parameters.detach()
