"""UV spheres whose poles lie on the y axis, vertex by vertex in the order of the published ones.

A point is (segment s, ring r): ring 0 is the south pole (0, -1, 0), ring `rings` the north pole; its
texture coordinates are (s / segments, r / rings). The orders of 16 and 31 rings are those of the
published spheres, because templates, displacement maps and exported meshes are indexed by them and ties of
depth go to the face that comes first; 63 rings are ordered column by column.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Corner = tuple[float, int]  # segment (half-integer at a pole), ring


class UVSphere(NamedTuple):
    """Triangles of a sphere: counter-clockwise seen from outside and in texture space.

    Attributes:
        vertices: (V, 3) float64, unit length.
        faces: (F, 3) int64 into `vertices`.
        uvs: (U, 2) float64 in [0, 1]; the seam and the poles have several.
        face_uvs: (F, 3) int64 into `uvs`.
        grid: (rings - 1, segments) int64, vertex of ring r = row + 1 and segment s = column.
        poles: (2,) int64, north and south vertex.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    uvs: NDArray[np.float64]
    face_uvs: NDArray[np.int64]
    grid: NDArray[np.int64]
    poles: NDArray[np.int64]


class _Order(NamedTuple):
    """Traversal of the published spheres.

    Attributes:
        early: rings of segment 24 that come first; the others come last.
        north_after: segment that the north pole follows.
        south_after: segment that the south pole follows.
        cycle: rings of the faces within a segment, read cyclically.
        starts: first ring of each segment, for segments 23, 22, ..., 0, 31, ..., 24.
        second: first segment of the second block of faces.
    """

    early: tuple[int, ...]
    north_after: int
    south_after: int
    cycle: tuple[int, ...]
    starts: tuple[int, ...]
    second: int


_ORDERS = {
    16: _Order(
        early=(15, 14, 13, 12, 11, 10, 9, 8, 7, 3),
        north_after=5,
        south_after=11,
        cycle=(6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 15, 0, 7, 14),
        starts=(
            *(6, 7, 3, 14, 10, 6, 2, 5, 1, 12, 8, 4, 15, 11, 7, 3),
            *(6, 2, 13, 9, 5, 1, 12, 8, 4, 0, 3, 14, 10, 6, 2, 13),
        ),
        second=23,
    ),
    31: _Order(
        early=tuple(r for r in range(30, 1, -1) if r not in (29, 17, 13, 7)),
        north_after=1,
        south_after=28,
        cycle=(
            *(20, 6, 19, 5, 18, 4, 17, 30, 3, 16, 29, 2, 15, 28, 1, 14),
            *(27, 0, 13, 26, 12, 25, 11, 24, 10, 23, 9, 22, 8, 21, 7),
        ),
        starts=(
            *(20, 11, 7, 3, 12, 8, 4, 27, 23, 19, 15, 11, 7, 30, 26, 22),
            *(18, 14, 10, 6, 2, 11, 7, 30, 26, 22, 18, 28, 24, 20, 16, 12),
        ),
        second=7,
    ),
}
SEGMENTS = {16: 32, 31: 32, 63: 64}  # segments of the spheres that exist, by number of rings


def uv_sphere(rings: int = 31) -> UVSphere:
    """Builds the sphere with 16, 31 (32 segments) or 63 rings (64 segments).

    Raises:
        ValueError: if `rings` is another number.
    """
    if rings not in SEGMENTS:
        raise ValueError(f"rings: expected one of {sorted(SEGMENTS)}, got {rings}.")
    segments = SEGMENTS[rings]
    # Vertices and faces as points (segment, ring), in the published order
    points = _vertex_order(rings, segments)
    corners = [
        _corners(s, r, block, rings, segments) for s, r, block in _face_order(rings, segments)
    ]
    index = {point: i for i, point in enumerate(points)}
    faces = [[index[_vertex(c, rings, segments)] for c in face] for face in corners]
    # Texture coordinates are numbered in the order in which faces use them
    uv_index: dict[Corner, int] = {}
    face_uvs = [[uv_index.setdefault(c, len(uv_index)) for c in face] for face in corners]
    grid = [[index[(s, r)] for s in range(segments)] for r in range(1, rings)]
    return UVSphere(
        vertices=_positions(np.array(points, float), rings, segments),
        faces=np.array(faces, np.int64),
        uvs=np.array(list(uv_index), float) / (segments, rings),
        face_uvs=np.array(face_uvs, np.int64),
        grid=np.array(grid, np.int64),
        poles=np.array([index[(0, rings)], index[(0, 0)]], np.int64),
    )


