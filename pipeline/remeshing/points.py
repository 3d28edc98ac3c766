"""The surface through points of a file, as a mesh that the sphere can be fitted to."""

import logging
from pathlib import Path

import numpy as np
import trimesh

from geometry.mesh_files import Mesh
from geometry.points.files import load_points
from geometry.points.normals import disagreement, estimate_normals
from geometry.points.poisson import reconstruct
from utils.cli import UserError
from utils.seeding import numpy_generator

MOST_POINTS = 300_000  # more than the finest grid can tell apart
MOST_FACES = 20_000  # of what is fitted to: silhouettes of 256 pixels show no more
MUCH_DISAGREEMENT = 0.05  # of neighbors

_LOG = logging.getLogger(__name__)


def surface_from_points(path: Path, up: str, front: str, normals: str | None, depth: int) -> Mesh:
    """Reads points, and returns a closed surface through them, in object space.

    Args:
        path: .ply, .xyz or .npz.
        up: axis of the file that points upwards.
        front: axis of the file towards which the object looks.
        normals: those of the `file`, or to `estimate` them; None for the first where there are any.
        depth: of the grid: 2^depth cells along each edge.

    Raises:
        UserError: if the file cannot be used, or its points enclose nothing.
    """
    points, given = load_points(path, up=up, front=front)
    if normals == "file" and given is None:
        raise UserError(f"{path}: it has no normals. Leave --normals file out to estimate them.")
    if len(points) > MOST_POINTS:
        _LOG.info("%s: %d of %d points are used, drawn evenly", path, MOST_POINTS, len(points))
        chosen = numpy_generator(0, "points").choice(len(points), MOST_POINTS, replace=False)
        points, given = points[chosen], None if given is None else given[chosen]
    # Normals of the file are taken as they are, but questioned
    estimated = given is None or normals == "estimate"
    oriented = estimate_normals(points) if given is None or estimated else given
    share = disagreement(points, oriented)
    if not estimated and share > MUCH_DISAGREEMENT:
        _LOG.warning(
            "%s: %.0f %% of the normals are opposite to that of the nearest point. Better: "
            "--normals estimate",
            path,
            100 * share,
        )
    try:
        surface = reconstruct(points, oriented, depth)
    except ValueError as error:
        raise UserError(
            f"{path}: {error} Try --normals estimate, or a smaller --poisson_depth."
        ) from error
    source = "estimated" if estimated else "of the file"
    _LOG.info("%s: surface through %d points, normals %s", path, len(points), source)
    return _simplified(Mesh(*surface))


def _simplified(mesh: Mesh) -> Mesh:
    """Returns the mesh with MOST_FACES faces, if it has more."""
    if len(mesh.faces) <= MOST_FACES:
        return mesh
    small = trimesh.Trimesh(*mesh, process=False).simplify_quadric_decimation(face_count=MOST_FACES)
    return Mesh(np.asarray(small.vertices, np.float64), np.asarray(small.faces, np.int64))
