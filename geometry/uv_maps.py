"""Maps on the UV sphere: wrapping around, mirror symmetry and poles.

A map has row 0 at v = 1 (north pole) and wraps around in u. Texel centers lie at (i + 1/2) / width
horizontally, but the first and last row lie exactly on v = 1 and v = 0.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MESH_RESOLUTIONS = (32, 64)  # sides S of displacement maps, on spheres of S - 1 rings


def circular_pad(x: Tensor, columns: int) -> Tensor:
    """Pads maps (..., H, W) on both sides with the columns that follow around the sphere."""
    return _CircularPad.apply(x, columns)  # type: ignore[no-any-return]


class _CircularPad(torch.autograd.Function):
    """The padding, whose gradient autograd would put together from three maps of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, columns: int) -> Tensor:
        ctx.columns = columns
        return torch.cat([x[..., -columns:], x, x[..., :columns]], dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient, columns = gradients[0], ctx.columns
        inner = gradient[..., columns:-columns].clone()
        inner[..., -columns:] += gradient[..., :columns]
        inner[..., :columns] += gradient[..., -columns:]
        return inner, None


def symmetric_extension(half: Tensor) -> Tensor:
    """Completes the half x >= 0 (..., H, W/2) of a symmetric map to the full map (..., H, W)."""
    width = half.shape[-1]
    if width % 2:
        raise ValueError(f"half: expected an even width, got shape {tuple(half.shape)}.")
    # u = 1/4 and 3/4 are the mirror plane: each side of the half continues as its reflection
    reverse = half.flip(-1)
    return torch.cat([reverse[..., width // 2 :], half, reverse[..., : width // 2]], dim=-1)


def half_map(full: Tensor) -> Tensor:
    """Returns the half x >= 0, u in [1/4, 3/4], of full maps (..., H, W)."""
    width = full.shape[-1]
    return full[..., width // 4 : width - width // 4]


def fold(full: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Averages maps with their mirror images: what a photograph of one side tells of a symmetric map.

    Args:
        full: (B, C, H, W) maps.
        weights: (B, 1, H, W) how much each texel counts.

    Returns:
        The half x >= 0 of the weighted means (B, C, H, W/2), 0 where no weight is positive, and the
        larger of the two weights (B, 1, H, W/2).
    """
    mirrored, other = half_map(mirror_map(full)), half_map(mirror_map(weights))
    full, weights = half_map(full), half_map(weights)
    total = (weights + other).clamp(min=1e-12)
    return (full * weights + mirrored * other) / total, torch.maximum(weights, other)


def average_poles(half: Tensor) -> Tensor:
    """Replaces the first and last row of half maps (..., H, W), the poles, by their means."""
    top, bottom = half[..., :1, :], half[..., -1:, :]
    # All texels of a polar row are the same point
    means = [row.mean(-1, keepdim=True).expand_as(row) for row in (top, bottom)]
    return torch.cat([means[0], half[..., 1:-1, :], means[1]], dim=-2)


def double_map(half: Tensor) -> Tensor:
    """Interpolates half maps (B, C, H, W) to (B, C, 2 H, 2 W), without creases: bilinear, then by (1, 2, 1) / 4."""
    height, width = half.shape[-2:]
    # Rows lie on both ends of v, columns in the middle of their shares of u
    taller = F.interpolate(half, (2 * height, width), mode="bilinear", align_corners=True)
    wider = F.interpolate(taller, (2 * height, 2 * width), mode="bilinear", align_corners=False)
    for axis in (-2, -1):
        size = wider.shape[axis]
        ends = wider.narrow(axis, 0, 1), wider.narrow(axis, size - 1, 1)
        padded = torch.cat([ends[0], wider, ends[1]], dim=axis)
        wider = (padded.narrow(axis, 0, size) + 2 * wider + padded.narrow(axis, 2, size)) / 4
    return wider


def mirror_map(full: Tensor) -> Tensor:
    """Mirrors full maps (..., H, W) in x = 0; symmetric maps stay as they are."""
    return full.flip(-1).roll(full.shape[-1] // 2, dims=-1)
