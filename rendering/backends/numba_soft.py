"""Compiled soft silhouette of one image, its gradient, and the fused comparison with a mask.

Conventions as in `numba_coverage`. In the soft pass a pixel stays open while it is not covered and
has met fewer than `max_faces` faces.
"""

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rendering.backends.numba_bit_masks import any_open, lowest_bit, mark_open, summarize, tile
from rendering.backends.numba_coverage import (
    columns_between,
    corners_of,
    cover,
    rows_between,
    to_pixels,
)
from rendering.backends.numba_scratch import BLOCK_ROWS, LANES, Scratch
from utils.numba_jit import Array, Decorator, compiled, compiled_sums

_intrinsic = cast(Decorator, intrinsic)
_TINY = 1e-12  # squared pixels; edges shorter than this are points
_LANES = np.uint64(LANES)
_LANE_MASK = np.uint64(LANES - 1)
_Y, _W1, _W2, _Q, _BLOCK = (np.uint64(row * LANES) for row in (1, 2, 3, 4, BLOCK_ROWS))


@_intrinsic
def _float_from_bits(typingctx: Any, bits: Any) -> Any:
    """Reinterprets an int32 as a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@compiled
def _exp_negative(x: float) -> float:
    """Returns exp(-x) for x >= 0 in single precision, 3e-7 relative; 0 above about 87."""
    # exp(-x) = 2^-n exp(r) with |r| <= ln(2) / 2
    z = np.float32(1.44269504) * min(x, np.float32(87.0))
    n = np.int32(z + np.float32(0.5))
    r = (np.float32(n) - z) * np.float32(0.69314718)
    # Taylor series of degree 6, in Horner form
    series = np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(0.5)
    series = series * r + np.float32(1.0)
    series = series * r + np.float32(1.0)
    # 2^-n is assembled from its exponent bits
    return series * _float_from_bits(np.int32((np.int32(127) - n) << np.int32(23)))


@compiled
def _reaches_far(corners: Any, size: int) -> bool:
    """Whether a face is too large or too far away for single precision."""
    ax, ay, bx, by, cx, cy = corners
    widest = max(abs(ax), abs(bx), abs(cx))
    return max(widest, abs(ay), abs(by), abs(cy)) > size


@compiled
def _exact_corners(vertices: Array, faces: Array, f: int, size: int) -> Any:
    """As `corners_of`, in double precision."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    h = 0.5 * size
    ax, ay = h * vertices[a, 0], -h * vertices[a, 1]
    bx, by = h * vertices[b, 0], -h * vertices[b, 1]
    return ax, ay, bx, by, h * vertices[c, 0], -h * vertices[c, 1]


@compiled_sums
def _shade(corners: Any, begin: int, end: int, sharpness: float, blocks: Array) -> None:
    """Turns pixel positions in blocks [begin, end) into fragments of a face.

    With c the nearest point of the outline and p = exp(-sharpness * |pixel - c|^2), a lane gets
    (pixel - c) * p / (1 - p), the weights of corners 1 and 2 in c, and 1 - p.
    """
    ax, ay, bx, by, cx, cy = corners
    one, zero, tiny = np.float32(1), np.float32(0), np.float32(_TINY)
    ux, uy, vx, vy, wx, wy = bx - ax, by - ay, cx - bx, cy - by, ax - cx, ay - cy
    # Reciprocals of squared edge lengths; degenerate edges count as points
    iu = one / max(ux * ux + uy * uy, tiny)
    iv = one / max(vx * vx + vy * vy, tiny)
    iw = one / max(wx * wx + wy * wy, tiny)
    for block in range(begin, end):
        base = np.uint64(block) * _BLOCK
        for lane in range(LANES):
            k = base + np.uint64(lane)
            x, y = blocks[k], blocks[k + _Y]
            px, py, qx, qy, rx, ry = x - ax, y - ay, x - bx, y - by, x - cx, y - cy
            # Nearest point on edge 01
            t = min(max((px * ux + py * uy) * iu, zero), one)
            px, py = px - t * ux, py - t * uy
            d = px * px + py * py
            w1, w2 = t, zero
            # Nearest point on edge 12, if it is nearer
            t = min(max((qx * vx + qy * vy) * iv, zero), one)
            qx, qy = qx - t * vx, qy - t * vy
            e = qx * qx + qy * qy
            nearer = e < d
            d = e if nearer else d
            px = qx if nearer else px
            py = qy if nearer else py
            w1 = one - t if nearer else w1
            w2 = t if nearer else w2
            # Nearest point on edge 20, if it is nearer
            t = min(max((rx * wx + ry * wy) * iw, zero), one)
            rx, ry = rx - t * wx, ry - t * wy
            e = rx * rx + ry * ry
            nearer = e < d
            d = e if nearer else d
            px = rx if nearer else px
            py = ry if nearer else py
            w1 = zero if nearer else w1
            w2 = one - t if nearer else w2
            # The fragment, with the ratio that the gradient of 1 - prod(1 - p) needs
            p = _exp_negative(np.float32(sharpness * d))
            q = one - p
            ratio = p / (q + np.float32(1e-7))
            blocks[k] = px * ratio
            blocks[k + _Y] = py * ratio
            blocks[k + _W1] = w1
            blocks[k + _W2] = w2
            blocks[k + _Q] = q


