"""What is known about a pose before looking at the image: `data.definitions.VIEW_PRIORS`."""

import math

import torch
from torch import Tensor

from data.definitions import ViewPrior
from geometry import quaternion

LEAST_DENSITY = math.exp(-10)  # photographs of any view exist
GROUP = 64  # poses computed at a time
NOISE = 0.1  # effective sample size 20: 2 / 20, variance = current residual


def log_prior(rotation: Tensor, prior: ViewPrior) -> Tensor:
    """Logarithm of the density (...) of rotations (..., 4), 0 at the most for a pitch of 0.

    The rotation is a camera's view of an object that has lifted its head: the pitch is integrated out.
    """
    # One row per rotation
    rows = rotation.reshape(-1, 4)
    # Whole groups, and sums without reductions: PyTorch rounds differently at the end of a tensor
    missing = rows.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(-len(rows) % GROUP, -1)
    density = _log_prior(torch.cat([rows, missing]), prior)
    return density[: len(rows)].reshape(rotation.shape[:-1])


def _log_prior(rotation: Tensor, prior: ViewPrior) -> Tensor:
    """Does the work of `log_prior` for rotations (N, 4)."""
    deviations = torch.linspace(-2, 2, 9).to(rotation)
    pitch = torch.deg2rad(prior.pitch + prior.pitch_spread * deviations)
    # The vertical (0, -sin, cos), in the frame of an object with its head up
    _, forward, upright = quaternion.to_matrix(rotation).permute(2, 1, 0)  # (3, N) each
    sine, cosine = pitch.sin()[:, None, None], pitch.cos()[:, None, None]
    x, y, z = (cosine * upright - sine * forward).unbind(1)  # (9, N) each
    elevation = torch.rad2deg(torch.atan2(-z, (x * x + y * y + 1e-9).sqrt()))
    roll = torch.rad2deg(torch.atan2(x, -y))
    # Normal in elevation and roll, averaged over the pitch
    energy = ((elevation - prior.elevation) / prior.elevation_spread).square()
    energy = energy + (roll / prior.roll_spread).square()
    weights = torch.softmax(-deviations.square() / 2, dim=0)
    return _sum(weights[:, None] * torch.exp(-energy / 2), LEAST_DENSITY).log()


def _sum(rows: Tensor, start: float) -> Tensor:
    """Adds up the rows (9, N) one after the other."""
    total = torch.full_like(rows[0], start)
    for row in rows:
        total = total + row
    return total


def with_prior(error: Tensor, rotation: Tensor, prior: ViewPrior) -> Tensor:
    """Adds the prior penalty of rotations (B, 4) to mean squared errors (B,)."""
    return error - NOISE * error.detach() * log_prior(rotation, prior)
