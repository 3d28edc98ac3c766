"""A case of a constant, and the small collections that several cases look at."""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from data.definitions import ViewPrior
from geometry import quaternion
from geometry.camera import Pose
from pipeline.poses.candidates import Candidates, Scored, rank

Quantity = Callable[..., float]

# Module, constant, what depends on it, and its value
Case = tuple[ModuleType, str, Quantity, float]

LEVEL = ViewPrior(5.0, 3.0, 2.0, 0.0, 0.0)


def near(*azimuths: float) -> Candidates:
    """Returns candidates (1, H) of level views."""
    zero = torch.zeros(len(azimuths))
    rotation = quaternion.from_view(zero + torch.tensor(azimuths), zero, zero)[None]
    ones = torch.ones(1, len(azimuths), 1)
    pose = Pose(ones, ones.expand(-1, -1, 2), rotation, ones)
    return Candidates(pose, torch.zeros(1, len(azimuths), dtype=torch.int64))


def equal(*azimuths: float) -> Scored:
    some = near(*azimuths)
    zero = torch.zeros(1, len(azimuths))
    return rank(some, zero, zero + 1, zero)


def posterior_mean(penalize: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Fits the mean of measurements 1, whose variance is 2, under a normal distribution around 0.

    The penalty is that of a parameter whose energy is half its square.
    """
    mean = torch.ones((), dtype=torch.float64)
    for _ in range(200):
        mean = mean.detach().requires_grad_()
        error = (mean - 1).square() + 2
        (slope,) = torch.autograd.grad(penalize(error[None], mean).sum(), mean)
        mean = mean - 0.2 * slope
    return mean.item()
