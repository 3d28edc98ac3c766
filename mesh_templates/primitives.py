"""Signed distance primitives, their combinations, and the step from a distance to a mesh.

A distance is a function from points (N, 3) to signed distances (N,), negative inside. Exact values or
lower bounds are sufficient for smooth unions and marching cubes. Object space: x
lateral, front of the object towards -y, z up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation
from skimage.measure import marching_cubes

Points = NDArray[np.float64]
Distance = Callable[[Points], NDArray[np.float64]]
Vector = Sequence[float]

_STRIDE = 4  # fine cells per coarse cell where the grid is sampled twice


@dataclass(frozen=True)
class Shape:
    """A modeled object: its distance, the distances of its named parts, and a box around it.

    A part is a region of space: the surface inside it (distance < 0) belongs to the part. Regions may
    overlap; the order of the part vocabulary decides.
    """

    distance: Distance
    bounds: tuple[Vector, Vector]
    parts: dict[str, Distance] = field(default_factory=dict)


def ellipsoid(center: Vector, radii: Vector, rotation: Vector = (0, 0, 0)) -> Distance:
    """Approximate distance to an ellipsoid (rotation about x, then y, then z in degrees)."""
    r = np.asarray(radii, float)

    def distance(points: Points) -> NDArray[np.float64]:
        p = _local(points, center, rotation)
        # First-order estimate: value of the implicit function over the length of its gradient
        k0 = np.linalg.norm(p / r, axis=1)
        k1 = np.linalg.norm(p / r**2, axis=1)
        return k0 * (k0 - 1) / np.maximum(k1, 1e-9)

    return distance


def capsule(
    start: Vector, end: Vector, start_radius: float, end_radius: float | None = None
) -> Distance:
    """Segment with a radius that changes linearly from its start to its end (a rounded cone)."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    r0, r1 = start_radius, start_radius if end_radius is None else end_radius

    def distance(points: Points) -> NDArray[np.float64]:
        offset = points - a
        along = b - a
        # Nearest point of the segment, then its radius
        t = np.clip(offset @ along / max(along @ along, 1e-12), 0, 1)
        offset -= t[:, None] * along
        return np.sqrt(np.einsum("ij,ij->i", offset, offset)) - (r0 + t * (r1 - r0))

    return distance


def chain(nodes: Sequence[Vector], radii: Sequence[float], blend: float = 0.0) -> Distance:
    """Capsules through the nodes, one radius a node: limbs, necks, trunks, tubes."""
    pieces = [
        capsule(nodes[i], nodes[i + 1], radii[i], radii[i + 1]) for i in range(len(nodes) - 1)
    ]
    return union(*pieces, blend=blend)


def box(
    center: Vector, half_size: Vector, radius: float = 0.0, rotation: Vector = (0, 0, 0)
) -> Distance:
    """Box with rounded edges; `half_size` includes the rounding."""
    half = np.asarray(half_size, float) - radius

    def distance(points: Points) -> NDArray[np.float64]:
        # Distance outside plus depth inside of the box without its rounding
        q = np.abs(_local(points, center, rotation)) - half
        outside = np.linalg.norm(np.maximum(q, 0), axis=1)
        return outside + np.minimum(q.max(axis=1), 0) - radius

    return distance


def cylinder(
    center: Vector, radius: float, half_length: float, axis: int = 0, rounding: float = 0.0
) -> Distance:
    """Solid cylinder along a coordinate axis (0 = x: a wheel)."""
    c = np.asarray(center, float)
    others = [i for i in range(3) if i != axis]

    def distance(points: Points) -> NDArray[np.float64]:
        p = points - c
        radial = np.linalg.norm(p[:, others], axis=1) - (radius - rounding)
        axial = np.abs(p[:, axis]) - (half_length - rounding)
        outside = np.hypot(np.maximum(radial, 0), np.maximum(axial, 0))
        return outside + np.minimum(np.maximum(radial, axial), 0) - rounding

    return distance


def torus(center: Vector, radius: float, tube: float, axis: int = 0) -> Distance:
    """Ring around a coordinate axis (0 = x: a tire)."""
    c = np.asarray(center, float)
    others = [i for i in range(3) if i != axis]

    def distance(points: Points) -> NDArray[np.float64]:
        p = points - c
        return np.hypot(np.linalg.norm(p[:, others], axis=1) - radius, p[:, axis]) - tube

    return distance


