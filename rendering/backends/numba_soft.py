"""Compiled soft silhouette of one image, its gradient, and the fused comparison with a mask.

Conventions as in `numba_coverage`. In the soft pass a pixel stays open while it is not covered and
has met fewer than `max_faces` faces. Only the pixels that a face has met are stored; the gradient
computes distances and probabilities anew, which takes less time than to keep them.
"""

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rendering.backends.numba_bit_masks import (
    POSITIONS,
    any_open,
    eight_columns,
    show_covered,
    summarize,
    write_positions,
)
from rendering.backends.numba_coverage import (
    columns_between,
    corners_of,
    cover,
    rows_between,
    to_pixels,
)
from rendering.backends.numba_scratch import LANES, NOWHERE, Scratch
from utils.numba_jit import Array, Decorator, compiled, compiled_finite, compiled_sums

_intrinsic = cast(Decorator, intrinsic)
_LN2 = 0.6931471805599453
# Above this power of one half p is 0: squares of smaller ones are denormal numbers, which are slow
_VANISHED = np.float32(48)
_TINY = 1e-12  # squared pixels; edges shorter than this are points


@_intrinsic
def _float_from_bits(typingctx: Any, bits: Any) -> Any:
    """Reinterprets an int32 as a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@compiled_finite
def _power_of_half(x: float) -> Any:
    """Returns 2^-x for x >= 0 in single precision, 3e-7 relative; 0 above 48."""
    # 2^-x = 2^-n 2^r with |r| <= 1 / 2
    z = min(x, _VANISHED)
    n = np.int32(z + np.float32(0.5))
    r = np.float32(n) - z
    # Taylor series of degree 6, in Horner form
    series = np.float32(_LN2**6 / 720)
    series = series * r + np.float32(_LN2**5 / 120)
    series = series * r + np.float32(_LN2**4 / 24)
    series = series * r + np.float32(_LN2**3 / 6)
    series = series * r + np.float32(_LN2**2 / 2)
    series = series * r + np.float32(_LN2)
    series = series * r + np.float32(1.0)
    # 2^-n is assembled from its exponent bits
    power = series * _float_from_bits(np.int32((np.int32(127) - n) << np.int32(23)))
    return power if x < _VANISHED else np.float32(0)


@compiled
def _steepness(sharpness: float, size: int) -> Any:
    """Falloff per squared pixel, as a power of two: exp(-sharpness * d^2) of screen units."""
    return np.float32(sharpness * 4.0 / (_LN2 * size * size))


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


@compiled_finite
def _edges(corners: Any) -> Any:
    """Vectors of the edges 01, 12 and 20, and the reciprocals of their squared lengths."""
    ax, ay, bx, by, cx, cy = corners
    one, tiny = np.float32(1), np.float32(_TINY)
    ux, uy, vx, vy, wx, wy = bx - ax, by - ay, cx - bx, cy - by, ax - cx, ay - cy
    # Degenerate edges count as points
    iu = one / max(ux * ux + uy * uy, tiny)
    iv = one / max(vx * vx + vy * vy, tiny)
    iw = one / max(wx * wx + wy * wy, tiny)
    return ux, uy, vx, vy, wx, wy, iu, iv, iw


@compiled_finite
def _nearest(corners: Any, edges: Any, x: float, y: float) -> Any:
    """With c the point of the outline nearest to (x, y): (x, y) - c, its square, c's weights 1, 2."""
    ax, ay, bx, by, cx, cy = corners
    ux, uy, vx, vy, wx, wy, iu, iv, iw = edges
    one, zero = np.float32(1), np.float32(0)
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
    return px, py, d, w1, w2


