"""Compiled interpolation of values over the visible faces of one image, and its gradient.

Screen units, double precision: barycentric weights of slivers stay accurate. Neighboring pixels mostly
show the same face, so its plane is computed once per run of pixels.
"""

from typing import Any

import numpy as np

from utils.numba_jit import Array, compiled


@compiled
def _plane(vertices: Array, faces: Array, f: int) -> Any:
    """First corner, and the changes of the weights of corners 1 and 2 along x and y."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = np.float64(vertices[a, 0]), np.float64(vertices[a, 1])
    ux, uy = vertices[b, 0] - ax, vertices[b, 1] - ay
    vx, vy = vertices[c, 0] - ax, vertices[c, 1] - ay
    area = ux * vy - vx * uy
    return ax, ay, vy / area, -vx / area, -uy / area, ux / area


@compiled
def interpolate(
    vertices: Array, faces: Array, values: Array, corners: Array, face_index: Array, image: Array
) -> None:
    """Writes the values at the visible points.

    Args:
        vertices: (V, 3) screen space.
        faces: (F, 3) unsigned indices of vertices.
        values: (N, C).
        corners: (F, 3) unsigned indices of the values at the corners of faces.
        face_index: (size, size) visible face, -1 for none.
        image: (C, size, size), zero at first.
    """
    size = face_index.shape[0]
    previous = np.int64(-1)
    ax = ay = w1x = w1y = w2x = w2y = 0.0
    for j in range(size):
        y = (size - 1 - 2 * j) / size
        for i in range(size):
            f = face_index[j, i]
            if f < 0:
                continue
            # A new face: first corner and slopes of its weights
            if f != previous:
                ax, ay, w1x, w1y, w2x, w2y = _plane(vertices, faces, f)
                previous = f
            # Barycentric weights of corners 1 and 2 at the pixel center
            x = (2 * i + 1 - size) / size - ax
            w1 = x * w1x + (y - ay) * w1y
            w2 = x * w2x + (y - ay) * w2y
            # Values have their own indices: texture coordinates split vertices at the seam
            a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
            for k in range(values.shape[1]):
                value = values[a, k]
                mixed = value + w1 * (values[b, k] - value) + w2 * (values[c, k] - value)
                image[k, j, i] = mixed


@compiled
def interpolation_gradient(
    vertices: Array,
    faces: Array,
    values: Array,
    corners: Array,
    face_index: Array,
    gradient: Array,
    vertex_gradient: Array,
    value_gradient: Array,
    need_values: bool,
) -> None:
    """Adds the gradients of vertices (x and y) and values.

    Moving the surface to the right is equivalent to moving the pixel to the left, so corner i gets
    minus its barycentric weight times the slope of the interpolated value.

    Args:
        vertices: (V, 3) screen space.
        faces: (F, 3) unsigned indices of vertices.
        values: (N, C).
        corners: (F, 3) unsigned indices of the values at the corners of faces.
        face_index: (size, size) visible face, -1 for none.
        gradient: (C, size, size) gradient of the image.
        vertex_gradient: (V, 3) float64, changed in place.
        value_gradient: (N, C) float64, changed in place if `need_values`.
        need_values: whether the gradient of the values is needed.
    """
    size = face_index.shape[0]
    previous = np.int64(-1)
    ax = ay = w1x = w1y = w2x = w2y = 0.0
    for j in range(size):
        y = (size - 1 - 2 * j) / size
        for i in range(size):
            f = face_index[j, i]
            if f < 0:
                continue
            # As in `interpolate`: plane of the face, weights at the pixel
            if f != previous:
                ax, ay, w1x, w1y, w2x, w2y = _plane(vertices, faces, f)
                previous = f
            x = (2 * i + 1 - size) / size - ax
            w1 = x * w1x + (y - ay) * w1y
            w2 = x * w2x + (y - ay) * w2y
            w0 = 1.0 - w1 - w2
            a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
            # Gradients of the values, and of the interpolated value along the edges from corner 0
            along1 = along2 = 0.0
            for k in range(values.shape[1]):
                g = np.float64(gradient[k, j, i])
                along1 += g * (values[b, k] - values[a, k])
                along2 += g * (values[c, k] - values[a, k])
                if need_values:
                    value_gradient[a, k] += w0 * g
                    value_gradient[b, k] += w1 * g
                    value_gradient[c, k] += w2 * g
            # Slope of the interpolated value on the screen, shared among the three corners
            slope_x, slope_y = along1 * w1x + along2 * w2x, along1 * w1y + along2 * w2y
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            vertex_gradient[a, 0] -= w0 * slope_x
            vertex_gradient[a, 1] -= w0 * slope_y
            vertex_gradient[b, 0] -= w1 * slope_x
            vertex_gradient[b, 1] -= w1 * slope_y
            vertex_gradient[c, 0] -= w2 * slope_x
            vertex_gradient[c, 1] -= w2 * slope_y