def prism(
    outline: Sequence[tuple[float, float]],
    low: float,
    high: float,
    axis: int = 0,
    rounding: float = 0.0,
) -> Distance:
    """Polygon extruded along an axis from `low` to `high` (axis 0: outline in (y, z), a side view)."""
    polygon = np.asarray(outline, float)
    others = [i for i in range(3) if i != axis]

    def distance(points: Points) -> NDArray[np.float64]:
        flat = _polygon_distance(points[:, others], polygon) + rounding
        axial = np.abs(points[:, axis] - (low + high) / 2) - (high - low) / 2 + rounding
        outside = np.hypot(np.maximum(flat, 0), np.maximum(axial, 0))
        return outside + np.minimum(np.maximum(flat, axial), 0) - rounding

    return distance


def union(*distances: Distance, blend: float = 0.0) -> Distance:
    """Union; with `blend` > 0 joints are filleted over about that width (polynomial smooth minimum)."""

    def distance(points: Points) -> NDArray[np.float64]:
        result = distances[0](points)
        for other in distances[1:]:
            result = _smooth_minimum(result, other(points), blend)
        return result

    return distance


def joined(first: Distance, *others: tuple[Distance, float]) -> Distance:
    """Union in the order given, each other shape with the width of its own fillet."""
    for other, blend in others:
        first = union(first, other, blend=blend)
    return first


def subtract(solid: Distance, hole: Distance, blend: float = 0.0) -> Distance:
    """The solid without the hole."""
    return lambda points: -_smooth_minimum(-solid(points), hole(points), blend)


def intersect(first: Distance, second: Distance, blend: float = 0.0) -> Distance:
    """What both contain."""
    return lambda points: -_smooth_minimum(-first(points), -second(points), blend)


def mirrored(distance: Distance) -> Distance:
    """The shape modeled at x >= 0 together with its mirror image."""
    return lambda points: distance(np.column_stack([np.abs(points[:, 0]), points[:, 1:]]))


def moved(shape: Shape, shift: Vector) -> Shape:
    """The shape with its parts and bounds at another place."""
    low, high = (np.asarray(corner, float) + np.asarray(shift, float) for corner in shape.bounds)
    parts = {name: transformed(region, shift) for name, region in shape.parts.items()}
    return Shape(transformed(shape.distance, shift), (low.tolist(), high.tolist()), parts)


def rippled(distance: Distance, amplitude: float, wavelength: float) -> Distance:
    """The shape with bumps all over, mirror-symmetric: wool."""
    frequency = 2 * np.pi / wavelength
    return lambda points: distance(points) - amplitude * np.cos(frequency * points).prod(axis=1)


def half_space(point: Vector, outward: Vector) -> Distance:
    """Everything behind the plane through the point with this outward direction: a cut."""
    normal = np.asarray(outward, float) / np.linalg.norm(outward)
    return lambda points: (points - np.asarray(point, float)) @ normal


def inflated(distance: Distance, amount: float) -> Distance:
    """The shape grown by an amount on all sides: a region around a part."""
    return lambda points: distance(points) - amount


def transformed(
    distance: Distance,
    shift: Vector = (0, 0, 0),
    rotation: Vector = (0, 0, 0),
    scale: Vector = (1, 1, 1),
) -> Distance:
    """The shape scaled along its axes, then rotated (about x, y, z in degrees), then shifted."""
    factors = np.asarray(scale, float)
    return lambda points: distance(_local(points, shift, rotation) / factors) * factors.min()


def tube(
    nodes: Sequence[Vector], radii: Sequence[float], width: float = 1.0, pieces: int = 5
) -> Distance:
    """Smooth curve through the nodes with smoothly changing radius: bodies, necks, trunks, tails.

    The cross-section is an ellipse: `width` is its x radius divided by its other radius.
    """
    # Monotone cubic interpolation does not overshoot between nodes
    samples = np.column_stack([np.asarray(nodes, float), radii])
    samples[:, 0] /= width
    position = np.linspace(0, len(samples) - 1, pieces * (len(samples) - 1) + 1)
    curve = PchipInterpolator(np.arange(len(samples)), samples)(position)
    solid = chain(curve[:, :3], np.maximum(curve[:, 3], 1e-4))
    return transformed(solid, scale=(width, 1, 1)) if width != 1 else solid