@compiled_finite
def _shade(
    corners: Any, half: float, steepness: float, pixel: Array, begin: int, end: int, shade: Array
) -> None:
    """Writes p of the pixels [begin, end) of a face: 2^(-steepness * d^2), d being the distance."""
    edges = _edges(corners)
    center = np.float32(half)
    for m in range(end - begin):
        place = pixel[np.uint64(begin + m)]
        x = np.float32(np.int32(place & np.int32(0xFFFF))) - center
        y = np.float32(np.int32(place >> np.int32(16))) - center
        d = _nearest(corners, edges, x, y)[2]
        shade[np.uint64(m)] = _power_of_half(np.float32(steepness * d))


@compiled
def _soften(
    vertices: Array,
    faces: Array,
    size: int,
    sharpness: float,
    box_length: float,
    max_faces: int,
    s: Scratch,
    alpha: Array,
) -> int:
    """Adds the falloff of all faces to alpha, 0 at open pixels, and stores the pixels they meet.

    Returns the number of entries in `s.pixel`, or -1 when the capacity was too small.
    """
    half = 0.5 * (size - 1)
    margin = box_length * 0.5 * size
    steepness = _steepness(sharpness, size)
    points, open_pixels, met = s.points, s.open, s.met
    pixel, shade, starts = s.pixel, s.shade, s.starts
    one, width = np.float32(1), np.uint64(size)
    met[:] = 0
    summarize(open_pixels, size, s.bands)
    n = 0  # next entry
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
        if n + (bottom - top + 1) * (last - first + 1) + LANES > len(pixel):
            return -1
        # List the open pixels of the box, 8 columns at a time
        m = np.uint64(n)
        for column in range(first, last + 1, 8):
            wanted = np.uint64(0xFF) >> np.uint64(max(7 + column - last, 0))
            for row in range(top, bottom + 1):
                bits = eight_columns(open_pixels, np.uint64(row), column) & wanted
                place = np.int32(row << 16 | column)
                # Always 8; the next ones overwrite what is too much
                positions = POSITIONS[bits]
                write_positions(pixel, m, place, positions)
                m += np.uint64(positions >> np.uint32(28))
        end = np.int64(m)
        if end == n:
            continue
        # Fill the last block of 8
        stop = n + ((end - n + LANES - 1) & -LANES)
        pixel[end:stop] = NOWHERE
        # Distances and probabilities of all fragments of the face
        if _reaches_far(corners, size):
            _shade(_exact_corners(vertices, faces, f, size), half, steepness, pixel, n, stop, shade)
        else:
            _shade(corners, half, steepness, pixel, n, stop, shade)
        # 1 - alpha is the product of 1 - p; a pixel that has met enough faces is closed
        for m in range(n, end):
            place = np.uint64(pixel[np.uint64(m)])
            row, column = place >> np.uint64(16), place & np.uint64(0xFFFF)
            p = row * width + column
            alpha[p] += (one - alpha[p]) * shade[np.uint64(m - n)]
            met[p] += np.uint8(1)
            if met[p] == max_faces:
                bit = np.uint64(1) << (column & np.uint64(63))
                open_pixels[row, column >> np.uint64(6)] &= ~bit
        n = stop
    starts[faces.shape[0]] = n
    return n


@compiled_sums
def _face_gradient(
    corners: Any,
    size: int,
    steepness: float,
    pixel: Array,
    begin: int,
    end: int,
    alpha: Array,
    given: Array,
) -> Any:
    """Sums g * offset over the fragments of a face, g in terms of p, distributed over its corners."""
    edges = _edges(corners)
    center, one, zero = np.float32(0.5 * (size - 1)), np.float32(1), np.float32(0)
    x0 = y0 = x1 = y1 = x2 = y2 = zero
    width = np.int32(size)
    for m in range(begin, end):
        place = pixel[np.uint64(m)]
        i, j = np.int32(place & np.int32(0xFFFF)), np.int32(place >> np.int32(16))
        dx, dy, d, w1, w2 = _nearest(corners, edges, np.float32(i) - center, np.float32(j) - center)
        shade = _power_of_half(np.float32(steepness * d))
        # Derivative of 1 - prod(1 - p); unused lanes count nothing
        p = np.uint64(np.int32(j * width + i)) if place >= 0 else np.uint64(0)
        g = given[p] * (one - alpha[p]) * shade / (one - shade + np.float32(1e-7))
        g = g if place >= 0 else zero
        x, y = g * np.float32(dx), g * np.float32(dy)
        w1, w2 = np.float32(w1), np.float32(w2)
        x0 += x
        y0 += y
        x1 += w1 * x
        y1 += w1 * y
        x2 += w2 * x
        y2 += w2 * y
    return x0 - x1 - x2, y0 - y1 - y2, x1, y1, x2, y2


