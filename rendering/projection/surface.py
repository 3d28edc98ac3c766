"""Points on meshes: fixed places on fixed faces, so that gradients reach the vertices."""

from typing import NamedTuple

import torch
from torch import Tensor

DEPTH = 0.9  # largest distance of a surface from the middle of the grid, along the rays


class Draws(NamedTuple):
    """N places on each of T meshes with the same faces.

    Attributes:
        corners: (T, N, 3) int64, the vertices of the face of each place.
        weights: (T, N, 3) barycentric weights of these.
    """

    corners: Tensor
    weights: Tensor

    def select(self, index: Tensor) -> "Draws":
        """Returns the places (T, n) at some of the N positions."""
        return Draws(self.corners[:, index], self.weights[:, index])


def draw(vertices: Tensor, faces: Tensor, count: int, generator: torch.Generator) -> Draws:
    """Draws places on meshes evenly by area, in random order, so that any of them are even as well.

    Args:
        vertices: (T, V, 3).
        faces: (F, 3).
        count: N, places on each mesh.
        generator: of random numbers, on the CPU.
    """
    # One place in each of N equal shares of the area, in the order of the faces, then shuffled
    a, b, c = vertices.detach().double().cpu()[:, faces.cpu()].unbind(2)
    ends = torch.linalg.cross(b - a, c - a).norm(dim=-1).cumsum(dim=1)
    shares = torch.arange(count) + torch.rand(len(vertices), count, generator=generator).double()
    chosen = torch.searchsorted(ends, shares / count * ends[:, -1:]).clamp(max=len(faces) - 1)
    order = torch.rand(len(vertices), count, generator=generator).argsort(dim=1)
    # Uniform in a parallelogram, folded at its diagonal into the triangle
    u, v = torch.rand(2, len(vertices), count, generator=generator)
    folded = u + v > 1
    u, v = torch.where(folded, 1 - u, u), torch.where(folded, 1 - v, v)
    weights = torch.stack([1 - u - v, u, v], dim=-1).to(vertices)
    return Draws(faces[chosen.gather(1, order).to(faces.device)], weights)


def place(draws: Draws, vertices: Tensor, shape: Tensor) -> Tensor:
    """Returns the points (B, N, 3) of meshes (B, V, 3), which have the places of the meshes `shape` (B,)."""
    count, size = vertices.shape[:2]
    rows = draws.corners[shape] + size * torch.arange(count, device=shape.device)[:, None, None]
    corners = vertices.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, 3)
    return (corners * draws.weights[shape][..., None]).sum(dim=2)


def squeeze_depth(points: Tensor) -> Tensor:
    """Moves points (B, N, 3) along the rays into the grid; deep objects become flatter.

    Silhouettes say nothing of depth: it only keeps front and back in different cells.
    """
    depth = points.detach()[..., 2]
    low, high = depth.amin(dim=1, keepdim=True), depth.amax(dim=1, keepdim=True)
    factor = (2 * DEPTH / (high - low).clamp(min=1e-6)).clamp(max=1)
    z = (points[..., 2] - (low + high) / 2) * factor
    return torch.cat([points[..., :2], z[..., None]], dim=-1)