def mesh_from_distance(shape: Shape, target_faces: int = 4000, cells: int = 160) -> trimesh.Trimesh:
    """Extracts one closed, exactly mirror-symmetric surface of about `target_faces` triangles.

    Only the half at x >= 0 is extracted and simplified; then it is mirrored and sewn to its image. The
    largest connected surface is kept, so every part must touch the body. The longest side of the
    bounds is sampled by `cells` cells: thinner details than about two cells are lost.
    """
    # A grid over the half x >= 0, with a margin on the other sides
    low, high = (np.asarray(v, float) for v in shape.bounds)
    step = (high - low).max() / cells
    starts = np.array([0.0, low[1] - 2 * step, low[2] - 2 * step])
    counts = np.ceil((high + 2 * step - starts) / step).astype(int) // _STRIDE + 2
    values = _sample(shape.distance, starts, counts, step)
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(step,) * 3)
    # Simplify one half, then sew it to its mirror image and keep the largest piece
    half = trimesh.Trimesh(vertices + starts, faces[:, ::-1])
    half = _simplified(half, target_faces // 2)
    mesh = max(
        _sew_to_mirror_image(half, step).split(only_watertight=False), key=lambda part: part.area
    )
    if mesh.volume < 0:
        mesh.invert()
    assert mesh.is_watertight, "the surface is not closed: thicken the details"
    return mesh


def _simplified(mesh: trimesh.Trimesh, target_faces: int) -> trimesh.Trimesh:
    """Collapses edges with the least aggression that reaches the target; thin wings need more."""
    for aggression in (3, 4, 5):
        if len(mesh.faces) > 1.2 * target_faces:
            mesh = mesh.simplify_quadric_decimation(face_count=target_faces, aggression=aggression)
    return mesh


def _sample(
    distance: Distance, starts: Points, counts: NDArray, step: float
) -> NDArray[np.float64]:
    """Distances on a regular grid, exact near the surface and interpolated elsewhere."""
    fine_counts = (counts - 1) * _STRIDE + 1
    # Sample coarsely, interpolate, and evaluate again near the surface only
    coarse = distance(starts + _grid(counts) * _STRIDE * step).reshape(counts)
    points = starts + _grid(fine_counts) * step
    values = np.asarray(zoom(coarse, fine_counts / counts, order=1)).ravel()
    near = np.abs(values) < 1.8 * _STRIDE * step
    values[near] = distance(points[near])
    # A surface exactly through grid points would be extracted with coinciding vertices
    values[np.abs(values) < 1e-2 * step] = 1e-2 * step
    return values.reshape(fine_counts)


def _sew_to_mirror_image(half: trimesh.Trimesh, step: float) -> trimesh.Trimesh:
    """Joins an open surface at x >= 0 to its mirror image along its border in the plane x = 0."""
    vertices, faces = half.vertices.copy(), np.asarray(half.faces)
    # The border has edges with one face
    edges, uses = np.unique(half.edges_sorted, axis=0, return_counts=True)
    border = np.zeros(len(vertices), bool)
    border[edges[uses == 1]] = True
    assert vertices[border, 0].max(initial=0) < step, "the surface is cut open: enlarge the bounds"
    vertices[:, 0] = np.where(border, 0.0, np.maximum(vertices[:, 0], step / 10))
    faces = faces[~border[faces].all(axis=1)]
    # Border vertices are their own mirror images
    image = np.where(border, np.arange(len(vertices)), np.arange(len(vertices)) + len(vertices))
    both = np.concatenate([faces, image[faces][:, ::-1]])
    return trimesh.Trimesh(np.concatenate([vertices, vertices * [-1, 1, 1]]), both, validate=True)


def _grid(counts: NDArray) -> Points:
    return np.indices(counts.tolist()).reshape(3, -1).T.astype(np.float64)


def _local(points: Points, center: Vector, rotation: Vector) -> Points:
    shifted = points - np.asarray(center, float)
    if not np.any(rotation):
        return shifted
    return shifted @ Rotation.from_euler("xyz", rotation, degrees=True).as_matrix()


def _smooth_minimum(a: NDArray, b: NDArray, width: float) -> NDArray[np.float64]:
    if width <= 0:
        return np.minimum(a, b)
    # Quadratic blend where the two distances differ by less than the width
    h = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - h * h * width / 4


def _polygon_distance(points: NDArray, polygon: NDArray) -> NDArray[np.float64]:
    u, v = np.ascontiguousarray(points.T)
    squared = np.full(len(points), np.inf)
    inside = np.zeros(len(points), bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        edge, from_u, from_v = b - a, u - a[0], v - a[1]
        t = np.clip((from_u * edge[0] + from_v * edge[1]) / max(edge @ edge, 1e-12), 0, 1)
        nearest = (from_u - t * edge[0]) ** 2 + (from_v - t * edge[1]) ** 2
        squared = np.minimum(squared, nearest)
        # Even-odd rule: a ray to the right crosses the outline an odd number of times
        crosses = (a[1] > v) != (b[1] > v)
        slope = np.where(b[1] == a[1], 1.0, b[1] - a[1])
        inside ^= crosses & (from_u < from_v / slope * edge[0])
    return np.where(inside, -1, 1) * np.sqrt(squared)
