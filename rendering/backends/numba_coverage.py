"""Compiled coverage and depth test of one image.

Coordinates are pixels with the origin in the middle of the image, x right and y down, so that
mirrored meshes give mirrored numbers and sizes that are powers of two cost no rounding. Pixel (row
j, column i) has its center at (i - half, j - half), half = (size - 1) / 2. Pixels that no face covers
are *open*; `numba_bit_masks` stores them.
"""

import math
from typing import Any

import numpy as np

from rendering.backends.numba_bit_masks import word_mask
from utils.numba_jit import Array, compiled

_FAR = 1e8  # pixels; keeps products of coordinates finite in single precision


@compiled
def to_pixels(vertices: Array, size: int, points: Array) -> None:
    half = np.float32(0.5 * size)
    far = np.float32(_FAR)
    for v in range(vertices.shape[0]):
        points[v, 0] = min(max(vertices[v, 0] * half, -far), far)
        points[v, 1] = min(max(-vertices[v, 1] * half, -far), far)


@compiled
def columns_between(low: float, high: float, half: float, size: int) -> tuple[int, int]:
    """First and last pixel of [low, high): half open towards growing coordinates."""
    return max(math.ceil(low + half), 0), min(math.ceil(high + half) - 1, size - 1)


@compiled
def rows_between(low: float, high: float, half: float, size: int) -> tuple[int, int]:
    """First and last row of (low, high]: half open towards growing y in screen space, which is up."""
    return max(math.floor(low + half) + 1, 0), min(math.floor(high + half), size - 1)


@compiled
def _slope(ax: float, ay: float, bx: float, by: float) -> float:
    return (bx - ax) / (by - ay) if by > ay else 0.0


@compiled
def _outline(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> Any:
    """Corners from top to bottom and slopes dx/dy, equal for both faces of a shared edge."""
    # Sort three corners by y
    if by < ay:
        ax, ay, bx, by = bx, by, ax, ay
    if cy < by:
        bx, by, cx, cy = cx, cy, bx, by
    if by < ay:
        ax, ay, bx, by = bx, by, ax, ay
    # Computed from the sorted corners, so that both faces of an edge round alike
    slopes = (_slope(ax, ay, cx, cy), _slope(ax, ay, bx, by), _slope(bx, by, cx, cy))
    return ax, ay, bx, by, slopes


@compiled
def _span(outline: Any, y: float, half: float, first: int, last: int) -> tuple[int, int]:
    """Columns that the triangle covers at height y, edges included, within [first, last]."""
    ax, ay, bx, by, slopes = outline
    left = ax + (y - ay) * slopes[0]
    right = ax + (y - ay) * slopes[1] if y < by else bx + (y - by) * slopes[2]
    if right < left:
        left, right = right, left
    return max(math.ceil(left + half), first), min(math.floor(right + half), last)


@compiled
def corners_of(points: Array, faces: Array, f: int) -> Any:
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    return points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]


@compiled
def _twice_area(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
    """Positive for faces that turn towards the viewer (y points down here)."""
    # Double precision, because products of coordinates cancel
    ax, ay = np.float64(ax), np.float64(ay)
    return (by - ay) * (cx - ax) - (bx - ax) * (cy - ay)


@compiled
def cover(points: Array, faces: Array, size: int, cull: bool, open_pixels: Array) -> None:
    """Opens all pixels, then closes those that a face covers."""
    half = 0.5 * (size - 1)
    # All pixels open
    for word in range(open_pixels.shape[1] - 1):
        open_pixels[:size, word] = word_mask(word, 0, size - 1)
    for f in range(faces.shape[0]):
        ax, ay, bx, by, cx, cy = corners_of(points, faces, f)
        # Degenerate faces cover nothing, and neither do faces turned away, if they are culled
        area = _twice_area(ax, ay, bx, by, cx, cy)
        if area == 0.0 or (cull and area < 0.0):
            continue
        top, bottom = rows_between(min(ay, by, cy), max(ay, by, cy), half, size)
        first, last = columns_between(min(ax, bx, cx), max(ax, bx, cx), half, size)
        if top > bottom or first > last:
            continue
        # Close the span of the face in every row
        outline = _outline(ax, ay, bx, by, cx, cy)
        for j in range(top, bottom + 1):
            begin, end = _span(outline, j - half, half, first, last)
            if begin <= end:
                for word in range(begin >> 6, (end >> 6) + 1):
                    open_pixels[np.uint64(j), np.uint64(word)] &= ~word_mask(word, begin, end)


@compiled
def _depth_slopes(vertices: Array, faces: Array, f: int, points: Array, area: float) -> Any:
    """Change of z for a step of one pixel right and one pixel down."""
    ax, ay, bx, by, cx, cy = corners_of(points, faces, f)
    az = np.float64(vertices[faces[f, 0], 2])
    bz, cz = vertices[faces[f, 1], 2] - az, vertices[faces[f, 2], 2] - az
    ax, ay = np.float64(ax), np.float64(ay)
    slope_x = (cz * (by - ay) - bz * (cy - ay)) / area
    slope_y = (bz * (cx - ax) - cz * (bx - ax)) / area
    return slope_x, slope_y


@compiled
def visible_faces(
    vertices: Array,
    faces: Array,
    size: int,
    cull: bool,
    points: Array,
    depth: Array,
    face_index: Array,
) -> None:
    """Finds the face with the largest z at each pixel center; the first one of those that tie.

    Args:
        vertices: (V, 3) screen space.
        faces: (F, 3) unsigned indices.
        size: pixels.
        cull: whether to leave out faces turned away from the viewer.
        points: (V, 2) buffer.
        depth: (size * size) buffer.
        face_index: (size * size) int64, written; -1 where there is none.
    """
    half = 0.5 * (size - 1)
    to_pixels(vertices, size, points)
    depth[:] = -np.inf
    face_index[:] = -1
    for f in range(faces.shape[0]):
        ax, ay, bx, by, cx, cy = corners_of(points, faces, f)
        area = _twice_area(ax, ay, bx, by, cx, cy)
        if area == 0.0 or (cull and area < 0.0):
            continue
        top, bottom = rows_between(min(ay, by, cy), max(ay, by, cy), half, size)
        first, last = columns_between(min(ax, bx, cx), max(ax, bx, cx), half, size)
        if top > bottom or first > last:
            continue
        # Depth is affine on the screen: one slope per axis
        az = np.float64(vertices[faces[f, 0], 2])
        slope_x, slope_y = _depth_slopes(vertices, faces, f, points, area)
        outline = _outline(ax, ay, bx, by, cx, cy)
        for j in range(top, bottom + 1):
            begin, end = _span(outline, j - half, half, first, last)
            row_z = az + (j - half - ay) * slope_y
            for i in range(begin, end + 1):
                # Strictly nearer in single precision: the first of the faces that tie stays
                z = np.float32(row_z + (i - half - ax) * slope_x)
                p = np.uint64(j * size + i)
                if z > depth[p]:
                    depth[p] = z
                    face_index[p] = f
