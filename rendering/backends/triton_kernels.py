"""Triton kernels of the rasterizer; `triton_cuda` launches them.

Coordinates are pixels as in `triton_geometry`; pixel (row j, column i) has its center at (i - half,
j - half). No kernel uses atomics, so results do not depend on the order in which programs run.
"""

# ruff: noqa: RUF059 - constants are in capitals, arguments are pointers
# pyright: basic, reportArgumentType=false, reportOptionalMemberAccess=false, reportOperatorIssue=false

import triton
import triton.language as tl

from rendering.backends.triton_geometry import (
    barycentric,
    box,
    corners_of,
    fade,
    plane,
    side_of_edge,
)

NO_CUTOFF = tl.constexpr(0x7FFFFFFF)  # the pixel has met fewer faces than it may
COVERED = tl.constexpr(-1)  # no face counts


@triton.jit
def _nearest_faces(
    points,
    faces,
    order,
    begin,
    end,
    column,
    row,
    inside,
    size,
    CULL: tl.constexpr,
    TILE: tl.constexpr,
):
    """Index of the visible face at every pixel of a tile, -1 for none."""
    half = 0.5 * (size - 1)
    x, y = (column - half).to(tl.float32), (row - half).to(tl.float32)
    depth = tl.full((TILE * TILE,), float("-inf"), tl.float32)
    visible = tl.full((TILE * TILE,), -1, tl.int32)
    for k in range(begin, end):
        f = tl.load(order + k)
        a, b, c, ax, ay, bx, by, cx, cy = corners_of(points, faces, f)
        area, ux, uy, vx, vy = plane(ax, ay, bx, by, cx, cy)
        if area > 0 if CULL else area != 0:
            # A pixel center is covered if it lies on the inner side of three edges, or on them
            first, last, top, bottom = box(ax, ay, bx, by, cx, cy, 0.0, half, size)
            sign = tl.where(area > 0, 1.0, -1.0)
            hit = (side_of_edge(a, b, ax, ay, bx, by, x, y) * sign >= 0) & inside
            hit &= side_of_edge(b, c, bx, by, cx, cy, x, y) * sign >= 0
            hit &= side_of_edge(c, a, cx, cy, ax, ay, x, y) * sign >= 0
            hit &= (column >= first) & (column <= last) & (row >= top) & (row <= bottom)
            # Depth is affine on the screen; strictly nearer, so that the first of equal ones stays
            az = tl.load(points + 3 * a + 2).to(tl.float64)
            bz = tl.load(points + 3 * b + 2).to(tl.float64) - az
            cz = tl.load(points + 3 * c + 2).to(tl.float64) - az
            slope_x, slope_y = (cz * uy - bz * vy) / area, (bz * vx - cz * ux) / area
            z = (az + (row - half - ay) * slope_y + (column - half - ax) * slope_x).to(tl.float32)
            nearer = hit & (z > depth)
            depth = tl.where(nearer, z, depth)
            visible = tl.where(nearer, f, visible)
    return visible


@triton.jit
def _falloff(
    points,
    faces,
    order,
    begin,
    end,
    column,
    row,
    hidden,
    size,
    sharpness,
    margin,
    max_faces,
    TILE: tl.constexpr,
):
    """1 - alpha and the cutoff at every pixel of a tile; `hidden` are the pixels without a face."""
    half = 0.5 * (size - 1)
    x, y = (column - half).to(tl.float32), (row - half).to(tl.float32)
    left = tl.where(hidden, 1.0, 0.0)
    limit = tl.where(hidden, NO_CUTOFF, COVERED)
    met = tl.zeros((TILE * TILE,), tl.int32)
    # Tiles inside the silhouette have nothing to do
    if tl.max(hidden.to(tl.int32)) > 0:
        for k in range(begin, end):
            f = tl.load(order + k)
            a, b, c, ax, ay, bx, by, cx, cy = corners_of(points, faces, f)
            first, last, top, bottom = box(ax, ay, bx, by, cx, cy, margin, half, size)
            near = hidden & (met < max_faces) & (column >= first) & (column <= last)
            near &= (row >= top) & (row <= bottom)
            dx, dy, w1, w2, shown = fade(ax, ay, bx, by, cx, cy, x, y, sharpness, size)
            left = tl.where(near, left * (1.0 - shown), left)
            # The gradient needs the last face that counted
            met += near.to(tl.int32)
            limit = tl.where(near & (met == max_faces), f, limit)
    return left, limit


