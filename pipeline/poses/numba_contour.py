"""Compiled loops that fit poses to the outline of a mask: contour points, normal equations, steps.

A pose is a vector (8,) in the order of `geometry.camera`, whose projection these loops compile. A step
moves it by (rotation about the axes of the camera frame in radians, logarithm of the scale, tx, ty,
z0): seven numbers.
"""

import math
from typing import NamedTuple

import numpy as np

from geometry import camera
from geometry.camera import QW, QX, QY, QZ, SCALE, TX, TY, Z0
from utils.numba_jit import Array, compiled

STEP = 7  # numbers in a step
LEAST_NOISE = 0.01  # of the distances of outlines, in screen units
OUTLIER = 0.15  # distance from which on the Cauchy weight falls
EVIDENCE = 20.0  # outlines weigh as so many measurements, whose noise is the distance that is left
DAMPING = 0.1
LEAST_DAMPING = 1e-3  # where neither outline nor prior say anything
LARGEST_TURN = 0.4  # radians in one step
EXPECTED_Z0, Z0_SPREAD, LARGEST_Z0 = 2.0, 1.0, 4.0
LEAST_COSINE = 0.3  # of normals that belong together
CONVERGED = 1e-3

to_screen = compiled(camera.to_screen)
perspective = compiled(camera.perspective)


class Meshes(NamedTuple):
    """Templates that share their faces.

    Attributes:
        templates: (T, V, 3) object space.
        faces: (F, 3).
        edges: (E, 4) first and second vertex, the face that runs through them so, the other face.
    """

    templates: Array
    faces: Array
    edges: Array


class Outlines(NamedTuple):
    """What the fit knows of N masks.

    Attributes:
        fields: (N, h, h) signed distance to the outline in screen units.
        samples: (N, M, 4) points on the outline and outward normals, y up.
        masks: (N, g, g) bool.
    """

    fields: Array
    samples: Array
    masks: Array


class Problems(NamedTuple):
    """Poses that are fitted, each on its own.

    Attributes:
        poses: (B, 8), replaced by better ones.
        template: (B,) template of each.
        image: (B,) mask of each.
        ious: (B,) overlap with the mask, written.
    """

    poses: Array
    template: Array
    image: Array
    ious: Array


class Tilts(NamedTuple):
    """Expected elevation, its spread, and the spread of the roll, in radians."""

    elevation: float
    elevation_spread: float
    roll_spread: float


@compiled
def place(vertices: Array, pose: Array, turned: Array, screen: Array) -> None:
    """Writes vertices in the camera frame, scaled (V, 3), and on the screen (V, 2)."""
    w, x, y, z = pose[QW], pose[QX], pose[QY], pose[QZ]
    scale, distance = pose[SCALE], 1 + math.exp(pose[Z0])
    for v in range(len(vertices)):
        a, b, c = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        # Twice the cross product of the vector part with the vertex
        p, q, r = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
        turned[v, 0] = scale * (a + w * p + y * r - z * q)
        turned[v, 1] = scale * (b + w * q + z * p - x * r)
        turned[v, 2] = scale * (c + w * r + x * q - y * p)
        left, up, near = to_screen(turned[v, 0], turned[v, 1], turned[v, 2], pose[TX], pose[TY])
        factor = perspective(near, distance)
        screen[v, 0], screen[v, 1] = left * factor, up * factor


@compiled
def derivative(point: Array, pose: Array, gx: float, gy: float, row: Array) -> None:
    """Writes the derivative (7,) of gx x + gy y, the screen position of a point in the camera frame."""
    near = math.exp(pose[Z0])
    distance = 1 + near
    x, y, z = to_screen(point[0], point[1], point[2], pose[TX], pose[TY])
    factor, depth = perspective(z, distance), distance - z / 2
    along = gx * x + gy * y
    # Derivatives by the three coordinates in the camera frame
    da, db, dc = gx * factor, -gy * factor, -along * distance / depth**2
    row[0] = dc * point[1] - db * point[2]
    row[1] = da * point[2] - dc * point[0]
    row[2] = db * point[0] - da * point[1]
    row[3] = da * point[0] + db * point[1] + dc * point[2]
    row[4] = da
    row[5] = db
    row[6] = along * point[2] / depth**2 * near


