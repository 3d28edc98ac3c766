"""What is known about a pose before looking at the image: `data.definitions.VIEW_PRIORS`."""

import torch
from torch import Tensor

from data.definitions import ViewPrior
from rendering import quaternion

LEAST_DENSITY = -10.0  # logarithm; photographs of any view exist
GROUP = 4  # divides the number of poses that are refined per image
NOISE = 0.1  # an image weighs as 20 measurements, whose noise is the error that is left


def log_prior(rotation: Tensor, prior: ViewPrior) -> Tensor:
    """Logarithm of the density (...) of rotations (..., 4), 0 at the most for a pitch of 0.

    The rotation is a camera's view of an object that has lifted its head: the pitch is integrated out.
    """
    deviations = torch.linspace(-2, 2, 9).to(rotation)
    pitch = torch.deg2rad(prior.pitch + prior.pitch_spread * deviations)
    # The vertical, in the frame of an object with its head up
    vertical = torch.stack([torch.zeros_like(pitch), -pitch.sin(), pitch.cos()], dim=-1)
    x, y, z = quaternion.rotate(rotation, vertical).unbind(-1)
    elevation = torch.rad2deg(torch.atan2(-z, (x * x + y * y + 1e-9).sqrt()))
    roll = torch.rad2deg(torch.atan2(x, -y))
    energy = ((elevation - prior.elevation) / prior.elevation_spread).square()
    energy = energy + (roll / prior.roll_spread).square()
    weights = torch.softmax(-deviations.square() / 2, dim=0).log()
    density = torch.logsumexp(weights - energy / 2, dim=-1)
    return torch.logaddexp(density, density.new_tensor(LEAST_DENSITY))


def with_prior(error: Tensor, rotation: Tensor, prior: ViewPrior) -> Tensor:
    """Adds to mean squared errors (B,) what the prior has against the rotations (B, 4).

    In groups of one size, since PyTorch rounds sums of differently shaped tensors differently.
    """
    density = torch.cat([log_prior(group, prior) for group in rotation.split(GROUP)])
    return error - NOISE * error.detach() * density
