"""A distance between silhouettes and masks that also tells where a thin part has to go.

A leg and the leg of the mask beside it do not overlap, however close they are: the difference of their
pixels has no slope. Distances have one.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor
from torch.nn import functional

OUTLINE_POINTS = 64  # of a mask


class Targets(NamedTuple):
    """Masks, and what distances to them are measured with.

    Attributes:
        masks: (B, h, h) in [0, 1].
        distance: (B, h, h) distance of every pixel to the mask, in units of the screen.
        outline: (B, P, 2) points on the border of the mask, screen space.
    """

    masks: Tensor
    distance: Tensor
    outline: Tensor

    def select(self, index: Tensor | slice) -> "Targets":
        """Returns the targets at an index."""
        return Targets(*(member[index] for member in self))


def make_targets(masks: Tensor) -> Targets:
    """Measures masks (B, h, h)."""
    size = masks.shape[-1]
    distance, outline = [], []
    for mask in (masks > 0.5).cpu().numpy():
        # An object that is too small to be seen may be anywhere
        mask = mask | (not mask.any())
        distance.append(np.asarray(distance_transform_edt(~mask)) * 2 / size)
        border = np.argwhere(mask & np.logical_not(binary_erosion(mask)))
        chosen = border[np.linspace(0, len(border) - 1, OUTLINE_POINTS).round().astype(int)]
        row, column = (chosen.T + 0.5) * 2 / size - 1
        outline.append(np.stack([column, -row], axis=1))
    tensors = (torch.from_numpy(np.stack(some)).to(masks) for some in (distance, outline))
    return Targets(masks, *tensors)


def distances(screen: Tensor, targets: Targets) -> Tensor:
    """Returns the mean squared distances (B,) of vertices (B, V, 3) to masks, and of outlines to vertices."""
    # Vertices beside the mask; row 0 of an image is y = 1
    planar = screen[..., :2]
    grid = (planar * planar.new_tensor([1.0, -1.0]))[:, None]
    outside = functional.grid_sample(
        targets.distance[:, None], grid, padding_mode="border", align_corners=False
    )[:, 0, 0]
    # Points of the outline that no vertex is near; image by image, so that the batch does not matter
    with torch.no_grad():
        pairs = zip(targets.outline, planar, strict=True)
        nearest = torch.stack([torch.cdist(*pair).min(dim=1).indices for pair in pairs])
    reached = planar.gather(1, nearest[..., None].expand(-1, -1, 2))
    missed = (targets.outline - reached).square().mean(dim=1)
    return outside.square().mean(dim=1) + missed[:, 0] + missed[:, 1]
