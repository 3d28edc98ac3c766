"""How far two shapes differ: overlap of silhouettes, distances to outlines, Chamfer distance of surfaces."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree
from torch import Tensor

from utils.seeding import numpy_generator

SURFACE_POINTS = 4000


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Returns the intersection over union (...) of images (..., h, w) with values in [0, 1].

    The sum of the smaller over the sum of the larger values, also of soft images; 0 where both are
    empty.
    """
    smaller = torch.minimum(first, second).sum(dim=(-2, -1))
    larger = torch.maximum(first, second).sum(dim=(-2, -1))
    return smaller / larger.clamp(min=1e-6)


def hard_iou(first: Tensor, second: Tensor) -> Tensor:
    """Returns the intersection over union (...) of images (..., h, w) at the threshold 0.5."""
    return iou((first > 0.5).float(), (second > 0.5).float())


def signed_distance(masks: Tensor) -> Tensor:
    """Returns the distance of every pixel to the object, less that to its surroundings.

    Outside it is the distance to the center of the nearest pixel of the object, inside minus that to the
    nearest one that is not of it; everything beyond the image is not.

    Args:
        masks: (B, 1, h, w), where values above 1/2 are the object.

    Returns:
        (B, 1, h, w) pixels; h + w everywhere where there is no object.
    """
    distances = [_signed_distance(mask) for mask in (masks[:, 0] > 0.5).cpu().numpy()]
    return torch.from_numpy(np.stack(distances))[:, None].to(masks)


def chamfer_distance(
    mesh: tuple[np.ndarray, np.ndarray], true: tuple[np.ndarray, np.ndarray]
) -> float:
    """Returns the symmetric mean distance between two surfaces, in percent of the bounding box diagonal.

    Both meshes are first centered and scaled to a bounding box of diagonal 1, because photographs do
    not determine size and origin. They are not rotated.

    Args:
        mesh: vertices (V, 3) and faces (F, 3).
        true: vertices and faces of the true mesh.
    """
    a, b = (surface_points(*_normalized(*m)) for m in (mesh, true))
    # Nearest neighbors from each surface to the other
    there, back = KDTree(b).query(a)[0], KDTree(a).query(b)[0]
    return float(100 * (there.mean() + back.mean()) / 2)


def surface_points(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns points (SURFACE_POINTS, 3) uniformly distributed on a surface, the same in every call."""
    # Faces are drawn in proportion to their areas
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    generator = numpy_generator(0, "surface points")
    chosen = generator.choice(len(faces), SURFACE_POINTS, p=areas / areas.sum())
    # Uniform in a parallelogram, folded at its diagonal into the triangle
    u, v = generator.random((2, SURFACE_POINTS, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = corners[chosen].transpose(1, 0, 2)
    return a + u * (b - a) + v * (c - a)


def _normalized(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Vertices without faces are not part of the surface
    used = vertices[np.unique(faces)]
    low, high = used.min(0), used.max(0)
    return (vertices - (low + high) / 2) / np.linalg.norm(high - low), faces


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.full(mask.shape, float(sum(mask.shape)))
    padded = np.pad(mask, 1)
    outside, inside = (np.asarray(distance_transform_edt(side)) for side in (~padded, padded))
    return (outside - inside)[1:-1, 1:-1]
