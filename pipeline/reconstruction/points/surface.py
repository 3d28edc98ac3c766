"""From a cloud that fills an object to its surface: the points that can be seen, and a mesh through them."""

import logging

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial import KDTree
from torch import Tensor

from geometry import quaternion
from geometry.mesh_files import Mesh
from geometry.points.poisson import reconstruct
from rendering.projection.volume import smooth, splat

GRID = 32
THICKNESS = 0.4  # of what is seen of a surface, in cells
POISSON_DEPTH = 6  # finer than the grid that points are learned in
ROOM = 1.1  # screen units per unit
NEIGHBORS, STRAY = 8, 4.0  # the eighth neighbor of a stray is so much farther than usual
NORMAL_SIGMA = 1.5  # of the density whose gradient gives the normals, in cells
LEAST_SEEN = 50  # points through which a surface can be laid

logger = logging.getLogger(__name__)


def without_strays(points: Tensor) -> Tensor:
    """Returns those of some points (N, 3) that have others near, (M, 3).

    A point that has left what any view sees gets no gradient, and never comes back.
    """
    if len(points) <= NEIGHBORS:
        return points
    distance = KDTree(points.cpu().numpy()).query(points.cpu().numpy(), NEIGHBORS + 1)[0][:, -1]
    near = torch.from_numpy(distance <= STRAY * np.median(distance))
    return points[near.to(points.device)]


def visible_points(points: Tensor) -> Tensor:
    """Returns those of some points (N, 3) in (-1/2, 1/2)^3 that can be seen from a side, (M, 3); no strays.

    Masks say nothing about what is inside an object, where points stay as well. A point is seen if in
    one of 40 directions none in its pixel or a neighboring one is nearer by more than a cell.
    """
    points = without_strays(points)
    views = quaternion.initial_views().to(points)
    screen = _parallel(quaternion.rotate(views, points.expand(len(views), -1, -1)))
    column, row, depth = ((screen * screen.new_tensor([1.0, -1, -1]) + 1) * (GRID / 2)).unbind(-1)
    pixel = row.long().clamp(0, GRID - 1) * GRID + column.long().clamp(0, GRID - 1)
    # Depth of the nearest point of each pixel, and of its neighborhood, which closes gaps
    front = depth.new_full((len(views), GRID * GRID), 2.0 * GRID)
    front = front.scatter_reduce(1, pixel, depth, "amin").view(-1, 1, GRID, GRID)
    front = -torch.nn.functional.max_pool2d(-front, 3, 1, 1)
    behind = depth - front.flatten(1).gather(1, pixel)
    return points[behind.amin(dim=0) < THICKNESS]


def density_normals(points: Tensor, places: Tensor) -> Tensor:
    """Returns unit normals (M, 3) at places (M, 3), down the gradient of the density of points (N, 3).

    Points fill objects, so that their density tells which side is outside.
    """
    density = smooth(splat(_parallel(points[None]), GRID).clamp(max=1), NORMAL_SIGMA)[0]
    cells = ((_parallel(places) * places.new_tensor([1.0, -1, -1]) + 1) * (GRID / 2) - 0.5).flip(-1)
    # Derivatives by depth, row and column, which are z, y and x of these axes
    slopes = np.gradient(density.numpy())
    found = [map_coordinates(slope, cells.T.numpy(), order=1, mode="nearest") for slope in slopes]
    downhill = -torch.from_numpy(np.stack(found[::-1], axis=1)).to(places)
    return torch.nn.functional.normalize(downhill + 1e-9 * places, dim=-1)


def _parallel(points: Tensor) -> Tensor:
    """Places points (..., 3) in screen space by parallel rays along z, with some room around them."""
    return points * points.new_tensor([ROOM, -ROOM, -ROOM])


def rebuild(points: Tensor, depth: int) -> Mesh:
    """Returns the surface through the visible ones of some points (N, 3).

    Args:
        points: fill an object.
        depth: the surface is found on a grid of 2^depth cells along each edge.

    Raises:
        ValueError: if they enclose nothing.
    """
    seen = torch.unique(visible_points(points.cpu()), dim=0)
    if len(seen) < LEAST_SEEN:
        raise ValueError(f"only {len(seen)} different points, expected {LEAST_SEEN}.")
    normals = density_normals(without_strays(points.cpu()), seen)
    return Mesh(*reconstruct(seen.double().numpy(), normals.double().numpy(), depth))


def try_to_rebuild(points: Tensor) -> Mesh | None:
    """Returns the surface through the visible ones of some points (N, 3); None, with a line, if there is none."""
    try:
        return rebuild(points, POISSON_DEPTH)
    except ValueError as error:
        logger.warning("no mesh, since %s", str(error).removesuffix("."))
        return None
