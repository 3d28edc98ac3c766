"""Compiled loops of the CPU rasterizer: coverage, soft silhouette, depth test and interpolation.

Every kernel works on one image, serially. Coordinates are pixels with the origin in the middle of
the image, x right and y down, so that mirrored meshes give mirrored numbers and sizes that are
powers of two cost no rounding. Pixel (row j, column i) has its center at (i - half, j - half) with
half = (size - 1) / 2. Sets of pixels are bit masks of 64 columns a word; a set bit is *open*: not
covered and with fewer than `max_faces` faces met by the soft pass.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rendering.backends.numba_scratch import Array, Scratch

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
_SUMS = _OPTIONS | {"fastmath": {"reassoc", "contract", "nsz", "nnan", "ninf"}}
_FAR = 1e8  # pixels; keeps products of coordinates finite in single precision
_TINY = 1e-12  # squared pixels; edges shorter than this are points
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@intrinsic
def _lowest_bit(typingctx: Any, bits: Any) -> Any:
    """Index of the lowest set bit of a non-zero uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic
def _float_from_bits(typingctx: Any, bits: Any) -> Any:
    """Reinterprets an int32 as a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(**_OPTIONS)
def _exp_negative(x: float) -> float:
    """Returns exp(-x) for x >= 0 in single precision, 3e-7 relative; 0 above about 87."""
    z = np.float32(1.44269504) * min(x, np.float32(87.0))
    n = np.int32(z + np.float32(0.5))
    r = (np.float32(n) - z) * np.float32(0.69314718)
    series = np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(0.5)
    series = series * r + np.float32(1.0)
    series = series * r + np.float32(1.0)
    return series * _float_from_bits(np.int32((np.int32(127) - n) << np.int32(23)))


@njit(**_OPTIONS)
def _to_pixels(vertices: Array, size: int, points: Array) -> None:
    half = np.float32(0.5 * size)
    far = np.float32(_FAR)
    for v in range(vertices.shape[0]):
        points[v, 0] = min(max(vertices[v, 0] * half, -far), far)
        points[v, 1] = min(max(-vertices[v, 1] * half, -far), far)


@njit(**_OPTIONS)
def _range(low: float, high: float, half: float, size: int) -> tuple[int, int]:
    """First and last pixel of [low, high): half open towards growing coordinates."""
    return max(math.ceil(low + half), 0), min(math.ceil(high + half) - 1, size - 1)


@njit(**_OPTIONS)
def _rows(low: float, high: float, half: float, size: int) -> tuple[int, int]:
    """First and last row of (low, high]: half open towards growing y, which is up."""
    return max(math.floor(low + half) + 1, 0), min(math.floor(high + half), size - 1)


@njit(**_OPTIONS)
def _slope(ax: float, ay: float, bx: float, by: float) -> float:
    return (bx - ax) / (by - ay) if by > ay else 0.0


@njit(**_OPTIONS)
def _outline(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> Any:
    """Corners from top to bottom and slopes dx/dy, equal for both faces of a shared edge."""
    if by < ay:
        ax, ay, bx, by = bx, by, ax, ay
    if cy < by:
        bx, by, cx, cy = cx, cy, bx, by
    if by < ay:
        ax, ay, bx, by = bx, by, ax, ay
    slopes = (_slope(ax, ay, cx, cy), _slope(ax, ay, bx, by), _slope(bx, by, cx, cy))
    return ax, ay, bx, by, slopes


@njit(**_OPTIONS)
def _span(outline: Any, y: float, half: float, first: int, last: int) -> tuple[int, int]:
    """Columns that the triangle covers at height y, edges included, within [first, last]."""
    ax, ay, bx, by, slopes = outline
    left = ax + (y - ay) * slopes[0]
    right = ax + (y - ay) * slopes[1] if y < by else bx + (y - by) * slopes[2]
    if right < left:
        left, right = right, left
    return max(math.ceil(left + half), first), min(math.floor(right + half), last)


@njit(**_OPTIONS)
def _word_mask(word: int, first: int, last: int) -> Any:
    """Bits of columns [first, last] that lie in a word of 64 columns."""
    low = max(first - 64 * word, 0)
    high = min(last - 64 * word, 63)
    return (_ALL << np.uint64(low)) & (_ALL >> np.uint64(63 - high))


@njit(**_OPTIONS)
def _corners(points: Array, faces: Array, f: int) -> Any:
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    return points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]


@njit(**_OPTIONS)
def _twice_area(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
    """Positive for faces that turn towards the viewer (y points down here)."""
    ax, ay = np.float64(ax), np.float64(ay)
    return (by - ay) * (cx - ax) - (bx - ax) * (cy - ay)


@njit(**_OPTIONS)
def _cover(points: Array, faces: Array, size: int, cull: bool, open_pixels: Array) -> None:
    """Opens all pixels, then closes those that a face covers."""
    half = 0.5 * (size - 1)
    for word in range(open_pixels.shape[1]):
        open_pixels[:, word] = _word_mask(word, 0, size - 1)
    for f in range(faces.shape[0]):
        ax, ay, bx, by, cx, cy = _corners(points, faces, f)
        area = _twice_area(ax, ay, bx, by, cx, cy)
        if area == 0.0 or (cull and area < 0.0):
            continue
        top, bottom = _rows(min(ay, by, cy), max(ay, by, cy), half, size)
        first, last = _range(min(ax, bx, cx), max(ax, bx, cx), half, size)
        if top > bottom or first > last:
            continue
        outline = _outline(ax, ay, bx, by, cx, cy)
        for j in range(top, bottom + 1):
            begin, end = _span(outline, j - half, half, first, last)
            if begin <= end:
                for word in range(begin >> 6, (end >> 6) + 1):
                    open_pixels[j, word] &= ~_word_mask(word, begin, end)


@njit(**_OPTIONS)
def _collect(box: Any, max_faces: int, n: int, s: Scratch, size: int) -> int:
    """Lists the open pixels of a box from fragment n on and counts them; returns how many."""
    top, bottom, first, last = box
    half = np.float32(0.5 * (size - 1))
    open_pixels, count, column, row, pixel = s.open, s.count, s.column, s.row, s.pixel
    m = np.uint64(0)
    n = np.uint64(n)
    for j in range(top, bottom + 1):
        y = np.float32(j) - half
        for word in range(first >> 6, (last >> 6) + 1):
            bits = open_pixels[j, word] & _word_mask(word, first, last)
            while bits != np.uint64(0):
                bit = _lowest_bit(bits)
                bits &= bits - np.uint64(1)
                i = np.uint64(64 * word) + bit
                p = np.uint64(j * size) + i
                count[p] += np.uint8(1)
                if count[p] == max_faces:
                    open_pixels[j, word] &= ~(np.uint64(1) << bit)
                pixel[n + m] = p
                column[m] = np.float32(i) - half
                row[m] = y
                m += np.uint64(1)
    return np.int64(m)


@njit(**_SUMS)
def _nearest_points(corners: Any, m: int, n: int, column: Array, row: Array, out: Array) -> None:
    """Offset from the nearest point of the outline to each pixel, and that point's weights."""
    ax, ay, bx, by, cx, cy = corners
    one, zero, tiny = np.float32(1), np.float32(0), np.float32(_TINY)
    ux, uy, vx, vy, wx, wy = bx - ax, by - ay, cx - bx, cy - by, ax - cx, ay - cy
    iu = one / max(ux * ux + uy * uy, tiny)
    iv = one / max(vx * vx + vy * vy, tiny)
    iw = one / max(wx * wx + wy * wy, tiny)
    out_x, out_y, out_1, out_2 = out[0, n:], out[1, n:], out[2, n:], out[3, n:]
    for k in range(m):
        x, y = column[k], row[k]
        px, py, qx, qy, rx, ry = x - ax, y - ay, x - bx, y - by, x - cx, y - cy
        t = min(max((px * ux + py * uy) * iu, zero), one)
        px, py = px - t * ux, py - t * uy
        d = px * px + py * py
        w1, w2 = t, zero
        t = min(max((qx * vx + qy * vy) * iv, zero), one)
        qx, qy = qx - t * vx, qy - t * vy
        e = qx * qx + qy * qy
        nearer = e < d
        d, px, py = (e, qx, qy) if nearer else (d, px, py)
        w1, w2 = (one - t, t) if nearer else (w1, w2)
        t = min(max((rx * wx + ry * wy) * iw, zero), one)
        rx, ry = rx - t * wx, ry - t * wy
        nearer = rx * rx + ry * ry < d
        out_x[k], out_y[k] = (rx, ry) if nearer else (px, py)
        out_1[k], out_2[k] = (zero, one - t) if nearer else (w1, w2)


