"""Individuals of a category: templates with parts and keypoints, and smooth random deformations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from data.definitions import PART_NAMES
from geometry.mesh_files import load_mesh
from geometry.operators import split_edges
from mesh_templates.build import FOLDER, SHAPES
from mesh_templates.primitives import Distance

Points = NDArray[np.float64]

_ASIDE = 0.035  # lateral position above which a part counts as one of a pair
_SPANNING = 0.2  # relative distance from the middle within which a pair has nothing
_GAP = 0.25  # lengthwise gap that separates front from rear wheels, legs, ...


@dataclass(frozen=True)
class Template:
    """A template, centered, with its largest coordinate 1, in triangles small enough to be painted.

    Attributes:
        name: file name, such as "bird1".
        vertices: (V, 3) object space.
        normals: (V, 3) outward unit normals.
        faces: (F, 3) int64.
        coarse_faces: (G, 3) int64, the triangles of the file, on the first vertices only.
        num_coarse: number of those first vertices.
        parts: distance (V,) of every vertex to every part, negative inside, by part name.
        keypoints: vertex of every keypoint.
    """

    name: str
    vertices: Points
    normals: Points
    faces: NDArray[np.int64]
    coarse_faces: NDArray[np.int64]
    num_coarse: int
    parts: dict[str, NDArray]
    keypoints: dict[str, int]


def load_templates(category: str, edge_length: float) -> list[Template]:
    """Loads all templates of a category; no edge is longer than `edge_length` afterwards."""
    names = [name for name in SHAPES if name.rstrip("0123456789") == category]
    assert names, f"no templates of category {category}"
    return [_load_template(name, edge_length) for name in sorted(names)]


def _load_template(name: str, edge_length: float) -> Template:
    shape = SHAPES[name]()
    # Centered and scaled like templates in all stages; refined, so that paint can vary
    file = load_mesh(FOLDER / "classes" / f"{name}.obj")
    center = (file.vertices.min(axis=0) + file.vertices.max(axis=0)) / 2 * [0, 1, 1]
    unit = np.abs(file.vertices - center).max()
    points, faces = split_edges(file.vertices, file.faces, edge_length * unit)
    vertices = (points - center) / unit
    parts = {p: shape.parts[p](points) / unit for p in PART_NAMES if p in shape.parts}
    return Template(
        name=name,
        vertices=vertices,
        normals=_gradient(shape.distance, points, 1e-3 * unit),
        faces=faces,
        coarse_faces=file.faces,
        num_coarse=len(file.vertices),
        parts=parts,
        keypoints=_find_keypoints(vertices, parts),
    )


def _gradient(distance: Distance, points: Points, step: float) -> Points:
    """Unit gradients (V, 3) of a distance, from the corners of a tetrahedron around every point."""
    # Central differences along four directions whose sum is zero
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
    gradient = sum(distance(points + step * corner)[:, None] * corner for corner in corners)
    return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-12)


def _find_keypoints(vertices: Points, parts: dict[str, NDArray]) -> dict[str, int]:
    """Names the middles of all parts: left and right (+x is left), front and rear where there are two."""
    tree = KDTree(vertices)
    keypoints = {}
    for name, distance in parts.items():
        for place, group in _front_and_rear(vertices[distance < 0]):
            # The center of a pair is that of one of the two, mirrored to each side
            middle = np.abs(group).mean(axis=0) * [1, 0, 0] + group.mean(axis=0) * [0, 1, 1]
            for side, sign in (("left_", 1), ("right_", -1)) if _is_pair(group) else (("", 0),):
                keypoints[f"{side}{place}{name}"] = int(tree.query(middle * [sign, 1, 1])[1])
    return keypoints


def _is_pair(points: Points) -> bool:
    """Whether a part consists of a left and a right one with nothing in between."""
    inner, middle = np.quantile(np.abs(points[:, 0]), [0.05, 0.5])
    return middle > _ASIDE and inner > _SPANNING * middle


def _front_and_rear(points: Points) -> list[tuple[str, Points]]:
    """Divides points at their largest lengthwise gap, if there is a wide one."""
    # Wheels and legs form two groups along the body
    y = np.sort(points[:, 1])
    gaps = np.diff(y)
    if not len(gaps) or gaps.max() < _GAP:
        return [("", points)] if len(points) else []
    front = points[:, 1] <= y[gaps.argmax()]
    return [("front_", points[front]), ("rear_", points[~front])]


@dataclass(frozen=True)
class Deformation:
    """Smooth map of object space that makes an individual out of a template.

    Attributes:
        scale: (3,) factors of the axes.
        shift: how far the middle moves forwards relative to the ends.
        girth: amplitude, frequency and phase of the relative width along the body.
        bend: sideways and vertical bend of the front (2,), of the rear (2,).
        waves: amplitude (N, 3), frequency (N, 3) and phase (N,) of displacements, even in x.
    """

    scale: NDArray
    shift: float
    girth: tuple[float, float, float]
    bend: NDArray
    waves: tuple[NDArray, NDArray, NDArray]

    def __call__(self, points: Points) -> Points:
        """Moves points (P, 3)."""
        x, y, z = points.T
        amplitude, frequency, phase = self.waves
        # Functions of |x| keep the individual symmetric; only the bend does not
        even = np.stack([np.abs(x), y, z], axis=1)
        wave = np.sin(even @ frequency.T + phase) @ amplitude
        strength, cycles, start = self.girth
        # Width and height vary along the body, the middle moves, waves add detail
        girth = 1 + strength * np.sin(np.pi * cycles * y + start)
        # Quadratic bends of front and rear
        front, rear = np.minimum(y, 0) ** 2, np.maximum(y, 0) ** 2
        side, lift = front[:, None] * self.bend[0] + rear[:, None] * self.bend[1], wave[:, 1:]
        moved = np.stack(
            [
                x * girth * (1 + wave[:, 0]),
                y - self.shift * np.cos(np.pi / 2 * np.clip(y, -1, 1)) + lift[:, 0],
                z * girth + lift[:, 1],
            ],
            axis=1,
        )
        moved[:, [0, 2]] += side
        return moved * self.scale

    def normals(self, points: Points, moved: Points, normals: Points) -> Points:
        """Returns the unit normals (P, 3) of the surface whose points and normals were moved."""
        # Two tangents at every point, carried along by the deformation
        level = np.abs(normals[:, 2:]) < 0.9
        helper = level * np.array([0.0, 0.0, 1.0]) + ~level * np.array([0.0, 1.0, 0.0])
        first = np.cross(helper, normals)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second, step = np.cross(normals, first).astype(float), 1e-4
        # The normal of the deformed surface is orthogonal to both
        turned = np.cross(self(points + step * first) - moved, self(points + step * second) - moved)
        return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-20)


def random_deformation(rng: np.random.Generator, softness: float) -> Deformation:
    """Draws an individual.

    Args:
        rng: source of all numbers.
        softness: 0 = only proportions vary (machines), 1 = bodies also bend and bulge (animals).
    """
    count = 6
    return Deformation(
        scale=np.exp(rng.normal(0, 0.04 + 0.04 * softness, 3)),
        shift=float(rng.normal(0, 0.03)),
        girth=(
            float(rng.normal(0, 0.02 + 0.06 * softness)),
            float(rng.uniform(0.5, 1.2)),
            float(rng.uniform(0, 2 * np.pi)),
        ),
        bend=softness * rng.normal(0, [[0.05, 0.06], [0.04, 0.05]]),
        waves=(
            rng.normal(0, 0.002 + 0.008 * softness, (count, 3)),
            rng.normal(0, 2.0, (count, 3)),
            rng.uniform(0, 2 * np.pi, count),
        ),
    )
