"""Silhouettes of points without rendering: points fill a grid, and rays end where it is full.

Insafutdinov and Dosovitskiy 2018, "Unsupervised Learning of Shape and Pose with Differentiable Point
Clouds". Points lie in screen space: x right, y up, z towards the viewer. The grid fills the cube
[-1, 1]^3, so that its columns are the pixels of an image of that size. Everything is tensor
arithmetic, the same on all devices.
"""

import torch
from torch import Tensor
from torch.nn import functional

TAPS = 21  # of the Gaussian
_NEGLIGIBLE = 1e-12  # weight of the Gaussian
_LEAST = 1e-5  # occupancy of an empty cell, and what a full one lacks


def splat(points: Tensor, size: int) -> Tensor:
    """Spreads each point over the 8 cells around it, by trilinear weights.

    Args:
        points: (B, N, 3) screen space; those outside of [-1, 1]^3 are left out.
        size: G, cells along each edge.

    Returns:
        (B, G, G, G) mass of the cells, whose sum is the number of points inside: depth with the
        nearest cells first, rows from top to bottom, columns from left to right.

    Raises:
        ValueError: if the points do not have that shape.
        FloatingPointError: if they are not finite.
    """
    check_points(points)
    count = len(points)
    # From screen axes to positions among the centers of the cells, and the cell below
    inside = (points.detach().abs() <= 1).all(dim=-1).to(points.dtype)
    axes = points.flip(-1) * points.new_tensor([-1.0, -1.0, 1.0])
    position = ((axes + 1) * (size / 2) - 0.5).clamp(0, size - 1)
    below = position.detach().floor().clamp(max=size - 2)
    share = position - below
    k, i, j = below.long().unbind(-1)
    start = torch.arange(count, device=points.device)[:, None] * size
    first = ((start + k) * size + i) * size + j
    # One corner after the other, each with its product of weights
    volume = points.new_zeros(count * size**3)
    halves = torch.stack([1 - share, share])
    for corner in range(8):
        deep, low, right = corner >> 2, corner >> 1 & 1, corner & 1
        weight = halves[deep, ..., 0] * halves[low, ..., 1] * halves[right, ..., 2] * inside
        offset = (deep * size + low) * size + right
        volume.index_add_(0, (first + offset).flatten(), weight.flatten())
    return volume.view(count, size, size, size)


def check_points(points: Tensor) -> None:
    """Raises a ValueError if points are not (B, N, 3), a FloatingPointError if they are not finite."""
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(f"points: expected shape (B, N, 3), got {tuple(points.shape)}.")
    if not points.isfinite().all():
        raise FloatingPointError("points: expected finite positions.")


def smooth(volume: Tensor, sigma: float, taps: int = TAPS) -> Tensor:
    """Smooths volumes (B, G, G, G) by a Gaussian with a sum of 1; what leaves the grid is lost.

    Each axis is multiplied by a band matrix, which takes a tenth of the time of Fourier transforms on a
    CPU, and a fortieth of that of convolutions.

    Args:
        volume: to be smoothed.
        sigma: in cells, positive.
        taps: odd number of cells that the Gaussian reaches over.
    """
    band = gaussian_band(volume.shape[-1], sigma, taps).to(volume)
    # Columns, rows, and depth
    smoothed = band @ (volume @ band)
    return (band @ smoothed.flatten(2)).view_as(volume)


def gaussian_band(size: int, sigma: float, taps: int = TAPS) -> Tensor:
    """Returns the matrix (n, n) that smooths n cells by a Gaussian with a sum of 1, on the CPU."""
    # Weight of cell j at cell i, by their distance
    cells = torch.arange(max(size, taps), dtype=torch.float64)
    weights = torch.exp(-0.5 * (cells / sigma).square()) * (cells <= taps // 2)
    # Products of three smaller ones would be denormal numbers, which are slow
    weights = weights * (weights > _NEGLIGIBLE)
    weights = weights / (2 * weights.sum() - weights[0])
    return weights[(cells[:size, None] - cells[:size]).abs().long()]


def occupancy(points: Tensor, size: int, sigma: float, scale: Tensor | float = 1.0) -> Tensor:
    """Returns how full the cells (B, G, G, G) are: splatted, at most 1, smoothed, scaled, at most 1.

    Args:
        points: (B, N, 3) screen space.
        size: G, cells along each edge.
        sigma: of the Gaussian in cells.
        scale: factor on all occupancies, or (B,) one for each object.
    """
    smoothed = smooth(splat(points, size).clamp(max=1), sigma)
    factor = scale[:, None, None, None] if isinstance(scale, Tensor) else scale
    return (smoothed * factor).clamp(max=1)


def terminations(occupied: Tensor) -> Tensor:
    """Returns where the rays through the pixels end, (B, G + 1, G, G), the nearest cells first.

    A ray ends in cell k with probability o_k * prod_{j < k} (1 - o_j); the last entry is the probability
    that it passes all of them. Their sum is 1.

    Args:
        occupied: (B, G, G, G) occupancies o in [0, 1].
    """
    occupied = occupied.clamp(_LEAST, 1 - _LEAST)
    # Products as sums of logarithms, of the cells before each
    free = torch.log1p(-occupied).cumsum(dim=1)
    passed = functional.pad(free, (0, 0, 0, 0, 1, 0)).exp()
    return torch.cat([occupied * passed[:, :-1], passed[:, -1:]], dim=1)


def silhouette(occupied: Tensor) -> Tensor:
    """Returns the probabilities (B, G, G) that rays through cells (B, G, G, G) end: 1 - prod_k (1 - o_k)."""
    return 1 - torch.log1p(-occupied.clamp(_LEAST, 1 - _LEAST)).sum(dim=1).exp()
