"""Why a mesh makes a poor template, judged by its silhouettes: wrong axes, or sides that differ."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geometry import quaternion
from geometry.mesh_files import AXES, Mesh, object_axes
from pipeline.remeshing.sphere_fitting import to_screen
from pipeline.remeshing.targets import mirror_plane, silhouettes
from utils.seeding import torch_generator

NUM_VIEWS = 16
SIZE = 64  # pixels
CLEARLY_BETTER = 0.06  # of overlaps
NUM_POINTS = 20_000


class Orientation(NamedTuple):
    """Axes of a file, and how well its mesh fits known ones of its category when read with them.

    Attributes:
        up: axis that points upwards.
        front: axis towards which the object looks.
        iou: mean overlap of the silhouettes with those of the most similar one.
    """

    up: str
    front: str
    iou: float

    def __str__(self) -> str:
        return f"--up={self.up} --front={self.front}"


def better_axes(
    mesh: Mesh, up: str, front: str, known: Sequence[Mesh]
) -> tuple[Orientation, Orientation] | None:
    """Compares a mesh with known ones of the same category, for all 24 choices of its axes.

    Args:
        mesh: in object space, read with these axes.
        up: axis of its file that was taken for upwards.
        front: axis of its file that was taken for the front.
        known: meshes of the category, in object space.

    Returns:
        The present axes and the best ones, or None if no others are clearly better.
    """
    # Rotations from the present axes to every possible pair of up and front
    present = object_axes(up, front)
    choices = [(u, f) for u in AXES for f in AXES if u[-1] != f[-1]]
    turns = torch.from_numpy(np.stack([object_axes(*c) @ present.T for c in choices])).float()
    views = _views(NUM_VIEWS)
    # To turn the mesh is to turn the views
    turned = quaternion.multiply(views[None], quaternion.from_matrix(turns)[:, None])
    masks = silhouettes(boxed(mesh), turned.flatten(0, 1), SIZE).unflatten(0, turned.shape[:2])
    wanted = torch.stack([silhouettes(boxed(other), views, SIZE) for other in known])
    ious = mask_overlap(masks[:, None], wanted[None]).mean(2).amax(1).tolist()
    # The most similar known mesh decides, as shapes within a category differ widely
    found = [Orientation(*axes, iou) for axes, iou in zip(choices, ious, strict=True)]
    now, best = found[choices.index((up, front))], max(found, key=lambda x: x.iou)
    return (now, best) if best.iou > now.iou + CLEARLY_BETTER else None


def cause_of_poor_fit(mesh: Mesh, iou: float) -> str:
    """Returns the likely cause, a sentence.

    Args:
        mesh: in object space.
        iou: overlap that the fit has reached.
    """
    # More alike about another axis than about x: the mesh is turned
    alike = [symmetry(mesh, axis) for axis in range(3)]
    if max(alike) > alike[0] + CLEARLY_BETTER:
        axis = "xyz"[int(np.argmax(alike))]
        return (
            f"its mirror plane is across {axis} rather than across x (overlap with the mirror image "
            f"{max(alike):.2f} and {alike[0]:.2f}), so --up and --front are wrong."
        )
    # Asymmetry explains a good part of what the fit has missed
    if 1 - alike[0] > (1 - iou) / 3:
        return (
            f"its left and right differ{_place_of_difference(mesh)} (overlap with its mirror image "
            f"{alike[0]:.2f}), and templates are symmetric: straighten it in a modeling program."
        )
    return (
        "thin or separate parts that a sphere does not reach, or too few steps (--step_factor); or "
        "are --up and --front right?"
    )


def symmetry(mesh: Mesh, axis: int = 0) -> float:
    """Returns the overlap of silhouettes of a mesh and of its mirror image across an axis."""
    rolled = Mesh(np.roll(mesh.vertices, -axis, axis=1), mesh.faces)  # a rotation, to x
    # The same views for both, so that only the mesh differs
    centered, views = _about_plane(rolled), _views(NUM_VIEWS)
    masks = [silhouettes(either, views, SIZE) for either in (centered, _mirrored(centered))]
    return float(mask_overlap(*masks).mean())


def _about_plane(mesh: Mesh) -> Mesh:
    """Centers a mesh as `boxed`, but with its mirror plane at x = 0."""
    mesh = boxed(mesh)
    vertices = mesh.vertices - [mirror_plane(mesh, 0.0), 0.0, 0.0]
    return Mesh(vertices / np.abs(vertices).max(), mesh.faces)


def _mirrored(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices * [-1.0, 1.0, 1.0], mesh.faces)


def _place_of_difference(mesh: Mesh) -> str:
    """Returns where the visual hull of a mesh differs most from its mirror image, as words."""
    # Points of the visual hull that have no counterpart across the mirror plane
    mesh, views = _about_plane(mesh), _views(3 * NUM_VIEWS)
    masks = silhouettes(mesh, views, SIZE)
    random = torch.rand((NUM_POINTS, 3), generator=torch_generator(1))
    points = (2 * random - 1) * torch.from_numpy(np.abs(mesh.vertices).max(0)).float()
    reflected = points * torch.tensor([-1.0, 1.0, 1.0])
    one_sided = points[_inside(points, views, masks) != _inside(reflected, views, masks)]
    if not len(one_sided):
        return ""
    # Where they lie on average, relative to the size of the mesh
    _, along, height = (one_sided.mean(0) / points.abs().amax(0)).tolist()
    if height < -0.25:
        return " mostly below, as striding legs do"
    return " mostly in front, as a turned head does" if along < -0.25 else ""


def _inside(points: Tensor, views: Tensor, masks: Tensor) -> Tensor:
    """Returns which points (P, 3) lie in all masks (N, h, w) of the views (N, 4)."""
    where = to_screen(points[None], views)[:, :, None, :2] * points.new_tensor([1.0, -1.0])
    hits = torch.nn.functional.grid_sample(masks[:, None], where, align_corners=False)
    return hits[:, 0, :, 0].amin(0) > 0.5


def mask_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (...) of masks (..., h, w)."""
    first, second = first > 0.5, second > 0.5
    return (first & second).sum((-2, -1)) / (first | second).sum((-2, -1)).clamp(min=1)


def boxed(mesh: Mesh) -> Mesh:
    """Centers a mesh by its box and scales it to max |coordinate| = 1."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    size = max(float((high - low).max()) / 2, 1e-12)
    return Mesh((mesh.vertices - (low + high) / 2) / size, mesh.faces)


def _views(count: int) -> Tensor:
    return quaternion.normalize(torch.randn((count, 4), generator=torch_generator(0)))
