"""What the forms of masks say: how much there is to explain in them, and which of their parts are thin."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import ConvexHull
from torch import Tensor

THIN = 0.5  # of the largest radius in a mask: what no disk of that size reaches, such as legs
EMPHASIS = 2.0  # a thin part is kept where a third of the masks have it, instead of half


def solidity(masks: Tensor) -> Tensor:
    """Returns the share (N,) of their convex hulls that masks (N, h, h) fill.

    It is about the overlap that a shape without limbs reaches.
    """
    return torch.tensor([_solidity(mask.numpy() > 0.5) for mask in masks], dtype=masks.dtype)


def emphasize_thin(masks: Tensor) -> Tensor:
    """Raises masks (N, h, h) where they are thin, so that missing a pixel costs `EMPHASIS` times as much.

    With a target t, the squared error of an empty pixel exceeds that of a covered one by 2t - 1.
    """
    thin = torch.stack([torch.from_numpy(thin_parts(mask.numpy() > 0.5)) for mask in masks])
    return masks * (1 + thin * (EMPHASIS - 1) / 2)


def thin_parts(mask: np.ndarray) -> np.ndarray:
    """Returns what an opening by a disk takes away from a mask (h, w): bool."""
    # Pixels outside the picture are background
    depth = np.asarray(distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1]
    radius = THIN * depth.max()
    core = depth > radius
    return mask & (np.asarray(distance_transform_edt(~core)) > radius)


def _solidity(mask: np.ndarray) -> float:
    # The hull of the corners of all pixels, or a row of pixels would have none
    pixels = np.argwhere(mask)
    if not len(pixels):
        return 1.0
    corners = (pixels[:, None] + [[0, 0], [0, 1], [1, 0], [1, 1]]).reshape(-1, 2)
    return len(pixels) / ConvexHull(corners).volume
