"""Surface through oriented points: the level set of the solution of a screened Poisson equation.

Kazhdan and Hoppe 2013, "Screened Poisson Surface Reconstruction", here on a regular periodic grid,
where a Fourier transform takes the place of the octree.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.measure import marching_cubes

MARGIN = 1.25  # edge of the grid over that of the box of the points
SCREENING = (
    4.0  # weight of the values at the points, per area of a cell, against that of the gradients
)
LEAST_BLUR = 1.0  # standard deviation of the normal field, in cells
BLUR = 1.0  # the same, in distances between points
AREA_NEIGHBORS = 8
MAX_STEPS = 60
TOLERANCE = 1e-3  # of the residual
OUTSIDE = -0.1  # value at the border of the grid, so that every surface closes

Points = NDArray[np.float64]
Faces = NDArray[np.int64]
Grid = NDArray[np.float32]


class Samples(NamedTuple):
    """Points on a surface, in units of the grid's cells.

    Attributes:
        positions: (N, 3).
        normals: (N, 3) unit vectors, outward.
        areas: (N,) of the surface that each point stands for.
    """

    positions: Points
    normals: Points
    areas: NDArray[np.float64]


def reconstruct(points: Points, normals: Points, depth: int) -> tuple[Points, Faces]:
    """Returns the surface whose normals are nearest to those of the points.

    Args:
        points: (N, 3) distinct positions.
        normals: (N, 3) unit vectors, outward.
        depth: the grid has 2^depth cells along each edge.

    Returns:
        Vertices (V, 3) and faces (F, 3), counter-clockwise seen from outside, of a closed surface: of
        several, the one around the largest volume.

    Raises:
        ValueError: if nothing is inside.
    """
    # Into the grid, whose unit is a cell
    size = 2**depth
    low, high = points.min(0), points.max(0)
    cell = MARGIN * float((high - low).max()) / size
    origin = (low + high) / 2 - cell * (size - 1) / 2
    samples = Samples((points - origin) / cell, normals, point_areas(points) / cell**2)
    indicator = solve(samples, size)
    # Nothing is inside at the border; if it seems so, all normals look inward
    middle = np.zeros_like(indicator, dtype=bool)
    middle[1:-1, 1:-1, 1:-1] = True
    indicator *= -np.sign(indicator[~middle].mean())
    indicator = np.where(middle, indicator, OUTSIDE)
    if not (indicator > 0).any():
        raise ValueError("these points enclose nothing.")
    vertices, faces, _, _ = marching_cubes(
        indicator, 0.0, gradient_direction="ascent", allow_degenerate=False
    )
    vertices, faces = largest_component(vertices.astype(np.float64), faces.astype(np.int64))
    return vertices * cell + origin, faces


def solve(samples: Samples, size: int) -> Grid:
    """Returns the function (size, size, size) that is positive inside, zero on the surface.

    It minimizes |gradient - field|^2 over all cells + SCREENING * areas * value^2 over the samples,
    where the field is the blurred one of the inward normals.
    """
    # -div of the field, each component on the faces between cells
    blur = max(LEAST_BLUR, BLUR * float(np.median(samples.areas)) ** 0.5)
    source = np.zeros((size, size, size))
    for axis, half in enumerate(np.eye(3) / 2):
        flow = -samples.normals[:, axis] * samples.areas
        component = (interpolation(samples.positions - half, size).T @ flow).reshape(source.shape)
        source += np.roll(component, 1, axis) - component
    blurred = np.asarray(gaussian_filter(source, blur, mode="wrap"), np.float32)
    # Normal equations: (Laplacian + screening) function = source
    values = interpolation(samples.positions, size)
    weights = (SCREENING * samples.areas).astype(np.float32)

    def screened(function: Grid) -> Grid:
        return (values.T @ (weights * (values @ function.ravel()))).reshape(function.shape)

    return conjugate_gradients(blurred, screened, weights.sum() / size**3)


def conjugate_gradients(source: Grid, screened: Callable[[Grid], Grid], shift: float) -> Grid:
    """Solves (L + screened) x = source, where L is the negative Laplacian of 6 neighbors, periodic.

    Preconditioned by L + shift, which is diagonal in Fourier space; L z then needs no difference
    quotients, since (L + shift) z is the residual.
    """
    # Eigenvalues of L + shift
    size = len(source)
    one = 2 - 2 * np.cos(2 * np.pi * fft.fftfreq(size))
    eigenvalues = one[:, None, None] + one[:, None] + one[: size // 2 + 1] + shift
    eigenvalues = eigenvalues.astype(np.float32)
    solution, residual = np.zeros_like(source), source.copy()
    direction = laplacian = np.zeros_like(source)  # L direction
    last = np.inf
    for _ in range(MAX_STEPS):
        if np.linalg.norm(residual) <= TOLERANCE * np.linalg.norm(source):
            break
        spectrum = np.asarray(fft.rfftn(residual))
        z = np.asarray(fft.irfftn(spectrum / eigenvalues, s=source.shape))
        length = float(np.vdot(residual, z))
        direction = z + length / last * direction
        laplacian = residual - shift * z + length / last * laplacian
        image = laplacian + screened(direction)
        step = length / float(np.vdot(direction, image))
        solution += step * direction
        residual -= step * image
        last = length
    return solution


def interpolation(positions: Points, size: int) -> csr_matrix:
    """Returns the matrix (N, size^3) of trilinear interpolation at positions in a periodic grid."""
    # The 8 cells around each position, and their weights
    lower = np.floor(positions).astype(np.int64)
    fraction = positions - lower
    corners = np.array([[i >> 2, i >> 1 & 1, i & 1] for i in range(8)])
    cells = (lower[:, None] + corners) % size
    weights = np.where(corners, fraction[:, None], 1 - fraction[:, None]).prod(2)
    columns = (cells[..., 0] * size + cells[..., 1]) * size + cells[..., 2]
    rows = np.arange(len(positions) + 1) * 8
    shape = (len(positions), size**3)
    return csr_matrix((weights.ravel().astype(np.float32), columns.ravel(), rows), shape=shape)


def point_areas(points: Points) -> NDArray[np.float64]:
    """Returns the area (N,) that each point stands for: of a disk, over the points in it."""
    count = min(AREA_NEIGHBORS, len(points) - 1)
    radii = np.asarray(KDTree(points).query(points, count + 1)[0])[:, -1]
    return np.pi * radii**2 / count


def largest_component(vertices: Points, faces: Faces) -> tuple[Points, Faces]:
    """Returns the component of a closed surface that encloses the largest volume."""
    ends = faces[:, [0, 0]].ravel(), faces[:, [1, 2]].ravel()
    graph = csr_matrix((np.ones(2 * len(faces)), ends), shape=(len(vertices),) * 2)
    labels = connected_components(graph, directed=False)[1][faces[:, 0]]
    a, b, c = vertices[faces].transpose(1, 0, 2)
    volumes = np.bincount(labels, (a * np.cross(b, c)).sum(1))
    used, kept = np.unique(faces[labels == volumes.argmax()], return_inverse=True)
    return vertices[used], kept.reshape(-1, 3)
