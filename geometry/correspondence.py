"""Points on the surface of meshes: found where an image shows them, placed where another one does."""

from typing import NamedTuple

import torch
from torch import Tensor

_SAME_PLACE = 1e-12  # squared screen units, far below a pixel


class SurfacePoints(NamedTuple):
    """Points on any of the meshes that share their faces.

    Attributes:
        face: (..., K) int64.
        weights: (..., K, 3) of the corners of the face, at least 0, with the sum 1.
    """

    face: Tensor
    weights: Tensor


def locate(points: Tensor, screen: Tensor, faces: Tensor) -> SurfacePoints:
    """Finds what a rendering of a mesh shows at some points of the screen.

    Where it shows nothing, it is the nearest point of the outline. Faces that are turned away from the
    viewer are never seen.

    Args:
        points: (K, 2) screen space, x right and y up.
        screen: (V, 3) vertices in screen space, z towards the viewer.
        faces: (F, 3) int64, counter-clockwise seen from outside.
    """
    corners = screen.double()[faces]  # (F, 3, 3)
    edges = corners.roll(-1, dims=1) - corners
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    front = torch.nonzero(area > 0)[:, 0]
    if not len(front):
        raise ValueError("screen: expected a mesh with faces towards the viewer, got none.")
    weights, distance = _nearest(points.double(), corners[front], edges[front])
    # Of the faces at the smallest distance, usually 0, the nearest to the viewer
    depth = torch.einsum("kfc,fc->kf", weights, corners[front, :, 2])
    tied = distance <= distance.amin(dim=1, keepdim=True) + _SAME_PLACE
    best = depth.masked_fill(~tied, -torch.inf).argmax(dim=1)
    rows = torch.arange(len(points), device=best.device)
    return SurfacePoints(front[best], weights[rows, best].to(screen.dtype))


def place(points: SurfacePoints, vertices: Tensor, faces: Tensor) -> Tensor:
    """Returns where points (..., K) lie on meshes (..., V, C): (..., K, C)."""
    index = (
        faces[points.face]
        .flatten(-2)[..., None]
        .expand(*points.face.shape[:-1], -1, vertices.shape[-1])
    )
    corners = vertices.gather(-2, index).unflatten(-2, (-1, 3))
    return (corners * points.weights[..., None]).sum(dim=-2)


def _nearest(points: Tensor, corners: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the point of each triangle that is nearest on the screen, and its squared distance.

    Args:
        points: (K, 2).
        corners: (F, 3, 3) counter-clockwise on the screen.
        edges: (F, 3, 3) from each corner to the next.

    Returns:
        Weights (K, F, 3) of the corners, and squared distances (K, F).
    """
    offset = points[:, None, None] - corners[..., :2]  # (K, F, 3, 2)
    along = edges[..., :2]
    # The nearest point of each edge, and the nearest of the three
    length = along.square().sum(-1).clamp(min=1e-30)
    share = ((offset * along).sum(-1) / length).clamp(0, 1)
    gap = (offset - share[..., None] * along).square().sum(-1)
    distance, edge = gap.min(dim=-1)
    share = share.gather(-1, edge[..., None])
    weights = torch.zeros_like(gap)
    weights.scatter_(-1, edge[..., None], 1 - share)
    weights.scatter_(-1, (edge[..., None] + 1) % 3, share)
    # Inside, the areas opposite to the corners are all positive
    areas = (along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]).roll(-1, dims=-1)
    inside = (areas >= 0).all(dim=-1)
    share = areas / areas.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    return torch.where(inside[..., None], share, weights), distance.masked_fill(inside, 0)
