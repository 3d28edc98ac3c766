"""Meshes in files: reads .obj, .off, .ply, .stl and .glb, writes textured .obj with y up."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geometry import mesh_formats
from geometry.gltf import read_gltf
from geometry.operators import vertex_normals
from geometry.polygons import triangulate
from utils.cli import UserError, one_line
from utils.files import atomic_path, require_file
from utils.pictures import save_image, to_uint8

AXES = {
    f"{sign}{name}": (-1.0 if sign else 1.0) * np.eye(3)[i]
    for i, name in enumerate("xyz")
    for sign in ("", "-")
}
_READERS = {
    ".obj": mesh_formats.read_obj,
    ".off": mesh_formats.read_off,
    ".ply": mesh_formats.read_ply,
    ".stl": mesh_formats.read_stl,
}
MESH_SUFFIXES = (*_READERS, ".glb", ".gltf")
MATERIAL = "Ka 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\n"


class Mesh(NamedTuple):
    """Triangle mesh: vertices (V, 3) float64 and faces (F, 3) int64, as numpy arrays."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def format_axes(path: str | Path) -> tuple[str, str]:
    """Returns the axes up and front of a file by its format: glTF fixes them, the others do not."""
    return ("y", "z") if Path(path).suffix.lower() in (".glb", ".gltf") else ("z", "-y")


def load_mesh(path: str | Path, *, up: str | None = None, front: str | None = None) -> Mesh:
    """Reads a mesh and turns it into object space.

    Args:
        path: .obj, .off, .ply, .stl, .glb or .gltf; several objects become one mesh, polygons
            triangles.
        up: axis of the file that points upwards: x, y, z, -x, -y or -z; default `format_axes`.
        front: axis of the file towards which the object looks; likewise.

    Returns:
        The mesh with z up and its front towards -y. Size and position stay as they are; vertices
        without faces are left out.

    Raises:
        UserError: if the file is missing, unreadable or has no faces, or the axes are not two
            different ones.
    """
    path = require_file(path, "Check the path.")
    default_up, default_front = format_axes(path)
    matrix = object_axes(up or default_up, front or default_front)
    try:
        vertices, faces = _read_triangles(path)
    except (ValueError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300].removesuffix(".")
        raise UserError(f"{path}: cannot read this file as a mesh: {reason}.") from error
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot read this file as a mesh: it is damaged. Export it again."
        ) from error
    if not len(faces):
        raise UserError(f"{path}: there are no faces in this file; a surface is needed.")
    used, numbers = np.unique(faces, return_inverse=True)
    vertices = vertices[used]
    if not np.isfinite(vertices).all():
        raise UserError(f"{path}: some vertices are not finite numbers. Export the mesh again.")
    return Mesh(vertices @ matrix.T, numbers.reshape(-1, 3))


def _read_triangles(path: Path) -> Mesh:
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise ValueError(
            f"expected one of {', '.join(MESH_SUFFIXES)}; export it as one of these, as Blender does"
        )
    polygons = _READERS[suffix](path.read_bytes()) if suffix in _READERS else read_gltf(path)
    vertices, corners, counts = polygons
    if corners.size and not 0 <= corners.min() <= corners.max() < len(vertices):
        worst = corners.max() if corners.min() >= 0 else corners.min()
        raise ValueError(
            f"a face has corner {worst}, but the vertices are 0 to {len(vertices) - 1}"
        )
    return Mesh(vertices, triangulate(vertices, corners, counts))


def object_axes(up: str, front: str) -> NDArray[np.float64]:
    """Returns the rotation (3, 3) that takes `up` to +z and `front` to -y."""
    for option, axis in (("--up", up), ("--front", front)):
        if axis not in AXES:
            raise UserError(f"{option} {axis}: expected one of {', '.join(AXES)}.")
    if up[-1] == front[-1]:
        raise UserError(f"--up {up} --front {front}: expected two different axes.")
    back, top = -AXES[front], AXES[up]
    return np.stack([np.cross(back, top), back, top])


def to_y_up(vertices: Tensor) -> Tensor:
    """Turns object space (..., 3) to the axes of exported files: (x, z, -y), right-handed."""
    x, y, z = vertices.unbind(-1)
    return torch.stack([x, z, -y], dim=-1)


def save_meshes(path: str | Path, vertices: Tensor, faces: Tensor) -> None:
    """Writes meshes (T, V, 3) of common faces (F, 3) as the objects of one .obj, with y up."""
    lines = []
    for i, positions in enumerate(vertices):
        lines += [f"o mesh{i}", *_rows("v", to_y_up(positions))]
        lines += _faces(faces + 1 + i * len(positions))
    _write(path, lines)


def save_textured_mesh(
    path: str | Path,
    vertices: Tensor,
    faces: Tensor,
    uvs: Tensor,
    face_uvs: Tensor,
    texture: Tensor,
    origin: Mapping[str, object] | None = None,
) -> None:
    """Writes an .obj with y up and normals, and beside it the material (.mtl) and the texture (.png).

    The object and its material are named like the file.

    Args:
        path: of the .obj file.
        vertices: (V, 3) object space.
        faces: (F, 3) counter-clockwise seen from outside.
        uvs: (U, 2) in [0, 1].
        face_uvs: (F, 3) indices into `uvs`.
        texture: (3, R, R) in [-1, 1], row 0 at v = 1.
        origin: what the mesh was made from, for the comments at the beginning.
    """
    path = Path(path)
    save_image(path.with_suffix(".png"), to_uint8(texture))
    material = [f"newmtl {path.stem}", MATERIAL + f"map_Ka {path.stem}.png"]
    _write(path.with_suffix(".mtl"), [*material, f"map_Kd {path.stem}.png"])
    normals = to_y_up(vertex_normals(vertices, faces))
    rows = texture.shape[-2]
    # Our first and last row of texels lie on v = 1 and v = 0, viewers take the borders of the image
    placed = torch.stack([uvs[:, 0], (uvs[:, 1] * (rows - 1) + 0.5) / rows], dim=-1)
    lines = [one_line(f"# {name}: {value}") for name, value in (origin or {}).items()]
    lines += [f"mtllib {path.stem}.mtl", f"o {path.stem}", *_rows("v", to_y_up(vertices))]
    lines += [*_rows("vt", placed), *_rows("vn", normals)]
    lines += [f"usemtl {path.stem}", *_faces(faces + 1, face_uvs + 1)]
    _write(path, lines)


def _rows(keyword: str, values: Tensor) -> list[str]:
    """Lines of numbers with six decimals."""
    form = keyword + " %.6f" * values.shape[-1]
    return [form % tuple(row) for row in values.detach().cpu().double().tolist()]


def _faces(faces: Tensor, face_uvs: Tensor | None = None) -> list[str]:
    """Lines of faces, 1-based; those with texture coordinates have normals, numbered as vertices."""
    if face_uvs is None:
        return ["f {} {} {}".format(*face) for face in faces.tolist()]
    corners = torch.stack([faces, face_uvs, faces], dim=-1).flatten(1).tolist()
    return ["f {}/{}/{} {}/{}/{} {}/{}/{}".format(*corner) for corner in corners]


def _write(path: str | Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
