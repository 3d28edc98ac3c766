"""Fits the shapes of objects to their masks, with their poses.

A shape is a template plus coefficients times modes of unit spread. The error of a fit is the mean squared
difference of soft silhouette and mask plus the distances of `thin_parts`, under the prior of the
coefficients and one that keeps the rotation: otherwise an object would turn where its shape is unusual.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import VECTOR_SIZE, from_vector, project
from geometry.shape_modes import deform
from models.optimizers import FullMatrixAdam
from pipeline.poses.fitting import constrain
from pipeline.poses.shapes.thin_parts import Targets, distances
from rendering.rasterizer import silhouette_loss

FIRST_SHARPNESS = 5000.0  # soft silhouettes are larger by .4 pixels at first
LAST_SHARPNESS = 70000.0  # and by .1 at last
RATE = 0.05  # of the first step; falls linearly
# Spreads of a coefficient in a unit of the parameters: poses are fitted already, shapes are not
STRIDE = 8.0
# A leg, 2 % of the image, that misses the mask's by its own width of .06 has distances of 1e-4 and errors of
# pixels of .02: with this weight, distances decide only where pixels do not
THIN_PARTS = 10.0
# Degrees that a rotation may err: parts, colors and features chose it, which are not looked at here
TURN = 2.0
NOISE = 2 / 64  # an outline is worth 64 measurements: 2 / 64, variance = current residual


class Family(NamedTuple):
    """Shapes of a template.

    Attributes:
        mean: (V, 3) object space.
        modes: (M, V, 3) displacements of unit spread.
        faces: (F, 3).
    """

    mean: Tensor
    modes: Tensor
    faces: Tensor

    def vertices(self, coefficients: Tensor) -> Tensor:
        """Returns the shapes (B, V, 3) of coefficients (B, M)."""
        count = len(coefficients)
        return deform(
            self.mean.expand(count, -1, -1), coefficients, self.modes.expand(count, -1, -1, -1)
        )


class Fit(NamedTuple):
    """Poses (B, 8) as vectors, and coefficients (B, M) of the modes."""

    vectors: Tensor
    coefficients: Tensor


def fit_shapes(family: Family, targets: Targets, start: Fit, steps: int) -> Fit:
    """Moves poses and coefficients so that B objects fit their masks better.

    Args:
        family: of all objects.
        targets: B masks.
        start: where to begin; rotations stay near theirs.
        steps: number of steps.
    """
    rotation = from_vector(start.vectors).rotation
    parameters = torch.cat([start.vectors, start.coefficients / STRIDE], dim=1)
    optimizer = FullMatrixAdam(parameters)
    for step in range(steps):
        # Edges become sharper from step to step
        sharpness = sharpness_at(step / max(steps - 1, 1))
        parameters = parameters.detach().requires_grad_()
        pose, coefficients = _split(parameters)
        error = fit_error(family, targets, Fit(pose, coefficients), sharpness)
        error = with_energy(error, _energy(pose, coefficients, rotation))
        (gradient,) = torch.autograd.grad(error.sum(), parameters)
        optimizer.lr = RATE * (1 - step / steps)
        parameters = constrain(optimizer.step(parameters, gradient))
    return Fit(*_split(parameters.detach()))


def sharpness_at(progress: float) -> float:
    """Returns the sharpness of silhouettes after a share of the steps, growing exponentially."""
    return FIRST_SHARPNESS * (LAST_SHARPNESS / FIRST_SHARPNESS) ** progress


def with_energy(error: Tensor, energy: Tensor) -> Tensor:
    """Adds the prior to mean squared errors (B,), given the negative logarithm (B,) of its density."""
    return error + NOISE * error.detach() * energy


def fit_error(family: Family, targets: Targets, fit: Fit, sharpness: float) -> Tensor:
    """Returns how far B fitted objects are from their masks (B,)."""
    screen = project(family.vertices(fit.coefficients), from_vector(fit.vectors))
    index = torch.arange(len(screen), device=screen.device)
    error, _ = silhouette_loss(screen, family.faces, targets.masks, index, sharpness=sharpness)
    return error + THIN_PARTS * distances(screen, targets)


def _split(parameters: Tensor) -> tuple[Tensor, Tensor]:
    return parameters[:, :VECTOR_SIZE], STRIDE * parameters[:, VECTOR_SIZE:]


def _energy(vectors: Tensor, coefficients: Tensor, rotation: Tensor) -> Tensor:
    """Returns the negative logarithm (B,) of the prior of shapes, and of turns from rotations (B, 4)."""
    # 1 - <p, q>^2 is the squared sine of half the angle
    turned = 4 * quaternion.squared_distance(from_vector(vectors).rotation, rotation)
    turn = turned / math.radians(TURN) ** 2
    # One after the other, since sums over few numbers depend on the batch
    for coefficient in coefficients.unbind(1):
        turn = turn + coefficient.square()
    return turn / 2
