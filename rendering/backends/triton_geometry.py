"""Geometry of faces on the screen, for the Triton kernels in `triton_kernels`.

Coordinates are pixels with the origin in the middle of the image, x right and y down, as in
`numba_coverage`.
"""


# pyright: basic, reportArgumentType=false, reportOptionalMemberAccess=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def corners_of(points, faces, f):
    """Vertex indices and positions of the corners of a face."""
    a, b, c = tl.load(faces + 3 * f), tl.load(faces + 3 * f + 1), tl.load(faces + 3 * f + 2)
    ax, ay = tl.load(points + 3 * a), tl.load(points + 3 * a + 1)
    bx, by = tl.load(points + 3 * b), tl.load(points + 3 * b + 1)
    cx, cy = tl.load(points + 3 * c), tl.load(points + 3 * c + 1)
    return a, b, c, ax, ay, bx, by, cx, cy


@triton.jit
def box(ax, ay, bx, by, cx, cy, margin, half, size):
    """First and last column and row of the widened box: [low, high) in x, (low, high] in y."""
    low_x = tl.minimum(tl.minimum(ax, bx), cx).to(tl.float64) - margin + half
    high_x = tl.maximum(tl.maximum(ax, bx), cx).to(tl.float64) + margin + half
    low_y = tl.minimum(tl.minimum(ay, by), cy).to(tl.float64) - margin + half
    high_y = tl.maximum(tl.maximum(ay, by), cy).to(tl.float64) + margin + half
    # Half-open, so that neighboring boxes share no pixel
    first = tl.maximum(tl.ceil(low_x).to(tl.int32), 0)
    last = tl.minimum(tl.ceil(high_x).to(tl.int32) - 1, size - 1)
    top = tl.maximum(tl.floor(low_y).to(tl.int32) + 1, 0)
    bottom = tl.minimum(tl.floor(high_y).to(tl.int32), size - 1)
    return first, last, top, bottom


@triton.jit
def side_of_edge(i, j, px, py, qx, qy, x, y):
    """Side of the edge i-j on which a point lies; equal but for the sign in both faces of an edge."""
    # Both faces of an edge compute from the vertex with the smaller index to the other
    swapped = j < i
    sx, sy = tl.where(swapped, qx, px), tl.where(swapped, qy, py)
    ex, ey = tl.where(swapped, px, qx), tl.where(swapped, py, qy)
    side = (ey - sy) * (x - sx) - (ex - sx) * (y - sy)
    return tl.where(swapped, -side, side)


@triton.jit
def plane(ax, ay, bx, by, cx, cy):
    """Twice the area, positive towards the viewer, and the edges from corner 0; double precision."""
    ax, ay = ax.to(tl.float64), ay.to(tl.float64)
    ux, uy = bx.to(tl.float64) - ax, by.to(tl.float64) - ay
    vx, vy = cx.to(tl.float64) - ax, cy.to(tl.float64) - ay
    return uy * vx - ux * vy, ux, uy, vx, vy


@triton.jit
def segment(px, py, ux, uy):
    """Nearest point of a segment from the origin along u: its share of the end, and the offset."""
    length = tl.maximum(ux * ux + uy * uy, 1e-12)
    t = tl.minimum(tl.maximum((px * ux + py * uy) / length, 0.0), 1.0)
    return t, px - t * ux, py - t * uy


@triton.jit
def nearest_on_outline(ax, ay, bx, by, cx, cy, x, y):
    """Offset (dx, dy) to the nearest point of the outline, and the shares of corners 1 and 2 in it."""
    # Edge 01, then each following edge where it is nearer
    t, dx, dy = segment(x - ax, y - ay, bx - ax, by - ay)
    w1, w2 = t, 0.0 * t
    t, ex, ey = segment(x - bx, y - by, cx - bx, cy - by)
    nearer = ex * ex + ey * ey < dx * dx + dy * dy
    dx, dy = tl.where(nearer, ex, dx), tl.where(nearer, ey, dy)
    w1, w2 = tl.where(nearer, 1.0 - t, w1), tl.where(nearer, t, w2)
    t, ex, ey = segment(x - cx, y - cy, ax - cx, ay - cy)
    nearer = ex * ex + ey * ey < dx * dx + dy * dy
    dx, dy = tl.where(nearer, ex, dx), tl.where(nearer, ey, dy)
    w1, w2 = tl.where(nearer, 0.0, w1), tl.where(nearer, 1.0 - t, w2)
    return dx, dy, w1, w2


@triton.jit
def fade(ax, ay, bx, by, cx, cy, x, y, sharpness, size):
    """What `nearest_on_outline` returns, and the share p of the pixel that the face takes.

    Faces that reach far beyond the image need double precision.
    """
    # Single precision for ordinary faces
    widest = tl.maximum(tl.maximum(tl.abs(ax), tl.abs(bx)), tl.abs(cx))
    widest = tl.maximum(widest, tl.maximum(tl.maximum(tl.abs(ay), tl.abs(by)), tl.abs(cy)))
    if widest > size:
        far = nearest_on_outline(
            ax.to(tl.float64),
            ay.to(tl.float64),
            bx.to(tl.float64),
            by.to(tl.float64),
            cx.to(tl.float64),
            cy.to(tl.float64),
            x,
            y,
        )
        dx, dy = far[0].to(tl.float32), far[1].to(tl.float32)
        w1, w2 = far[2].to(tl.float32), far[3].to(tl.float32)
    else:
        dx, dy, w1, w2 = nearest_on_outline(ax, ay, bx, by, cx, cy, x, y)
    return dx, dy, w1, w2, tl.exp(-sharpness * (dx * dx + dy * dy))


@triton.jit
def barycentric(ax, ay, bx, by, cx, cy, column, row, half):
    """Barycentric weights of corners 1 and 2 at pixel centers, double precision."""
    area, ux, uy, vx, vy = plane(ax, ay, bx, by, cx, cy)
    area = tl.where(area == 0, 1.0, area)  # degenerate faces are never visible
    x, y = column - half - ax, row - half - ay
    return (y * vx - x * vy) / area, (x * uy - y * ux) / area
