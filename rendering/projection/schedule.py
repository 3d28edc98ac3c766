"""What changes while points are fitted to silhouettes: coarse and few at first, sharp and all at the end.

The constants are those of Insafutdinov and Dosovitskiy 2018.
"""

import math

import torch
from torch import Tensor

SIGMA = (3.0, 0.2)  # of the Gaussian at the first and the last step, in cells
SHARE = (0.07, 1.0)  # of the points that take part at the first and the last step


def sigma_at(progress: float) -> float:
    """Returns the width of the Gaussian in cells; progress runs from 0 to 1."""
    return _between(SIGMA, progress)


def share_at(progress: float) -> float:
    """Returns the share of the points that take part; progress runs from 0 to 1."""
    return _between(SHARE, progress)


def keep(num_points: int, share: float, generator: torch.Generator) -> Tensor:
    """Draws which points take part: ceil(share * N) different indices, in no order, on the CPU."""
    count = math.ceil(num_points * share)
    return torch.randperm(num_points, generator=generator)[:count]


def _between(ends: tuple[float, float], progress: float) -> float:
    first, last = ends
    return first + (last - first) * progress