@njit(**_SUMS)
def _probabilities(m: int, n: int, sharpness: float, factor: Array, out: Array) -> None:
    """Factors 1 - p of the pixels; offsets become offset * p / (1 - p) for the gradient."""
    out_x, out_y = out[0, n:], out[1, n:]
    for k in range(m):
        x, y = out_x[k], out_y[k]
        p = _exp_negative(sharpness * (x * x + y * y))
        q = np.float32(1) - p
        ratio = p / (q + np.float32(1e-7))
        factor[k] = q
        out_x[k] = x * ratio
        out_y[k] = y * ratio


@njit(**_OPTIONS)
def _soften(
    faces: Array, size: int, sharpness: float, box_length: float, max_faces: int, s: Scratch
) -> int:
    """Multiplies (1 - p) of all faces near each open pixel into `keep`, storing fragments.

    Returns the number of fragments, or -1 when the capacity was too small.
    """
    half = 0.5 * (size - 1)
    margin = box_length * 0.5 * size
    scaled = np.float32(sharpness * 4.0 / (size * size))
    points, keep, factor, pixel, starts = s.points, s.keep, s.factor, s.pixel, s.starts
    keep[:] = 1
    s.count[:] = 0
    n = 0
    for f in range(faces.shape[0]):
        starts[f] = n
        corners = _corners(points, faces, f)
        ax, ay, bx, by, cx, cy = corners
        top, bottom = _rows(min(ay, by, cy) - margin, max(ay, by, cy) + margin, half, size)
        first, last = _range(min(ax, bx, cx) - margin, max(ax, bx, cx) + margin, half, size)
        if top > bottom or first > last:
            continue
        if n + (bottom - top + 1) * (last - first + 1) > pixel.shape[0]:
            return -1
        m = _collect((top, bottom, first, last), max_faces, n, s, size)
        if m == 0:
            continue
        _nearest_points(corners, m, n, s.column, s.row, s.fragments)
        _probabilities(m, n, scaled, factor, s.fragments)
        for k in range(m):
            keep[pixel[n + k]] *= factor[k]
        n += m
    starts[faces.shape[0]] = n
    return n