@compiled
def soft_gradient(
    vertices: Array,
    faces: Array,
    size: int,
    sharpness: float,
    points: Array,
    pixel: Array,
    starts: Array,
    alpha: Array,
    given: Array,
    gradient: Array,
) -> None:
    """Adds the gradient of the soft silhouette to vertices.

    Args:
        vertices: (V, 3) screen space.
        faces: (F, 3) vertex indices.
        size: pixels.
        sharpness: inverse softness of the edge.
        points: (V, 2) vertices in pixels.
        pixel: fragments as left by the forward pass.
        starts: (F + 1,) first fragment of each face.
        alpha: (size * size,) as left by the forward pass.
        given: (size * size,) gradient of alpha.
        gradient: (V, 3), changed in place.
    """
    steepness = _steepness(sharpness, size)
    # A factor 2 of the squared distance, and 2 / size screen units per pixel
    factor = np.float32(4.0 * sharpness / size)
    for f in range(faces.shape[0]):
        begin, end = starts[f], starts[f + 1]
        if begin == end:
            continue
        # As in the forward pass
        corners = corners_of(points, faces, f)
        fragments = (size, steepness, pixel, begin, end, alpha, given)
        if _reaches_far(corners, size):
            exact = _exact_corners(vertices, faces, f, size)
            x0, y0, x1, y1, x2, y2 = _face_gradient(exact, *fragments)
        else:
            x0, y0, x1, y1, x2, y2 = _face_gradient(corners, *fragments)
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

    Returns the number of fragments, or -1 when the scratch has too little capacity.
    """
    # Covered pixels first: they have alpha 1 and need no fragments
    to_pixels(vertices, size, s.points)
    cover(s.points, faces, size, cull, s.open)
    show_covered(s.open, size, coverage)
    alpha[:] = coverage
    # Then the falloff around the outline
    return _soften(vertices, faces, size, sharpness, box_length, max_faces, s, alpha)


@compiled_sums
def _compare(target: Array, alpha: Array, given: Array) -> Any:
    """Squared error and IoU (both at 0.5) of alpha; writes the gradient of the mean squared error."""
    size = target.shape[0]
    twice_mean = np.float32(2.0 / (size * size))
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    total = both = either = 0.0
    for j in range(size):
        # Row sums in single precision vectorize, their total is kept in double precision
        row_error = row_both = row_either = zero
        for i in range(size):
            p = np.uint64(j * size + i)
            error = alpha[p] - target[j, i]
            given[p] = twice_mean * error
            row_error += error * error
            inside = one if alpha[p] > half else zero
            expected = one if target[j, i] > half else zero
            row_both += inside * expected
            row_either += max(inside, expected)
        total += row_error
        both += row_both
        either += row_either
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
        show_covered(s.open, size, s.alpha)
        # Render, compare and differentiate while the buffers are in the cache
        n = _soften(vertices[b], faces, size, sharpness, box_length, max_faces, s, s.alpha)
        if n < 0:
            return b
        error, iou[b] = _compare(target, s.alpha, s.given)
        loss[b] = error / pixels
        mesh = (vertices[b], faces, size, sharpness, s.points)
        soft_gradient(*mesh, s.pixel, s.starts, s.alpha, s.given, gradient[b])
    return end
