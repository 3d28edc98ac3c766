"""Photographs painted onto the surface of the templates, and what is kept of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh

RINGS_PER_CELL, SEGMENTS_PER_CELL = 2, 2  # of the sphere
LEVELS = 255  # to which textures are rounded on disk


class Textures(NamedTuple):
    """Values on the surface, left and right taken together.

    Attributes:
        values: (..., C, D) mean value of a cell in [-1, 1], such as its color; 0 if unseen.
        weights: (..., C) how much of the cell was seen, in [0, 1].
    """

    values: Tensor
    weights: Tensor

    def select(self, index: Tensor | tuple[Tensor, ...]) -> "Textures":
        """Returns the textures at an index of the leading axes."""
        return Textures(self.values[index], self.weights[index])

    def to_bytes(self) -> Tensor:
        """Rounds to bytes (..., C, D + 1), the weight last."""
        # Values of [-1, 1] and weights of [0, 1] on the same scale
        levels = torch.cat([(self.values + 1) / 2, self.weights[..., None]], dim=-1) * LEVELS
        return levels.round().clamp(0, LEVELS).to(torch.uint8)


def from_bytes(stored: Tensor) -> Textures:
    """Returns the textures that were rounded to bytes (..., C, D + 1)."""
    levels = stored.float() / LEVELS
    weights = levels[..., -1]
    return Textures((2 * levels[..., :-1] - 1) * (weights[..., None] > 0), weights)


def surface_cells(mesh: SphereMesh) -> Tensor:
    """Returns the cell (V,) of each vertex; mirrored vertices share one."""
    rings, segments = mesh.grid.shape
    cells = torch.zeros(len(mesh.vertices), dtype=torch.int64, device=mesh.faces.device)
    # Blocks of rings and segments
    ring = torch.arange(rings, device=cells.device) // RINGS_PER_CELL
    segment = torch.arange(segments, device=cells.device) // SEGMENTS_PER_CELL
    cells[mesh.grid] = ring[:, None] * (int(segment[-1]) + 1) + segment
    # Poles join a neighbor; left and right are one
    cells[mesh.poles] = cells[mesh.grid[[0, -1], 0]]
    cells[mesh.negative] = cells[mesh.positive]
    return torch.unique(cells, return_inverse=True)[1]


def to_textures(sums: Tensor, cells: Tensor) -> Textures:
    """Gathers sums per vertex in cells.

    Args:
        sums: (B, V, D + 1) value times weight, and weight, added up over pixels.
        cells: (V,).
    """
    count = int(cells.max()) + 1
    # Add up the vertices of each cell
    total = sums.new_zeros(len(sums), count, sums.shape[-1]).index_add_(1, cells, sums)
    weights = total[..., -1]
    values = total[..., :-1] / weights.clamp(min=1e-3)[..., None]
    return Textures(values.clamp(-1, 1), weights.clamp(max=1))
