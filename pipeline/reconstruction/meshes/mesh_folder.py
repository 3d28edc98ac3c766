"""The mesh of a photograph in a folder of its own, and a page of many.

A folder holds mesh.obj with mesh.mtl and mesh.png, mesh.glb, panel.png and camera.json. The last one
says what the others were made from, and is written last: where it is, they are complete.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.crops import Box, cut_out, resize_crop
from geometry.camera import Pose, project, select
from geometry.glb import save_glb
from geometry.mesh_files import load_mesh, save_textured_mesh
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.meshes.camera_file import camera_record, viewer_orbit
from pipeline.reconstruction.meshes.panel import SIZE, draw_panel
from pipeline.reconstruction.meshes.whole_texture import whole_texture
from rendering import gallery
from utils import files
from utils.cli import UserError
from utils.pictures import save_image, to_uint8

CAMERA = "camera.json"
PANEL = "panel.png"
LEAST_LIMIT = 1024  # pixels to which the crops of larger objects are shrunk at the most
_REMEDY = "Delete it, then run again."


class Subject(NamedTuple):
    """An object in a photograph.

    Attributes:
        pixels: (side, side, 4) uint8 RGB and mask, cut out of the photograph.
        box: where, in pixels of the photograph; its pose refers to it.
        width: of the photograph, pixels.
        height: likewise.
    """

    pixels: np.ndarray
    box: Box
    width: int
    height: int


def cut_subject(photograph: np.ndarray, mask: np.ndarray, box: Box, resolution: int) -> Subject:
    """Cuts an object out of its photograph (h, w, 3) uint8, finely enough for a texture.

    Twice as many pixels as texels: the half of a texture that is seen spans the crop.
    """
    height, width = mask.shape
    pixels = cut_out(photograph, mask, box, max(2 * resolution, LEAST_LIMIT))
    return Subject(pixels, box, width, height)


class Estimate(NamedTuple):
    """What is known of its mesh.

    Attributes:
        vertices: (V, 3) object space.
        texture: (3, r, r) that the network predicts, in [-1, 1].
        pose: members (1, ...).
    """

    vertices: Tensor
    texture: Tensor
    pose: Pose


def write(
    folder: Path,
    subject: Subject,
    estimate: Estimate,
    template: SphereMesh,
    resolution: int,
    origin: Mapping[str, Any],
) -> None:
    """Writes all files of a photograph.

    Args:
        folder: is made if it is missing.
        subject: the photograph.
        estimate: its mesh.
        template: topology of the mesh.
        resolution: of the texture, in texels.
        origin: what the files are a function of; kept in them.
    """
    # What is not complete must not look so
    (folder / CAMERA).unlink(missing_ok=True)
    vertices, pose = estimate.vertices, estimate.pose
    crop = resize_crop(subject.pixels, min(len(subject.pixels), 2 * resolution)).to(vertices.device)
    screen = project(vertices[None], pose)[0]
    texture = whole_texture(template, crop, screen, estimate.texture, resolution)
    arrays = (template.faces, template.uvs, template.face_uvs)
    save_textured_mesh(folder / "mesh.obj", vertices, *arrays, texture, origin)
    save_glb(folder / "mesh.glb", template, vertices, texture, origin)
    seen = resize_crop(subject.pixels, SIZE)[:3]
    panel = draw_panel(2 * seen - 1, template, vertices, texture, pose)
    save_image(folder / PANEL, to_uint8(panel))
    record = camera_record(select(pose, 0), subject.box, subject.width, subject.height)
    files.write_json(folder / CAMERA, {"origin": dict(origin), **record})


def is_complete(folder: Path, origin: Mapping[str, Any]) -> bool:
    """Returns whether a folder holds the files of this origin.

    Raises:
        UserError: if it holds those of another one.
    """
    path = folder / CAMERA
    if not path.exists():
        return False
    record = files.read_json(path, _REMEDY)
    earlier = record.get("origin", {}) if isinstance(record, dict) else {}
    changed = [key for key, value in origin.items() if earlier.get(key) != value]
    if changed:
        raise UserError(
            f"{folder}/ holds a mesh of another export (with another {', '.join(changed)}). Choose "
            "another --out_path, or add --overwrite to replace it."
        )
    return True


def save_overview(folder: Path, title: str, names: Sequence[str], rings: int) -> None:
    """Writes index.html, photographs beside their meshes, and turntable.gif of the first ones.

    Args:
        folder: of the export.
        title: of the page.
        names: folders of the photographs, which are complete.
        rings: of the sphere that they are.
    """
    shown = [_photograph(folder / name, name) for name in names[: gallery.GALLERY_MESHES]]
    meshes = [folder / name / "mesh.glb" for name in names]
    gallery.save_page(folder / "index.html", title, meshes, shown)
    turning = [_read_mesh(folder / name) for name in names[: gallery.TURNTABLE_MESHES]]
    vertices, textures = (torch.stack(members) for members in zip(*turning, strict=True))
    frames = gallery.turntable_frames(SphereMesh(rings), vertices, textures)
    gallery.save_turntable(folder / "turntable.gif", frames)


def _photograph(folder: Path, name: str) -> gallery.Photograph:
    """Returns the first picture of a panel, and the side from which it shows the mesh."""
    with Image.open(folder / PANEL) as panel:
        picture = panel.convert("RGB").crop((0, 0, SIZE, SIZE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    record = files.read_json(folder / CAMERA, _REMEDY)
    return gallery.Photograph(name, buffer.getvalue(), viewer_orbit(record))


def _read_mesh(folder: Path) -> tuple[Tensor, Tensor]:
    """Returns vertices (V, 3) and texture (3, R, R) of a folder."""
    mesh = load_mesh(folder / "mesh.obj", up="y", front="z")
    with Image.open(folder / "mesh.png") as picture:
        pixels = np.array(picture.convert("RGB"), np.float32)
    return torch.from_numpy(mesh.vertices).float(), torch.from_numpy(pixels).movedim(
        2, 0
    ) / 127.5 - 1