@compiled
def _soften(
    vertices: Array,
    faces: Array,
    size: int,
    sharpness: float,
    box_length: float,
    max_faces: int,
    s: Scratch,
) -> Any:
    """Multiplies (1 - p) of all faces near each open pixel into `keep`, storing fragments.

    Returns the number of blocks of fragments, or -1 when the capacity was too small.
    """
    half = 0.5 * (size - 1)
    margin = box_length * 0.5 * size
    scaled = np.float32(sharpness * 4.0 / (size * size))
    points, open_pixels, met, keep = s.points, s.open, s.met, s.keep
    pixel, blocks, starts = s.pixel, s.blocks, s.starts
    center, one, nowhere = np.float32(half), np.uint64(1), np.uint32(size * size)
    met[:] = 0
    summarize(open_pixels, size, s.bands)
    n = np.uint64(0)  # next block
    for f in range(faces.shape[0]):
        starts[f] = n
        corners = corners_of(points, faces, f)
        ax, ay, bx, by, cx, cy = corners
        # Skip faces whose widened box has no open pixel
        top, bottom = rows_between(min(ay, by, cy) - margin, max(ay, by, cy) + margin, half, size)
        first, last = columns_between(
            min(ax, bx, cx) - margin, max(ax, bx, cx) + margin, half, size
        )
        if top > bottom or first > last:
            continue
        if not any_open(s.bands, top, bottom, first, last):
            continue
        # The caller retries with larger buffers
        if (np.int64(n) + 1) * LANES + (bottom - top + 1) * (last - first + 1) > len(pixel):
            return -1
        # List the open pixels of the box; in a function of its own this takes a fifth more time
        m = n * _LANES
        for tile_top in range(top, bottom + 1, 8):
            for tile_first in range(first, last + 1, 8):
                bits = tile(open_pixels, tile_top, bottom, tile_first, last)
                while bits != np.uint64(0):
                    bit = np.int64(lowest_bit(bits))
                    bits &= bits - one
                    i, j = tile_first + (bit & 7), tile_top + (bit >> 3)
                    p = np.uint64(j * size + i)
                    # A pixel that has met enough faces is closed
                    met[p] += np.uint8(1)
                    if met[p] == max_faces:
                        open_pixels[j, i >> 6] &= ~(one << np.uint64(i & 63))
                    pixel[m] = p
                    k = m // _LANES * _BLOCK + (m & _LANE_MASK)
                    blocks[k] = np.float32(i) - center
                    blocks[k + _Y] = np.float32(j) - center
                    m += one
        if m == n * _LANES:
            continue
        used = m
        # Fill the last block with lanes that point nowhere
        while m & _LANE_MASK != np.uint64(0):
            pixel[m] = nowhere
            m += one
        end = m // _LANES
        # Distances, probabilities and weights of all fragments of the face
        if _reaches_far(corners, size):
            _shade(_exact_corners(vertices, faces, f, size), n, end, scaled, blocks)
        else:
            _shade(corners, n, end, scaled, blocks)
        # alpha = 1 - prod(1 - p)
        for m in range(n * _LANES, used):
            keep[pixel[m]] *= blocks[m // _LANES * _BLOCK + _Q + (m & _LANE_MASK)]
        n = end
    starts[faces.shape[0]] = n
    return np.int64(n)


@compiled_sums
def _face_gradient(begin: int, end: int, pixel: Array, blocks: Array, weight: Array) -> Any:
    """Sums weight * offset over the fragments of one face, distributed over its three corners."""
    x0 = y0 = x1 = y1 = x2 = y2 = np.float32(0)
    for block in range(begin, end):
        base = np.uint64(block) * _BLOCK
        for lane in range(LANES):
            k = base + np.uint64(lane)
            g = weight[pixel[np.uint64(block) * _LANES + np.uint64(lane)]]
            x, y = g * blocks[k], g * blocks[k + _Y]
            x0 += x
            y0 += y
            x1 += blocks[k + _W1] * x
            y1 += blocks[k + _W1] * y
            x2 += blocks[k + _W2] * x
            y2 += blocks[k + _W2] * y
    return x0 - x1 - x2, y0 - y1 - y2, x1, y1, x2, y2


@compiled
def scatter(
    faces: Array,
    pixel: Array,
    blocks: Array,
    starts: Array,
    weight: Array,
    scale: float,
    gradient: Array,
) -> None:
    """Adds the gradient of the soft silhouette to vertices.

    Args:
        faces: (F, 3) vertex indices.
        pixel: flat pixel index of each fragment.
        blocks: fragments as left by the forward pass.
        starts: (F + 1,) first block of each face.
        weight: (size * size + 1,) factor of each pixel; the last, for unused lanes, is 0.
        scale: common factor.
        gradient: (V, 3), changed in place.
    """
    factor = np.float32(scale)
    for f in range(faces.shape[0]):
        begin, end = starts[f], starts[f + 1]
        if begin == end:
            continue
        x0, y0, x1, y1, x2, y2 = _face_gradient(begin, end, pixel, blocks, weight)
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        gradient[a, 0] += factor * x0
        gradient[a, 1] -= factor * y0
        gradient[b, 0] += factor * x1
        gradient[b, 1] -= factor * y1
        gradient[c, 0] += factor * x2
        gradient[c, 1] -= factor * y2


@compiled
def soft_silhouette(
    vertices: Array,
    faces: Array,
    size: int,
    sharpness: float,
    cull: bool,
    box_length: float,
    max_faces: int,
    s: Scratch,
    alpha: Array,
    coverage: Array,
) -> int:
    """Renders alpha and coverage (size * size) of one mesh; fragments stay in the scratch.

    Returns the number of blocks of fragments, or -1 when the scratch has too little capacity.
    """
    one = np.float32(1)
    # Covered pixels first: they have alpha 1 and need no fragments
    to_pixels(vertices, size, s.points)
    cover(s.points, faces, size, cull, s.open)
    mark_open(s.open, size, s.keep)
    for p in range(size * size):
        coverage[p] = one - s.keep[p]
    # Then the falloff around the outline
    n = _soften(vertices, faces, size, sharpness, box_length, max_faces, s)
    for p in range(size * size):
        alpha[p] = one - s.keep[p]
    return n


@compiled_sums
def _compare(target: Array, keep: Array) -> Any:
    """Squared error and IoU (both at 0.5) of alpha = 1 - keep; `keep` becomes error * keep."""
    size = target.shape[0]
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    total = both = either = 0.0
    for j in range(size):
        # Row sums in single precision vectorize, their total is kept in double precision
        row_error = row_both = row_either = zero
        for i in range(size):
            p = np.uint64(j * size + i)
            k = keep[p]
            error = one - k - target[j, i]
            keep[p] = error * k
            row_error += error * error
            inside = one if k < half else zero
            expected = one if target[j, i] > half else zero
            row_both += inside * expected
            row_either += max(inside, expected)
        total += row_error
        both += row_both
        either += row_either
    # Unused lanes point to the pixel past the image
    keep[size * size] = zero
    return total, both / (either + 1e-6)


@compiled
def silhouette_losses(
    vertices: Array,
    faces: Array,
    targets: Array,
    target_index: Array,
    begin: int,
    end: int,
    sharpness: float,
    cull: bool,
    box_length: float,
    max_faces: int,
    s: Scratch,
    loss: Array,
    iou: Array,
    gradient: Array,
) -> int:
    """Mean squared error, IoU and gradient of the meshes [begin, end) against their targets.

    Args:
        vertices: (B, V, 3) screen space.
        faces: (F, 3) unsigned indices.
        targets: (N, size, size) in [0, 1].
        target_index: (B,) which target belongs to each mesh.
        begin: first mesh.
        end: one past the last mesh.
        sharpness: inverse softness of the edge.
        cull: whether back faces cover nothing.
        box_length: reach of a face beyond its bounding box, screen units.
        max_faces: number of faces that a pixel takes into account.
        s: buffers of the calling thread.
        loss: (B,), written.
        iou: (B,), written.
        gradient: (B, V, 3) of the loss with respect to vertices, zero at first, written.

    Returns:
        `end`, or the mesh for which the scratch had too little capacity.
    """
    size = targets.shape[1]
    pixels = size * size
    for b in range(begin, end):
        target = targets[target_index[b]]
        to_pixels(vertices[b], size, s.points)
        cover(s.points, faces, size, cull, s.open)
        mark_open(s.open, size, s.keep)
        # Render, compare and differentiate while the buffers are in the cache
        n = _soften(vertices[b], faces, size, sharpness, box_length, max_faces, s)
        if n < 0:
            return b
        error, iou[b] = _compare(target, s.keep)
        loss[b] = error / pixels
        # 2 / pixels is that of the mean squared error, the rest that of `numba_cpu._SoftSilhouette`
        scale = 4.0 * sharpness / size * 2.0 / pixels
        scatter(faces, s.pixel, s.blocks, s.starts, s.keep, scale, gradient[b])
    return end
