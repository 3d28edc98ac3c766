"""Generated meshes for other programs: .glb files, a page that shows them, and a turntable picture."""

import base64
import functools
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from geometry import quaternion
from geometry.camera import Pose
from geometry.mesh_files import to_y_up
from geometry.operators import vertex_normals
from geometry.sphere_mesh import SphereMesh
from pipeline.generation.sampling import Generated, render
from utils.files import atomic_path, to_json, write_bytes
from utils.pictures import make_grid, to_uint8

GALLERY_MESHES = 40  # as many as a page can hold: each takes about a megabyte
TURNTABLE_MESHES = 8
TURNTABLE_FRAMES = 24
TURNTABLE_SIZE = 128  # pixels
_ELEVATION = 15.0  # degrees
_MILLISECONDS = 100  # per frame
_VIEWER = Path(__file__).parent / "viewer"


def save_glb(
    path: Path,
    template: SphereMesh,
    vertices: Tensor,
    texture: Tensor,
    origin: Mapping[str, object] | None = None,
) -> None:
    """Writes a binary glTF file with the texture in it; y up, and unlit: light is in the texture.

    The mesh, its node and its material are named like the file.

    Args:
        path: of the file.
        template: topology of the mesh.
        vertices: (V, 3) object space.
        texture: (3, R, R) in [-1, 1], row 0 at v = 1.
        origin: what the mesh was made from, for the extras of the asset.
    """
    # glTF has a single index per corner: each pair of position and texture coordinate is a vertex
    corners = torch.stack([template.faces, template.face_uvs], dim=-1).reshape(-1, 2).cpu().numpy()
    pairs, faces = np.unique(corners, axis=0, return_inverse=True)
    rows = texture.shape[-2]
    uvs = template.uvs.cpu().double().numpy()[pairs[:, 1]]
    # Our first and last row of texels lie on v = 1 and v = 0, viewers take the borders of the image
    uvs[:, 1] = (uvs[:, 1] * (rows - 1) + 0.5) / rows
    # Rough and not metallic, for viewers that ignore the extension for unlit materials
    material = PBRMaterial(
        baseColorTexture=Image.fromarray(to_uint8(texture)),
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )
    # Smooth normals of the closed surface; those of the glTF vertices would show the seam
    normals = vertex_normals(vertices, template.faces)
    positions, normals = (
        to_y_up(rows).detach().cpu().double().numpy()[pairs[:, 0]] for rows in (vertices, normals)
    )
    mesh = trimesh.Trimesh(
        positions,
        faces.reshape(-1, 3),
        vertex_normals=normals,
        visual=TextureVisuals(uv=uvs, material=material),
        process=False,
    )
    content = mesh.export(
        file_type="glb",
        include_normals=True,
        tree_postprocessor=functools.partial(_finish, path.stem, json.loads(to_json(origin or {}))),
    )
    assert isinstance(content, bytes)
    write_bytes(path, content)


def _finish(name: str, origin: dict, tree: dict) -> None:
    """Adds to a glTF tree what trimesh does not write: names, the origin, and an unlit material."""
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
    tree["asset"]["generator"] = "Textured Mesh GAN"
    if origin:
        tree["asset"]["extras"] = origin
    for material in tree["materials"]:
        material.update(name=name, extensions={"KHR_materials_unlit": {}})
    for mesh in tree["meshes"]:
        mesh["name"] = name
    for node in tree["nodes"]:
        if "mesh" in node:
            node["name"] = name


def save_page(path: Path, title: str, meshes: Sequence[Path]) -> None:
    """Writes a page that opens without network, in which every mesh can be turned.

    Args:
        path: of the page.
        title: heading.
        meshes: .glb files, of which the first GALLERY_MESHES are shown.
    """
    shown = meshes[:GALLERY_MESHES]
    note = f"{len(shown)} of {len(meshes)} meshes." if len(meshes) > len(shown) else ""
    # Script and meshes are embedded, since a page opened from disk may not load other files
    page = Template((_VIEWER / "gallery.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        note=note,
        script=(_VIEWER / "model-viewer.min.js").read_text(encoding="utf-8"),
        figures="\n".join(_figure(mesh) for mesh in shown),
    )
    write_bytes(path, page.encode())


def _figure(mesh: Path) -> str:
    data = base64.b64encode(mesh.read_bytes()).decode("ascii")
    name = html.escape(mesh.stem)
    return (
        f'<figure><model-viewer alt="{name}" camera-controls interaction-prompt="none" '
        f'camera-orbit="60deg 75deg auto" src="data:model/gltf-binary;base64,{data}">'
        f"</model-viewer><figcaption>{name}</figcaption></figure>"
    )


def turntable_frames(template: SphereMesh, sample: Generated) -> Tensor:
    """Renders meshes from all around, on white; returns (B, frames, 3, size, size) uint8."""
    vertices = template.deform(sample.displacement)
    # Scaled by its radius, a mesh never leaves the picture while it turns
    radius = vertices.norm(dim=-1).amax(dim=1, keepdim=True)
    frames = []
    for azimuth in range(0, 360, 360 // TURNTABLE_FRAMES):
        view = (torch.tensor(float(angle)) for angle in (azimuth, _ELEVATION, 0))
        rotation = quaternion.from_view(*view).to(vertices.device).expand(len(vertices), 4)
        pose = Pose(0.95 / radius, radius.new_zeros(len(radius), 2), rotation, 0 * radius)
        colors, coverage = render(template, sample._replace(pose=pose), 2 * TURNTABLE_SIZE)
        frames.append(F.avg_pool2d(colors + (1 - coverage), 2))
    levels = (torch.stack(frames, dim=1).clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).cpu()


def save_turntable(path: Path, frames: Tensor) -> None:
    """Writes frames (B, frames, 3, size, size) uint8 as an animated picture that repeats forever."""
    columns = min(4, len(frames))
    # One grid of all meshes per frame
    grids = [make_grid(frame, columns, padding=0, value=255) for frame in frames.unbind(1)]
    pictures = [Image.fromarray(grid.permute(1, 2, 0).numpy()) for grid in grids]
    # One palette for all frames, or colors would flicker
    strip = Image.fromarray(torch.cat([g.permute(1, 2, 0) for g in grids[::4]]).numpy())
    palette = strip.quantize(256)
    first, *others = (picture.quantize(palette=palette) for picture in pictures)
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
