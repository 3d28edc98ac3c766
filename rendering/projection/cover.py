"""How well points cover a mask, without a grid of cells: all lie inside, and keep away from each other.

After Han et al. 2020, "DRWR: A Differentiable Renderer without Rendering". Positions are in pixels of
an image of side 32, whatever the size of the mask.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from geometry.distances import hard_iou
from rendering.projection.volume import gaussian_band

SIDE = 32  # of the image whose pixels are the unit of length
REACH = 5.0  # squared pixels, over which points repel each other
RADII = (1.0, 2.0, 3.0, 4.0, 5.0)  # of the rings on which points ask how deep inside they are
DIRECTIONS = 8  # on each ring


def inside(points: Tensor, masks: Tensor) -> Tensor:
    """Returns the values (B, N) of images (B, h, h) at points (B, N, 2) on the screen, x right and y up.

    Bilinear between the centers of pixels, 0 outside of the image.
    """
    grid = (points * points.new_tensor([1.0, -1.0]))[:, None]
    return functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0, 0]


def repulsion(points: Tensor, masks: Tensor) -> Tensor:
    """Returns how close together points (B, N, 2) are inside of masks (B, h, h), (B,).

    The mean over all pairs of M(c_i) M(c_j) exp(-d_ij^2 / 5 + ring_i - 1), times the area of the mask over
    5 pi: 1 for points that fill a large mask evenly, more for those that crowd. ring_i is the mean of the
    mask on 5 rings around a point. Gradients reach the distances alone, or points would flee from
    the mask.
    """
    area = masks.mean(dim=(1, 2)) * SIDE**2
    with torch.no_grad():
        member = inside(points, masks)
        pressure = member * torch.exp(depth(points, masks) - 1)
    # Squared distances of all pairs, then sums over both
    pixels = points * (SIDE / 2)
    squares = pixels.square().sum(dim=-1)
    product = pixels @ pixels.transpose(1, 2)
    near = torch.exp((2 * product - squares[:, :, None] - squares[:, None]) / REACH)
    pairs = (pressure[:, None] @ near @ member[..., None])[:, 0, 0]
    return pairs / points.shape[1] ** 2 * area / (math.pi * REACH)


def depth(points: Tensor, masks: Tensor) -> Tensor:
    """Returns the mean (B, N) of masks (B, h, h) on the rings around points (B, N, 2): 1 deep inside."""
    angle = torch.arange(DIRECTIONS, device=points.device) * (2 * math.pi / DIRECTIONS)
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1).to(points)
    rings = circle * points.new_tensor(RADII)[:, None, None] * (2 / SIDE)
    around = points[:, :, None] + rings.flatten(0, 1)
    return inside(around.flatten(1, 2), masks).view(*points.shape[:2], -1).mean(dim=2)


def coverage(points: Tensor, masks: Tensor) -> Tensor:
    """Returns the overlap (B,) of masks (B, h, h) with where points (B, N, 2) are dense.

    That is, at least half as dense as points that fill the mask evenly.
    """
    size, count = masks.shape[-1], points.shape[1]
    # Points in each pixel, spread a little
    place = ((points * points.new_tensor([1.0, -1.0]) + 1) * (size / 2)).floor().long()
    seen = ((place >= 0) & (place < size)).all(dim=-1)
    first = torch.arange(len(points), device=points.device)[:, None] * size**2
    pixel = first + place[..., 1].clamp(0, size - 1) * size + place[..., 0].clamp(0, size - 1)
    density = points.new_zeros(len(points) * size**2)
    density.index_add_(0, pixel.flatten(), seen.to(points).flatten())
    band = gaussian_band(size, 1.0).to(points)
    density = band @ density.view(-1, size, size) @ band
    even = count / masks.sum(dim=(1, 2)).clamp(min=1)
    return hard_iou(density / even[:, None, None], masks)


def cover_errors(
    points: Tensor, masks: Tensor, sigma: float, spread: float
) -> tuple[Tensor, Tensor]:
    """Returns the errors (B,) of points (B, N, 2) with masks (B, h, h), and the overlaps (B,).

    The error is the share of the points outside of the mask, which is smoothed to guide them, plus their
    `repulsion`, times `spread`.

    Args:
        points: screen space.
        masks: in [0, 1].
        sigma: of the Gaussian, in pixels of an image of side 32.
        spread: weight of the repulsion.
    """
    size = masks.shape[-1]
    band = gaussian_band(size, sigma * size / SIDE).to(masks)
    smooth = band @ masks @ band
    error = (1 - inside(points, smooth)).mean(dim=1) + spread * repulsion(points, masks)
    return error, coverage(points.detach(), masks)
