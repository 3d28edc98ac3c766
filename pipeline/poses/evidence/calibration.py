"""How sure scores are: one temperature for all images, from how well two kinds of evidence agree.

Densities of overlaps and of textures are known but for the number of independent measurements behind
them, so that their logarithms are right up to a factor. Two kinds that do not know of each other show
it: if both are as sure as they say, poses drawn by the one and by the other lie together as often as
they predict. The temperature makes that most likely, over all images.
"""

import math

import torch
from torch import Tensor

from geometry import quaternion
from pipeline.poses.candidates import SAME_POSE, Candidates

COLDEST, HOTTEST, STEPS = 0.25, 4.0, 33  # temperatures that are compared
SPREAD = 0.7  # standard deviation of their logarithm before any image has been looked at
LEAST_AGREEMENT = 1e-3  # probability that poses lie together by chance
_CHUNK = 256  # images at a time, where pairs of candidates are compared


def temperature(first: Tensor, second: Tensor, candidates: Candidates) -> float:
    """Returns what the scores of the candidates are to be divided by.

    Args:
        first: (N, H) scores by one kind of evidence; -inf for candidates that are left out.
        second: (N, H) scores by another one, constant where it says nothing of an image.
        candidates: (N, H).
    """
    # Images of which both say something
    shown = first.isfinite()
    high, low = second.masked_fill(~shown, -torch.inf), second.masked_fill(~shown, torch.inf)
    speaks = high.amax(dim=1) > low.amin(dim=1)
    rows = speaks.nonzero()[:, 0]
    # The likeliest temperature of a few
    grid = torch.logspace(math.log10(COLDEST), math.log10(HOTTEST), STEPS, dtype=torch.float64)
    likelihood = -(grid.log() / SPREAD).square() / 2
    for some in rows.split(_CHUNK):
        rotation = candidates.pose.rotation[some]
        near = quaternion.angle_between(rotation[:, :, None], rotation[:, None]) < SAME_POSE
        likelihood += log_agreement(first[some], high[some], near, grid)
    return grid[likelihood.argmax()].item()


def log_agreement(first: Tensor, second: Tensor, near: Tensor, grid: Tensor) -> Tensor:
    """Returns how likely it is that poses drawn by scores (N, H) lie near each other (N, H, H).

    Args:
        first: scores by one kind of evidence.
        second: scores by another one.
        near: which candidates lie near each other.
        grid: (K,) temperatures.

    Returns:
        (K,) sums of the logarithm over all images.
    """
    found = []
    for value in grid:
        chances = (torch.softmax(scores.double() / value, dim=1) for scores in (first, second))
        agreement = torch.einsum("ni,nij,nj->n", next(chances), near.double(), next(chances))
        found.append((agreement + LEAST_AGREEMENT).log().sum())
    return torch.stack(found)
