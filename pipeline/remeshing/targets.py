"""What the sphere is fitted to: the templates in a common frame, and their silhouettes."""

from collections.abc import Sequence

import numpy as np
import torch
import trimesh
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from geometry import quaternion
from geometry.mesh_files import Mesh
from pipeline.remeshing.sphere_fitting import to_screen
from rendering.rasterizer import rasterize
from utils.cli import UserError

_VIEWS_AT_ONCE = 16
_PLANE_SIZE = 128  # pixels
_PLANE_SHIFTS = range(-32, 33)
_CLEARLY_MORE = 0.2  # of overlaps


def normalize(meshes: Sequence[Mesh], aligned: bool) -> list[Mesh]:
    """Centers the templates and scales them to max |coordinate| = 1.

    Aligned templates share one bounding box, others have their own. The plane x = 0 stays where it
    is, as it is the mirror plane, unless the box lies clearly to one side of it, or the mesh is
    clearly more symmetric about another plane.
    """
    # One bounding box for all aligned templates, else one each
    boxes = np.array([[mesh.vertices.min(0), mesh.vertices.max(0)] for mesh in meshes])
    if aligned:
        boxes[:] = np.stack([boxes[:, 0].min(0), boxes[:, 1].max(0)])
    # Keep x = 0 as the mirror plane unless the mesh lies clearly to one side of it
    centers = boxes.mean(1)
    off_center = np.abs(centers[:, 0]) > 0.1 * (boxes[:, 1] - boxes[:, 0])[:, 0]
    centers[~off_center, 0] = 0.0
    planes = [mirror_plane(mesh, x) for mesh, x in zip(meshes, centers[:, 0], strict=True)]
    centers[:, 0] = np.mean(planes) if aligned else planes
    # Aligned templates share one scale, so that their relative sizes are kept
    centered = [mesh.vertices - center for mesh, center in zip(meshes, centers, strict=True)]
    sizes = np.array([np.abs(vertices).max() for vertices in centered])
    if (sizes == 0).any():
        raise UserError("a template has no extent: all of its vertices are one point.")
    sizes[:] = sizes.max() if aligned else sizes
    return [
        Mesh(vertices / size, mesh.faces)
        for mesh, vertices, size in zip(meshes, centered, sizes, strict=True)
    ]


def mirror_plane(mesh: Mesh, center: float) -> float:
    """Returns the x of the plane about which a mesh is most symmetric, up to 1/128 of its size.

    Args:
        mesh: in object space.
        center: x of the plane that is kept unless another is clearly better: a head or a tail that is
            turned to one side is no reason to move it.
    """
    # Scale the mesh into the unit sphere, so that no view cuts it off
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    middle = np.array([center, *(low + high)[1:] / 2])
    radius = max(float(np.linalg.norm(mesh.vertices - middle, axis=1).max()), 1e-12)
    level = Mesh((mesh.vertices - middle) / radius, mesh.faces)
    # Views in which x is the horizontal axis of the image
    angles = torch.tensor([-45.0, 0.0, 45.0, 90.0])
    views = quaternion.from_view(torch.full((4,), 90.0), angles, torch.zeros(4))
    # Overlap of the masks with their mirror images about shifted planes
    masks = silhouettes(level, views, _PLANE_SIZE) > 0.5
    overlaps = []
    for shift in _PLANE_SHIFTS:
        flipped = masks.flip(-1).roll(shift, -1)
        overlaps.append(float((masks & flipped).sum() / (masks | flipped).sum().clamp(min=1)))
    # A small gain is noise of the pixels, and no reason to move the plane
    best = int(np.argmax(overlaps))
    if overlaps[best] < overlaps[_PLANE_SHIFTS.index(0)] + _CLEARLY_MORE:
        return center
    unit = radius / 0.5**0.5 * 2 / _PLANE_SIZE  # of a pixel; the view shows a unit sphere at 0.71
    return center + _PLANE_SHIFTS[best] / 2 * unit


def silhouettes(mesh: Mesh, views: Tensor, size: int) -> Tensor:
    """Returns the masks (N, size, size) of a mesh, both sides of its faces visible.

    Holes are filled, because a sphere has none, unless the mesh is a closed surface without handles:
    what shines through between its legs is something that the sphere can copy.
    """
    # A few views at a time, which bounds the memory
    vertices = torch.from_numpy(mesh.vertices).float()[None]
    faces = torch.from_numpy(mesh.faces)
    masks = [
        rasterize(to_screen(vertices, part), faces, size, cull=False, soft=False).coverage[:, 0]
        for part in views.split(_VIEWS_AT_ONCE)
    ]
    masks = torch.cat(masks)
    # A closed surface of Euler characteristic 2 has no handles
    solid = trimesh.Trimesh(*mesh)
    if solid.is_watertight and solid.euler_number == 2:
        return masks
    filled = [binary_fill_holes(mask) for mask in masks.numpy() > 0.5]
    return torch.from_numpy(np.array(filled)).float()