@compiled
def cover(screen: Array, faces: Array, front: Array, mask: Array) -> None:
    """Writes which faces look at the viewer (F,), and the pixels (h, h) that they cover."""
    size = len(mask)
    mask[:] = False
    half = size / 2
    for f in range(len(faces)):
        i, j, k = faces[f]
        # Corners in pixels, y upwards
        ax, ay = (screen[i, 0] + 1) * half - 0.5, (screen[i, 1] + 1) * half - 0.5
        bx, by = (screen[j, 0] + 1) * half - 0.5, (screen[j, 1] + 1) * half - 0.5
        cx, cy = (screen[k, 0] + 1) * half - 0.5, (screen[k, 1] + 1) * half - 0.5
        front[f] = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0
        if not front[f]:
            continue
        # Pixel centers within the box of the face and on the image
        left, right = math.ceil(max(min(ax, bx, cx), 0.0)), min(max(ax, bx, cx), size - 1.0)
        low, high = math.ceil(max(min(ay, by, cy), 0.0)), min(max(ay, by, cy), size - 1.0)
        for v in range(low, math.floor(high) + 1):
            for u in range(left, math.floor(right) + 1):
                if (
                    (bx - ax) * (v - ay) - (by - ay) * (u - ax) >= 0
                    and (cx - bx) * (v - by) - (cy - by) * (u - bx) >= 0
                    and (ax - cx) * (v - cy) - (ay - cy) * (u - cx) >= 0
                ):
                    mask[size - 1 - v, u] = True


@compiled
def outline(
    turned: Array, screen: Array, edges: Array, front: Array, mask: Array, points: Array
) -> int:
    """Writes the contour points, middles of the edges where front and back of the mesh meet.

    Those that other faces hide or cover from behind are left out: just outside them lies the mask.

    Args:
        turned: (V, 3) camera frame.
        screen: (V, 2).
        edges: (E, 4) first and second vertex, the face that runs through them so, the other face.
        front: (F,) whether a face looks at the viewer.
        mask: (h, h) covered pixels.
        points: (E, 8) written: camera frame (3), screen (2), outward normal (2), length.

    Returns:
        Number of points.
    """
    size, count = len(mask), 0
    for e in range(len(edges)):
        i, j, first, second = edges[e]
        if front[first] == front[second]:
            continue
        # Run along the edge with the front to the left
        sign = 1.0 if front[first] else -1.0
        dx, dy = sign * (screen[j, 0] - screen[i, 0]), sign * (screen[j, 1] - screen[i, 1])
        length = math.sqrt(dx * dx + dy * dy) + 1e-9
        x, y = (screen[i, 0] + screen[j, 0]) / 2, (screen[i, 1] + screen[j, 1]) / 2
        nx, ny = dy / length, -dx / length
        # Look at the pixel just outside
        u = math.floor((x + 1) / 2 * size + 1.5 * nx)
        v = math.floor((1 - y) / 2 * size - 1.5 * ny)
        if 0 <= u < size and 0 <= v < size and mask[v, u]:
            continue
        for k in range(3):
            points[count, k] = (turned[i, k] + turned[j, k]) / 2
        points[count, 3:] = (x, y, nx, ny, length)
        count += 1
    return count


@compiled
def sample(field: Array, x: float, y: float) -> tuple[float, float, float]:
    """Returns the value of a field (h, h) at a screen position, and its slopes in x and y."""
    size = len(field)
    # Bilinear between pixel centers, constant beyond the outermost
    u = min(max((x + 1) / 2 * size - 0.5, 0.0), size - 1.001)
    v = min(max((1 - y) / 2 * size - 0.5, 0.0), size - 1.001)
    i, j = int(v), int(u)
    s, t = v - i, u - j
    a, b, c, d = field[i, j], field[i, j + 1], field[i + 1, j], field[i + 1, j + 1]
    value = (1 - s) * ((1 - t) * a + t * b) + s * ((1 - t) * c + t * d)
    slope_u = (1 - s) * (b - a) + s * (d - c)
    slope_v = (1 - t) * (c - a) + t * (d - b)
    return value, slope_u * size / 2, -slope_v * size / 2