def _positions(points: NDArray[np.float64], rings: int, segments: int) -> NDArray[np.float64]:
    """Unit vectors (V, 3) of the points (segment, ring)."""
    # Rings are parallels from the south pole (-y), segments are meridians
    polar, around = np.pi * points[:, 1] / rings, 2 * np.pi * points[:, 0] / segments
    radius = np.sin(polar)
    vertices = np.stack([-radius * np.cos(around), -np.cos(polar), radius * np.sin(around)], axis=1)
    vertices[np.abs(vertices) < 1e-12] = 0.0  # exact poles and an exact mirror plane
    return vertices


def _vertex(corner: Corner, rings: int, segments: int) -> Corner:
    """The vertex of a corner: segments wrap around, each pole is one point."""
    s, r = corner
    return (0, r) if r in (0, rings) else (s % segments, r)


def _descending(first: int, segments: int) -> list[int]:
    """All segments, downwards and cyclically from `first`."""
    return [(first - i) % segments for i in range(segments)]


def _vertex_order(rings: int, segments: int) -> list[Corner]:
    """Points (segment, ring) in the order of the vertices; a pole is (0, ring)."""
    if rings not in _ORDERS:
        columns = [(s, r) for s in range(segments) for r in range(rings - 1, 0, -1)]
        return [(0, rings), *columns, (0, 0)]
    # Segment 24 is split: some of its rings come first, the others last
    order = _ORDERS[rings]
    points: list[Corner] = [(24, r) for r in order.early]
    for s in _descending(24, segments)[1:]:
        points += [(s, r) for r in range(rings - 1, 0, -1)]
        points += [(0, rings)] if s == order.north_after else []
        points += [(0, 0)] if s == order.south_after else []
    return points + [(24, r) for r in range(rings - 1, 0, -1) if r not in order.early]


def _face_order(rings: int, segments: int) -> list[tuple[int, int, int]]:
    """(segment, ring, block) in the order of the faces; block 1 lacks the two polar rings."""
    if rings not in _ORDERS:
        inner = range(1, rings - 1)
        first = [(s, r, 0) for s in range(segments) for r in range(rings)]
        return first + [(s, r, 1) for s in range(segments) for r in inner]
    # Two triangles per cell, in two blocks; the rings of a segment follow a fixed cycle
    order = _ORDERS[rings]
    starts = dict(zip(_descending(23, segments), order.starts, strict=True))
    faces = []
    for block, first in enumerate((23, order.second)):
        for s in _descending(first, segments):
            at = order.cycle.index(starts[s])
            column = order.cycle[at:] + order.cycle[:at]
            faces += [(s, r, block) for r in column if block == 0 or 0 < r < rings - 1]
    return faces


def _corners(s: int, r: int, block: int, rings: int, segments: int) -> list[Corner]:
    """Corners (segment, ring) of a face; the diagonals are mirrored in the plane x = 0."""
    # Triangles at the poles
    if r == rings - 1:
        return [(s + 1, r), (s + 0.5, r + 1), (s, r)]
    if r == 0:
        return [(s + 0.5, 0), (s + 1, 1), (s, 1)]
    low, right, up, far = (s, r), (s + 1, r), (s, r + 1), (s + 1, r + 1)
    positive_side = segments // 4 <= s < 3 * segments // 4
    if positive_side != (rings == 16):  # the diagonal of this square goes from low to far
        return [far, low, right] if block == 0 else [far, up, low]
    return [right, up, low] if block == 0 else [right, far, up]
