"""How differently two images look: by the features of a pretrained network, or by their gradients."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.features import FeatureNetwork

SCALES = 4  # of the gradients, each half as fine as the one before

# Compares premultiplied colors (B, 3, h, w) in [-1, 1] with others, as a scalar
PerceptualDistance = Callable[[Tensor, Tensor], Tensor]


def feature_distance(network: FeatureNetwork) -> PerceptualDistance:
    """Returns the sum over the maps of a network of 1 - the mean cosine between two images' features.

    Mechanism of Zhang et al. 2018 (https://arxiv.org/abs/1801.03924), without learned weights.
    """

    def distance(first: Tensor, second: Tensor) -> Tensor:
        maps = network.levels(torch.cat([first, second]))
        terms = [1 - F.cosine_similarity(*x.chunk(2), dim=1).mean() for x in maps]
        return torch.stack(terms).sum()

    return distance


def gradient_distance(first: Tensor, second: Tensor) -> Tensor:
    """Returns the mean absolute difference of the slopes of two images, summed over scales and axes.

    Needs no pretrained network. Each scale averages four pixels of the one before.
    """
    difference = first - second
    total = difference.new_zeros(())
    for _ in range(SCALES):
        if min(difference.shape[-2:]) < 2:
            break
        total = total + sum(difference.diff(dim=axis).abs().mean() for axis in (-2, -1))
        difference = F.avg_pool2d(difference, 2)
    return total