@compiled
def add(row: Array, residual: float, weight: float, matrix: Array, vector: Array) -> None:
    """Adds a weighted residual and its derivative to the normal equations (7, 7) and (7,)."""
    for i in range(STEP):
        vector[i] -= weight * row[i] * residual
        for j in range(STEP):
            matrix[i, j] += weight * row[i] * row[j]


@compiled
def compare_outlines(
    points: Array,
    pose: Array,
    field: Array,
    samples: Array,
    row: Array,
    matrix: Array,
    vector: Array,
) -> None:
    """Writes the normal equations of the distances of two outlines, from each to the other.

    Args:
        points: (P, 8) contour points of the mesh.
        pose: (8,).
        field: (h, h) signed distance to the outline of the target, positive outside.
        samples: (M, 4) points on the outline of the target and its outward normals.
        row: (7,) scratch.
        matrix: (7, 7) written.
        vector: (7,) written.
    """
    matrix[:], vector[:] = 0.0, 0.0
    # From the mesh to the target: distances in its field, by the length of the edges
    noise = LEAST_NOISE**2
    total = points[:, 7].sum()
    for p in range(len(points)):
        value, gx, gy = sample(field, points[p, 3], points[p, 4])
        derivative(points[p], pose, gx, gy, row)
        weight = points[p, 7] / total / (1 + (value / OUTLIER) ** 2)
        add(row, value, weight, matrix, vector)
        noise += weight * value**2 / 2
    # From the target to the mesh: nearest contour points that look the same way
    for m in range(len(samples)):
        x, y, nx, ny = samples[m]
        nearest, best = -1, np.inf
        for p in range(len(points)):
            square = (points[p, 3] - x) ** 2 + (points[p, 4] - y) ** 2
            if square < best and points[p, 5] * nx + points[p, 6] * ny > LEAST_COSINE:
                nearest, best = p, square
        if nearest >= 0:
            derivative(points[nearest], pose, nx, ny, row)
            residual = nx * (points[nearest, 3] - x) + ny * (points[nearest, 4] - y)
            weight = 1 / len(samples) / (1 + best / OUTLIER**2)
            add(row, residual, weight, matrix, vector)
            noise += weight * residual**2 / 2
    # As many measurements as EVIDENCE says, whose variance is the residual
    matrix *= EVIDENCE / noise
    vector *= EVIDENCE / noise


@compiled
def add_prior(pose: Array, tilts: Tilts, row: Array, matrix: Array, vector: Array) -> None:
    """Adds the normal distributions of z0, elevation and roll to the normal equations."""
    # Perspective
    row[:] = 0
    row[6] = 1 / Z0_SPREAD
    add(row, (pose[Z0] - EXPECTED_Z0) / Z0_SPREAD, 1.0, matrix, vector)
    w, x, y, z = pose[QW], pose[QX], pose[QY], pose[QZ]
    # The object's z axis in the camera frame
    a, b, c = 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)
    level = math.sqrt(a * a + b * b) + 1e-6
    # Elevation: the angle of that axis out of the picture plane
    spread = tilts.elevation_spread
    row[:] = 0
    row[0], row[1] = -b / level / spread, a / level / spread
    add(row, (math.atan2(-c, level) - tilts.elevation) / spread, 1.0, matrix, vector)
    # Roll: its angle within the picture plane
    spread = tilts.roll_spread
    row[0], row[1] = -a * c / level**2 / spread, -b * c / level**2 / spread
    row[2] = 1 / spread
    add(row, math.atan2(a, -b) / spread, 1.0, matrix, vector)