@triton.jit
def render_tiles(
    points,  # (B, V, 3) pixels and z
    faces,  # (F, 3) int32
    order,  # faces of all tiles, by index within a tile
    starts,  # (B * tiles^2 + 1,) first entry of each tile
    face_index,  # (B, size^2) int32, written
    keep,  # (B, size^2) 1 - alpha, or with targets (alpha - target) * (1 - alpha); written if SOFT
    cutoff,  # (B, size^2) int32 last face that counts for the soft silhouette; written if SOFT
    targets,  # (N, size^2)
    target_index,  # (B,) int32
    sums,  # (B * tiles^2, 3) squared error, intersection, union; written if COMPARE
    num_vertices,
    size,
    tiles,
    sharpness,  # per squared pixel
    margin,  # pixels
    max_faces,
    CULL: tl.constexpr,
    SOFT: tl.constexpr,
    COMPARE: tl.constexpr,
    TILE: tl.constexpr,
):
    """Renders a tile of TILE x TILE pixels: its nearest faces, then its soft silhouette."""
    # Position of the program: image, tile, and a pixel for every lane
    program = tl.program_id(0).to(tl.int64)
    image = program // (tiles * tiles)
    tile = (program % (tiles * tiles)).to(tl.int32)
    points += image * num_vertices * 3
    lane = tl.arange(0, TILE * TILE)
    column = tile % tiles * TILE + lane % TILE
    row = tile // tiles * TILE + lane // TILE
    inside = (column < size) & (row < size)
    at = image * size * size + row * size + column
    begin, end = tl.load(starts + program), tl.load(starts + program + 1)
    visible = _nearest_faces(
        points, faces, order, begin, end, column, row, inside, size, CULL, TILE
    )
    tl.store(face_index + at, visible, mask=inside)
    if SOFT:
        hidden = inside & (visible < 0)
        left, limit = _falloff(
            points,
            faces,
            order,
            begin,
            end,
            column,
            row,
            hidden,
            size,
            sharpness,
            margin,
            max_faces,
            TILE,
        )
        # Sums of the tile for loss and IoU; the gradient needs the error instead of alpha
        if COMPARE:
            source = tl.load(target_index + image).to(tl.int64) * size * size
            target = tl.load(targets + source + row * size + column, mask=inside, other=0.0)
            error = tl.where(inside, 1.0 - left - target, 0.0)
            found, wanted = inside & (left < 0.5), inside & (target > 0.5)
            tl.store(sums + 3 * program, tl.sum(error * error))
            tl.store(sums + 3 * program + 1, tl.sum((found & wanted).to(tl.float32)))
            tl.store(sums + 3 * program + 2, tl.sum((found | wanted).to(tl.float32)))
            left = error * left
        tl.store(keep + at, left, mask=inside)
        tl.store(cutoff + at, limit, mask=inside)


@triton.jit
def soft_gradient(
    points,  # (B, V, 3) pixels and z
    faces,  # (F, 3) int32
    weight,  # (B, size^2) gradient of alpha times (1 - alpha)
    cutoff,  # (B, size^2) int32 as left by render_tiles
    gradient,  # (B, F, 3, 2) of the corners, in pixels, y down; written
    num_vertices,
    num_faces,
    size,
    sharpness,
    margin,
    BLOCK: tl.constexpr,
):
    """Walks the widened box of a face and sums the gradients of its three corners."""
    f, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    a, b, c, ax, ay, bx, by, cx, cy = corners_of(points + image * num_vertices * 3, faces, f)
    half = 0.5 * (size - 1)
    first, last, top, bottom = box(ax, ay, bx, by, cx, cy, margin, half, size)
    width, height = last - first + 1, bottom - top + 1
    count = tl.where((width > 0) & (height > 0), width * height, 0)
    x0, y0, x1, y1, x2, y2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(0, count, BLOCK):
        lane = k + tl.arange(0, BLOCK)
        column, row = first + lane % width, top + lane // width
        at = image * size * size + row * size + column
        # Only pixels for which the face counted in the forward pass
        counts = lane < count
        counts &= tl.load(cutoff + at, mask=counts, other=-1) >= f
        factor = tl.load(weight + at, mask=counts, other=0.0)
        x, y = (column - half).to(tl.float32), (row - half).to(tl.float32)
        dx, dy, w1, w2, shown = fade(ax, ay, bx, by, cx, cy, x, y, sharpness, size)
        # Derivative of 1 - prod(1 - p), with (1 - alpha) already in the weight
        factor = tl.where(counts, factor * shown / (1.0 - shown + 1e-7), 0.0)
        dx, dy = factor * dx, factor * dy
        w0 = 1.0 - w1 - w2
        x0, y0 = x0 + tl.sum(w0 * dx), y0 + tl.sum(w0 * dy)
        x1, y1 = x1 + tl.sum(w1 * dx), y1 + tl.sum(w1 * dy)
        x2, y2 = x2 + tl.sum(w2 * dx), y2 + tl.sum(w2 * dy)
    # d p = -2 sharpness p * offset, which pulls the corners towards the pixel
    scale = 2.0 * sharpness
    at = gradient + (image * num_faces + f) * 6
    tl.store(at, scale * x0)
    tl.store(at + 1, scale * y0)
    tl.store(at + 2, scale * x1)
    tl.store(at + 3, scale * y1)
    tl.store(at + 4, scale * x2)
    tl.store(at + 5, scale * y2)


