"""Points in files: reads .ply, .xyz and .npz, refuses what no surface can be made of; writes .ply."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geometry.mesh_files import format_axes, object_axes
from geometry.mesh_formats import read_ply_points
from utils.cli import UserError
from utils.files import require_file, write_bytes

POINT_SUFFIXES = (".ply", ".xyz", ".npz")
LEAST_POINTS = 50
LEAST_EXTENT = 1e-3  # of the flattest direction against the longest
MAX_BYTES = 2**31  # of an array


class PointCloud(NamedTuple):
    """Points of a surface: positions (N, 3), all different, and unit normals (N, 3) or None."""

    positions: NDArray[np.float64]
    normals: NDArray[np.float64] | None


def load_points(path: str | Path, *, up: str | None = None, front: str | None = None) -> PointCloud:
    """Reads points and turns them into object space.

    Args:
        path: .ply; .xyz, lines of 3 numbers or, with normals, 6; or .npz with `points` (N, 3) and
            perhaps `normals` (N, 3).
        up: axis of the file that points upwards: x, y, z, -x, -y or -z; z by default.
        front: axis of the file towards which the object looks; -y by default.

    Raises:
        UserError: if the file is missing, unreadable or of another format, or if its points are too
            few, not finite, or all on a line or in a plane.
    """
    path = require_file(path, "Check the path.")
    default_up, default_front = format_axes(path)
    matrix = object_axes(up or default_up, front or default_front)
    try:
        positions, normals = _read(path)
    except (ValueError, KeyError, EOFError, OverflowError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300].removesuffix(".")
        raise UserError(f"{path}: cannot read this file as points: {reason}.") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot read this file as points: it is damaged.") from error
    cloud = _check(path, positions, normals)
    turned = cloud.normals if cloud.normals is None else cloud.normals @ matrix.T
    return PointCloud(cloud.positions @ matrix.T, turned)


def save_points(path: str | Path, positions: NDArray) -> None:
    """Writes points (N, 3) as binary .ply."""
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(positions)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    write_bytes(path, header.encode() + positions.astype("<f4").tobytes())


def _read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    suffix = path.suffix.lower()
    if suffix == ".ply":
        return read_ply_points(path.read_bytes())
    if suffix == ".xyz":
        return _read_xyz(path.read_bytes())
    if suffix == ".npz":
        return _read_npz(path)
    raise ValueError(f"expected one of {', '.join(POINT_SUFFIXES)}")


def _read_xyz(content: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    rows = [line.partition(b"#")[0].replace(b",", b" ").split() for line in content.splitlines()]
    rows = [row for row in rows if row]
    columns = len(rows[0]) if rows else 3
    if columns not in (3, 6):
        raise ValueError(f"a line has {columns} columns, expected x y z or x y z nx ny nz")
    wrong = next((i for i, row in enumerate(rows) if len(row) != columns), None)
    if wrong is not None:
        raise ValueError(f"point {wrong} has {len(rows[wrong])} columns, the first one {columns}")
    table = np.array(rows, np.float64).reshape(-1, columns)
    return table[:, :3], table[:, 3:] if columns == 6 else None


def _read_npz(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    with np.load(path, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile) or archive.zip is None:
            raise ValueError("it is no .npz archive")
        # Sizes are checked before anything is unpacked
        largest = max((info.file_size for info in archive.zip.infolist()), default=0)
        if largest > MAX_BYTES:
            raise ValueError(f"unpacks to {largest} bytes, at most {MAX_BYTES} are expected")
        if "points" not in archive:
            raise ValueError(f"expected an array points, found {', '.join(archive) or 'none'}")
        points = _rows("points", archive["points"])
        normals = _rows("normals", archive["normals"]) if "normals" in archive else None
    if normals is not None and normals.shape != points.shape:
        raise ValueError(f"it has {len(points)} points, but {len(normals)} normals")
    return points, normals


def _rows(name: str, array: NDArray) -> NDArray[np.float64]:
    """Returns an array (N, 3) in double precision; ValueError if it is something else."""
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{name}: expected numbers of shape (N, 3), got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.float64)


def _check(
    path: Path, positions: NDArray[np.float64], normals: NDArray[np.float64] | None
) -> PointCloud:
    """Returns distinct points and unit normals; UserError if they make no surface."""
    for name, array in (("positions", positions), ("normals", normals)):
        if array is not None and not np.isfinite(array).all():
            wrong = int((~np.isfinite(array).all(1)).sum())
            raise UserError(f"{path}: the {name} of {wrong} points are not finite numbers.")
    positions, first = np.unique(positions, axis=0, return_index=True)
    if len(positions) < LEAST_POINTS:
        raise UserError(
            f"{path}: {len(positions)} different points make no surface, expected at least "
            f"{LEAST_POINTS}."
        )
    # Extents along the principal axes, from the largest to the smallest
    extents = np.linalg.svd(positions - positions.mean(0), compute_uv=False)
    if extents[2] < LEAST_EXTENT * extents[0]:
        where = "on a line" if extents[1] < LEAST_EXTENT * extents[0] else "in a plane"
        raise UserError(f"{path}: all points lie {where}; points around an object are needed.")
    if normals is None:
        return PointCloud(positions, None)
    normals = normals[first]
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise UserError(
            f"{path}: {int((lengths == 0).sum())} normals have no length. Leave the normals out with: "
            "--normals estimate"
        )
    return PointCloud(positions, normals / lengths)
