"""Meshes in files: reads what trimesh reads, writes textured .obj with y up."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from utils.cli import UserError
from utils.files import atomic_path, require_file
from utils.pictures import save_image, to_uint8

AXES = {
    f"{sign}{name}": (-1.0 if sign else 1.0) * np.eye(3)[i]
    for i, name in enumerate("xyz")
    for sign in ("", "-")
}
MATERIAL = "Ka 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\n"


class Mesh(NamedTuple):
    """Triangle mesh: vertices (V, 3) float64 and faces (F, 3) int64, as numpy arrays."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def load_mesh(path: str | Path, *, up: str = "z", front: str = "-y") -> Mesh:
    """Reads a mesh in any format of trimesh and turns it into object space.

    Args:
        path: .obj, .off, .ply, .stl, .glb, ...; several objects become one mesh.
        up: axis of the file that points upwards: x, y, z, -x, -y or -z.
        front: axis of the file towards which the object looks.

    Returns:
        The mesh with z up and its front towards -y. Size and position stay as they are.

    Raises:
        UserError: if the file is missing, unreadable or has no faces, or the axes are not two
            different ones.
    """
    matrix = object_axes(up, front)
    require_file(path, "Check the path.")
    try:
        mesh = trimesh.load(path, force="mesh", process=False, skip_materials=True)
    except Exception as error:  # trimesh raises whatever its parsers raise
        raise UserError(f"{path}: trimesh cannot read this file as a mesh ({error}).") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise UserError(f"{path}: there are no faces in this file; a surface is needed.")
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if not np.isfinite(vertices[faces]).all():
        raise UserError(f"{path}: some vertices are not finite numbers. Export the mesh again.")
    return Mesh(vertices @ matrix.T, faces)


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
) -> None:
    """Writes `path`.obj with y up, and beside it the material (.mtl) and the texture (.png).

    Args:
        path: name of the .obj file.
        vertices: (V, 3) object space.
        faces: (F, 3) counter-clockwise seen from outside.
        uvs: (U, 2) in [0, 1].
        face_uvs: (F, 3) indices into `uvs`.
        texture: (3, R, R) in [-1, 1], row 0 at v = 1.
    """
    path = Path(path)
    save_image(path.with_suffix(".png"), to_uint8(texture))
    material = [f"newmtl {path.stem}", MATERIAL + f"map_Ka {path.stem}.png"]
    _write(path.with_suffix(".mtl"), [*material, f"map_Kd {path.stem}.png"])
    rows = texture.shape[-2]
    # Our first and last row of texels lie on v = 1 and v = 0, viewers take the borders of the image
    placed = torch.stack([uvs[:, 0], (uvs[:, 1] * (rows - 1) + 0.5) / rows], dim=-1)
    lines = [f"mtllib {path.stem}.mtl", "o mesh0", *_rows("v", to_y_up(vertices))]
    lines += [*_rows("vt", placed), f"usemtl {path.stem}", *_faces(faces + 1, face_uvs + 1)]
    _write(path, lines)


def _rows(keyword: str, values: Tensor) -> list[str]:
    """Lines of numbers with six decimals."""
    form = keyword + " %.6f" * values.shape[-1]
    return [form % tuple(row) for row in values.detach().cpu().double().tolist()]


def _faces(faces: Tensor, face_uvs: Tensor | None = None) -> list[str]:
    """Lines of faces, 1-based."""
    if face_uvs is None:
        return ["f {} {} {}".format(*face) for face in faces.tolist()]
    corners = torch.stack([faces, face_uvs], dim=-1).flatten(1).tolist()
    return ["f {}/{} {}/{} {}/{}".format(*corner) for corner in corners]


def _write(path: str | Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