@compiled
def move(pose: Array, step: Array) -> None:
    """Moves a pose (8,) by a step (7,)."""
    # Rotation about an axis of the camera frame, applied after that of the pose
    angle = math.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    shrink = min(1.0, LARGEST_TURN / (angle + 1e-12))
    half = math.sin(angle * shrink / 2) / (angle + 1e-12)
    c, i, j, k = math.cos(angle * shrink / 2), half * step[0], half * step[1], half * step[2]
    w, x, y, z = pose[QW], pose[QX], pose[QY], pose[QZ]
    w, x, y, z = (
        c * w - i * x - j * y - k * z,
        c * x + i * w + j * z - k * y,
        c * y - i * z + j * w + k * x,
        c * z + i * y - j * x + k * w,
    )
    length = math.sqrt(w * w + x * x + y * y + z * z)
    pose[QW], pose[QX], pose[QY], pose[QZ] = w / length, x / length, y / length, z / length
    # The other parameters
    pose[SCALE] *= math.exp(min(max(step[3], -LARGEST_TURN), LARGEST_TURN))
    pose[TX] += step[4]
    pose[TY] += step[5]
    pose[Z0] = min(max(pose[Z0] + step[6], -LARGEST_Z0), LARGEST_Z0)


@compiled
def overlap(first: Array, second: Array) -> float:
    """Returns the intersection over union of two masks (h, h)."""
    both = either = 0
    for i in range(len(first)):
        for j in range(len(first)):
            both += first[i, j] and second[i, j]
            either += first[i, j] or second[i, j]
    return both / max(either, 1)


@compiled
def fit(
    problems: Problems,
    begin: int,
    end: int,
    meshes: Meshes,
    outlines: Outlines,
    tilts: Tilts,
    steps: int,
) -> None:
    """Fits poses begin..end to the outlines of their images; the iterate of the best overlap stays.

    Args:
        problems: poses to begin with; poses and overlaps are written.
        begin: first of them.
        end: behind the last of them.
        meshes: templates.
        outlines: of the masks.
        tilts: prior of the rotations.
        steps: largest number of steps.
    """
    count = meshes.templates.shape[1]
    turned, screen = np.zeros((count, 3)), np.zeros((count, 2))
    front = np.zeros(len(meshes.faces), np.bool_)
    mask = np.zeros(outlines.masks.shape[1:], np.bool_)
    points = np.zeros((len(meshes.edges), 8))
    row, vector, matrix = np.zeros(STEP), np.zeros(STEP), np.zeros((STEP, STEP))
    for b in range(begin, end):
        pose, n = problems.poses[b].copy(), problems.image[b]
        problems.ious[b] = -1.0
        for step in range(steps + 1):
            # Compare the silhouettes; steps may also lead away
            place(meshes.templates[problems.template[b]], pose, turned, screen)
            cover(screen, meshes.faces, front, mask)
            iou = overlap(mask, outlines.masks[n])
            if iou > problems.ious[b]:
                problems.ious[b], problems.poses[b] = iou, pose
            found = outline(turned, screen, meshes.edges, front, mask, points)
            if step == steps or found == 0:
                break
            # Solve the damped normal equations of Levenberg and Marquardt
            field, samples = outlines.fields[n], outlines.samples[n]
            compare_outlines(points[:found], pose, field, samples, row, matrix, vector)
            add_prior(pose, tilts, row, matrix, vector)
            for i in range(STEP):
                matrix[i, i] += DAMPING * matrix[i, i] + LEAST_DAMPING
            change = np.linalg.solve(matrix, vector)
            move(pose, change)
            if np.abs(change).max() < CONVERGED:
                break


@compiled
def draw(poses: Array, vertices: Array, faces: Array, begin: int, end: int, masks: Array) -> None:
    """Writes the silhouettes (B, h, h) of a mesh (V, 3) in poses begin..end."""
    turned, screen = np.zeros((len(vertices), 3)), np.zeros((len(vertices), 2))
    front = np.zeros(len(faces), np.bool_)
    for b in range(begin, end):
        place(vertices, poses[b], turned, screen)
        cover(screen, faces, front, masks[b])