@triton.jit
def interpolate(
    points,  # (B, V, 3) pixels and z
    faces,  # (F, 3) int32
    values,  # (B, N, C)
    corners,  # (F, 3) int32 indices into the values
    face_index,  # (B, size^2) int32
    image,  # (B, C, size^2), written
    num_vertices,
    num_values,
    channels,
    size,
    BLOCK: tl.constexpr,
):
    """Interpolates the values of the visible faces at BLOCK pixels."""
    batch = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pixels = size * size
    inside = pixel < pixels
    f = tl.load(face_index + batch * pixels + pixel, mask=inside, other=-1)
    shown = f >= 0
    f = tl.maximum(f, 0)
    half = 0.5 * (size - 1)
    a, b, c, ax, ay, bx, by, cx, cy = corners_of(points + batch * num_vertices * 3, faces, f)
    w1, w2 = barycentric(ax, ay, bx, by, cx, cy, pixel % size, pixel // size, half)
    # Values have their own indices: texture coordinates split vertices at the seam
    a, b, c = tl.load(corners + 3 * f), tl.load(corners + 3 * f + 1), tl.load(corners + 3 * f + 2)
    values += batch * num_values * channels
    for k in range(channels):
        value = tl.load(values + a * channels + k)
        step1 = tl.load(values + b * channels + k) - value
        step2 = tl.load(values + c * channels + k) - value
        mixed = (value + w1 * step1 + w2 * step2).to(tl.float32)
        tl.store(
            image + (batch * channels + k) * pixels + pixel,
            tl.where(shown, mixed, 0.0),
            mask=inside,
        )


@triton.jit
def corner_sums(
    points,  # (B, V, 3) pixels and z
    faces,  # (F, 3) int32
    face_index,  # (B, size^2) int32
    gradient,  # (B, C, size^2) of the image
    sums,  # (B, F, 3, C) barycentric weight times gradient, summed over the pixels; written
    num_vertices,
    num_faces,
    channels,
    size,
    BLOCK: tl.constexpr,
):
    """Walks the box of a face and sums, for each corner, weight times gradient where it is visible."""
    f, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    a, b, c, ax, ay, bx, by, cx, cy = corners_of(points + batch * num_vertices * 3, faces, f)
    half = 0.5 * (size - 1)
    first, last, top, bottom = box(ax, ay, bx, by, cx, cy, 0.0, half, size)
    width, height = last - first + 1, bottom - top + 1
    count = tl.where((width > 0) & (height > 0), width * height, 0)
    target = sums + (batch * num_faces + f) * 3 * channels
    for k in range(channels):
        sum0, sum1, sum2 = 0.0, 0.0, 0.0
        for begin in range(0, count, BLOCK):
            lane = begin + tl.arange(0, BLOCK)
            column, row = first + lane % width, top + lane // width
            at = row * size + column
            # Only pixels that show the face
            seen = lane < count
            seen &= tl.load(face_index + batch * size * size + at, mask=seen, other=-1) == f
            source = gradient + (batch * channels + k) * size * size + at
            g = tl.load(source, mask=seen, other=0.0).to(tl.float64)
            w1, w2 = barycentric(ax, ay, bx, by, cx, cy, column, row, half)
            w1, w2 = tl.where(seen, w1 * g, 0.0), tl.where(seen, w2 * g, 0.0)
            sum0 += tl.sum((g - w1 - w2).to(tl.float32))
            sum1 += tl.sum(w1.to(tl.float32))
            sum2 += tl.sum(w2.to(tl.float32))
        tl.store(target + k, sum0)
        tl.store(target + channels + k, sum1)
        tl.store(target + 2 * channels + k, sum2)


@triton.jit
def gather_corners(
    values,  # (B, 3 F, C) of the corners of faces
    order,  # (3 F,) int32 corners, vertex by vertex
    starts,  # (V + 1,) int32 first corner of each vertex
    result,  # (B, V, C), written
    num_corners,
    num_vertices,
    channels,
    CHANNELS: tl.constexpr,
):
    """Sums the corners that meet in a vertex, always in the same order."""
    v, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    valid = channel < channels
    total = tl.zeros((CHANNELS,), tl.float32)
    # Stable order, so that sums are the same bits in every run
    for k in range(tl.load(starts + v), tl.load(starts + v + 1)):
        source = batch * num_corners + tl.load(order + k)
        total += tl.load(values + source * channels + channel, mask=valid, other=0.0)
    tl.store(result + (batch * num_vertices + v) * channels + channel, total, mask=valid)
