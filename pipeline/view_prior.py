"""What is known about a pose before looking at the image: `data.definitions.VIEW_PRIORS`."""

import torch
from torch import Tensor

from data.definitions import ViewPrior
from rendering import quaternion

LEAST_DENSITY = -10.0  # logarithm; photographs of any view exist


def log_prior(rotation: Tensor, prior: ViewPrior) -> Tensor:
    """Logarithm of the density (...) of rotations (..., 4), 0 at the most for a pitch of 0.

    The rotation is a camera's view of an object that has lifted its head: the pitch is integrated out.
    """
    deviations = torch.linspace(-2, 2, 9).to(rotation)
    pitch = prior.pitch + prior.pitch_spread * deviations
    lateral = rotation.new_tensor([-1.0, 0.0, 0.0]).expand(len(pitch), 3)
    lowered = quaternion.from_axis_angle(lateral, -pitch)
    _, elevation, roll = quaternion.to_view(quaternion.multiply(rotation[..., None, :], lowered))
    energy = ((elevation - prior.elevation) / prior.elevation_spread).square()
    energy = energy + (roll / prior.roll_spread).square()
    weights = torch.softmax(-deviations.square() / 2, dim=0).log()
    density = torch.logsumexp(weights - energy / 2, dim=-1)
    return torch.logaddexp(density, density.new_tensor(LEAST_DENSITY))
