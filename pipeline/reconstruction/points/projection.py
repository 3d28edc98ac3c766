"""Points before the camera of renderings, and how well their silhouettes explain masks."""

from typing import NamedTuple

import torch
from torch import Tensor

from data.multiview.cameras import DISTANCE, screen_scale
from geometry import quaternion
from models.point_clouds import Cloud
from rendering.projection.losses import volume_loss


class Explained(NamedTuple):
    """How well views are explained.

    Attributes:
        loss: (M,) half the sum of squared errors over the pixels, of the best candidate.
        iou: (M,) overlap of silhouette and mask.
        rotation: (M, 4) the best candidates, without gradient.
        best: (M,) their numbers.
    """

    loss: Tensor
    iou: Tensor
    rotation: Tensor
    best: Tensor


def to_screen(points: Tensor, rotation: Tensor) -> Tensor:
    """Places points (B, N, 3) before the camera by rotations (B, 4) to its frame.

    Returns:
        (B, N, 3) screen space: x right, y up, z towards the viewer, the cube (-1/2, 1/2)^3 in [-1, 1].
    """
    x, y, z = quaternion.rotate(rotation, points).unbind(-1)
    factor = screen_scale(DISTANCE) / (1 + z / DISTANCE)
    return torch.stack([x * factor, -y * factor, -2 * z], dim=-1)


def explain(
    cloud: Cloud, owner: Tensor, candidates: Tensor, masks: Tensor, size: int, sigma: float
) -> Explained:
    """Compares views with the silhouettes of points under each candidate; the best one counts.

    Args:
        cloud: B clouds.
        owner: (M,) int64, the cloud that each view shows.
        candidates: (M, K, 4) rotations.
        masks: (M, h, h) of the views.
        size: cells along each edge of the grid.
        sigma: of its Gaussian, in cells.
    """
    number, count = candidates.shape[:2]
    views = torch.arange(number, device=owner.device)
    best = torch.zeros_like(views)
    # All candidates without gradients, then the best ones with them: the same as the minimum of all
    if count > 1:
        with torch.no_grad():
            repeated = owner.repeat_interleave(count)
            screen = to_screen(cloud.points[repeated], candidates.flatten(0, 1))
            index, scale = views.repeat_interleave(count), cloud.scale[repeated]
            errors, _ = volume_loss(screen, masks, index, size=size, sigma=sigma, scale=scale)
            best = errors.view(number, count).argmin(dim=1)
    chosen = candidates[views, best]
    screen = to_screen(cloud.points[owner], chosen)
    error, iou = volume_loss(screen, masks, views, size=size, sigma=sigma, scale=cloud.scale[owner])
    return Explained(error * (size**2 / 2), iou, chosen.detach(), best)
