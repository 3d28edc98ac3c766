"""Polygons in space into triangles that cover them exactly, also where they are concave."""

import numpy as np
from numpy.typing import NDArray

MAX_CONCAVE = 1000  # corners of a concave polygon; the time grows with their square
MAX_CONCAVE_CORNERS = 300_000  # of all concave polygons; a tenth of a millisecond each


def triangulate(
    vertices: NDArray[np.float64], corners: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Divides polygons into triangles of the same orientation, in the order of the polygons.

    A fan from the first corner is taken where it does not fold; other polygons lose ear after ear
    (Meisters 1975, "Polygons have ears") in the plane of their mean normal.

    Args:
        vertices: (V, 3).
        corners: (sum of counts,) indices of the vertices, polygon after polygon.
        counts: (P,) corners of each polygon; fewer than three are left out.

    Returns:
        (F, 3) indices of the vertices; n - 2 triangles of a polygon with n corners.

    Raises:
        ValueError: if a concave polygon has more than MAX_CONCAVE corners, or all of them more than
            MAX_CONCAVE_CORNERS.
    """
    concave = 0
    starts = np.cumsum(counts) - counts
    parts, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for size in np.unique(counts[counts >= 3]):
        rows = np.flatnonzero(counts == size)
        polygons = corners[starts[rows, None] + np.arange(size)]  # (n, size)
        fans = np.stack([polygons[:, [0] * (size - 2)], polygons[:, 1:-1], polygons[:, 2:]], -1)
        if size > 3:
            folded = np.flatnonzero(_folds(vertices[polygons]))
            concave += size * len(folded)
            if concave > MAX_CONCAVE_CORNERS:
                raise ValueError(
                    f"its concave polygons have {concave} corners and more, at most "
                    f"{MAX_CONCAVE_CORNERS} are expected; triangulate it in the program that made it"
                )
            for i in folded:
                fans[i] = polygons[i][_clip_ears(_flatten(vertices[polygons[i]]))]
        parts.append(fans.reshape(-1, 3))
        owners.append(np.repeat(rows, size - 2))
    return np.concatenate(parts)[np.argsort(np.concatenate(owners), kind="stable")]


def _normals(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the vector areas (..., 3) of polygons (..., n, 3), by Newell's formula."""
    spokes = points - points[..., :1, :]
    return np.cross(spokes, np.roll(spokes, -1, axis=-2)).sum(-2)


def _folds(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns for polygons (P, n, 3) whether a triangle of their fan looks to the other side."""
    spokes = points[:, 1:] - points[:, :1]
    areas = np.cross(spokes[:, :-1], spokes[:, 1:])  # (P, n - 2, 3)
    normals = areas.sum(1, keepdims=True)
    along = (areas * normals).sum(-1)
    return (along < -1e-9 * (normals**2).sum(-1)).any(1)


def _flatten(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates (n, 2) in the plane of a polygon (n, 3), counter-clockwise."""
    normal = _normals(points)
    drop = int(np.abs(normal).argmax())
    axes = [(drop + 1) % 3, (drop + 2) % 3]
    return points[:, axes if normal[drop] >= 0 else axes[::-1]]


def _clip_ears(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles (n - 2, 3) of a counter-clockwise polygon (n, 2); of a tangled one, some."""
    if len(points) > MAX_CONCAVE:
        raise ValueError(
            f"a concave polygon has {len(points)} corners, at most {MAX_CONCAVE} are expected; "
            "triangulate it in the program that made it"
        )
    ring, triangles = list(range(len(points))), []
    while len(ring) > 3:
        i = _find_ear(points[ring])
        triangles.append([ring[i - 1], ring[i], ring[(i + 1) % len(ring)]])
        del ring[i]
    return np.array([*triangles, ring])


def _find_ear(points: NDArray[np.float64]) -> int:
    """Returns a corner of a polygon (n, 2) whose triangle with its neighbors holds no other corner."""
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    turn = _cross(points - before, after - points)
    reflex = points[turn <= 0]
    for i in np.flatnonzero(turn > 0):
        triangle = np.stack([before[i], points[i], after[i]])
        sides = np.roll(triangle, -1, axis=0) - triangle
        inside = (_cross(sides, reflex[:, None] - triangle) >= 0).all(1)
        if not (inside & ~(reflex[:, None] == triangle).all(-1).any(1)).any():
            return int(i)
    return int(np.abs(turn).argmin())  # flat, or tangled: every choice is as good


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