@njit(**_SUMS)
def _face_gradient(begin: int, end: int, pixel: Array, fragments: Array, weight: Array) -> Any:
    """Sums weight * offset over the fragments of one face, and its shares of corners 1 and 2."""
    x0 = y0 = x1 = y1 = x2 = y2 = np.float32(0)
    for k in range(begin, end):
        g = weight[pixel[k]]
        x, y = g * fragments[0, k], g * fragments[1, k]
        x0 += x
        y0 += y
        x1 += fragments[2, k] * x
        y1 += fragments[2, k] * y
        x2 += fragments[3, k] * x
        y2 += fragments[3, k] * y
    return x0 - x1 - x2, y0 - y1 - y2, x1, y1, x2, y2


@njit(**_OPTIONS)
def scatter(
    faces: Array,
    pixel: Array,
    fragments: Array,
    starts: Array,
    weight: Array,
    scale: float,
    gradient: Array,
) -> None:
    """Adds the gradient of the soft silhouette to vertices.

    Args:
        faces: (F, 3) vertex indices.
        pixel: (n,) flat pixel index of each fragment.
        fragments: (4, n) weighted offsets and corner weights.
        starts: (F + 1,) first fragment of each face.
        weight: (size * size,) factor of each pixel.
        scale: common factor.
        gradient: (V, 3), changed in place.
    """
    scale = np.float32(scale)
    for f in range(faces.shape[0]):
        begin, end = np.int64(starts[f]), np.int64(starts[f + 1])
        if begin == end:
            continue
        x0, y0, x1, y1, x2, y2 = _face_gradient(begin, end, pixel, fragments, weight)
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        gradient[a, 0] += scale * x0
        gradient[a, 1] -= scale * y0
        gradient[b, 0] += scale * x1
        gradient[b, 1] -= scale * y1
        gradient[c, 0] += scale * x2
        gradient[c, 1] -= scale * y2


@njit(**_OPTIONS)
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
    """Renders alpha and coverage (size, size) of one mesh; fragments stay in the scratch.

    Returns the number of fragments, or -1 when the scratch has too little capacity.
    """
    _to_pixels(vertices, size, s.points)
    _cover(s.points, faces, size, cull, s.open)
    for j in range(size):
        for i in range(size):
            open_bit = (s.open[j, i >> 6] >> np.uint64(i & 63)) & np.uint64(1)
            coverage[j, i] = np.float32(1) - np.float32(open_bit)
    n = _soften(faces, size, sharpness, box_length, max_faces, s)
    if n < 0:
        return n
    for j in range(size):
        for i in range(size):
            covered = coverage[j, i] > 0
            alpha[j, i] = np.float32(1) if covered else np.float32(1) - s.keep[j * size + i]
    for k in range(n):
        keep = s.keep[s.pixel[k]]
        s.fragments[0, k] *= keep
        s.fragments[1, k] *= keep
    return n


@njit(**_SUMS)
def _compare(target: Array, open_pixels: Array, keep: Array) -> Any:
    """Squared error and IoU (both at 0.5) of 1 - keep; `keep` becomes error * keep."""
    size = target.shape[0]
    half, one = np.float32(0.5), np.float32(1)
    total = 0.0
    both = either = np.int64(0)
    for j in range(size):
        error_sum = np.float32(0)
        row_both = row_either = np.int32(0)
        for i in range(size):
            bit = (open_pixels[j, i >> 6] >> np.uint64(i & 63)) & np.uint64(1)
            k = keep[j * size + i] * np.float32(np.int32(bit))
            wanted = target[j, i]
            error = one - k - wanted
            keep[j * size + i] = error * k
            error_sum += error * error
            inside, expected = np.int32(k < half), np.int32(wanted > half)
            row_both += inside & expected
            row_either += inside | expected
        total += error_sum
        both += row_both
        either += row_either
    return total, both / (either + 1e-6)


@njit(**_OPTIONS)
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
        _to_pixels(vertices[b], size, s.points)
        _cover(s.points, faces, size, cull, s.open)
        n = _soften(faces, size, sharpness, box_length, max_faces, s)
        if n < 0:
            return b
        error, iou[b] = _compare(target, s.open, s.keep)
        loss[b] = error / pixels
        scale = 4.0 * sharpness / size * 2.0 / pixels
        scatter(faces, s.pixel, s.fragments, s.starts, s.keep, scale, gradient[b])
    return end
