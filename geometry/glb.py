"""Writer of textured meshes as binary glTF, the format of viewers in browsers and on phones."""

import functools
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from geometry.gltf import split
from geometry.mesh_files import to_y_up
from geometry.operators import vertex_normals
from geometry.sphere_mesh import SphereMesh
from utils.files import to_json, write_bytes
from utils.pictures import to_uint8

_FLOAT = 5126  # number of a type of components


def save_glb(
    path: Path,
    template: SphereMesh,
    vertices: Tensor,
    texture: Tensor,
    origin: Mapping[str, object] | None = None,
    morphs: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a binary glTF file with the texture in it; y up, and unlit: light is in the texture.

    The mesh, its node and its material are named like the file.

    Args:
        path: of the file.
        template: topology of the mesh.
        vertices: (V, 3) object space.
        texture: (3, R, R) in [-1, 1], row 0 at v = 1.
        origin: what the mesh was made from, for the extras of the asset.
        morphs: name -> (V, 3) offsets, morph targets that other programs show as sliders from 0 to 1.
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
    if morphs:
        offsets = [to_y_up(rows).detach().cpu().numpy()[pairs[:, 0]] for rows in morphs.values()]
        content = _with_targets(content, list(morphs), offsets)
    write_bytes(path, content)


def target_names(path: Path) -> list[str]:
    """Returns the names of the morph targets of a file that `save_glb` wrote."""
    tree, _ = split(path.read_bytes())
    return tree["meshes"][0]["extras"]["targetNames"]


def _with_targets(content: bytes, names: list[str], offsets: list[np.ndarray]) -> bytes:
    """Adds morph targets, offsets (V, 3) of the positions, to the only mesh of a file."""
    tree, binary = split(content)
    primitive, targets = tree["meshes"][0]["primitives"][0], []
    for rows in offsets:
        rows = rows.astype("<f4")
        view = {"buffer": 0, "byteOffset": len(binary), "byteLength": rows.nbytes}
        accessor = {
            "bufferView": len(tree["bufferViews"]),
            "componentType": _FLOAT,
            "count": len(rows),
            "type": "VEC3",
            "min": rows.min(axis=0).tolist(),
            "max": rows.max(axis=0).tolist(),
        }
        targets.append({"POSITION": len(tree["accessors"])})
        tree["bufferViews"].append(view)
        tree["accessors"].append(accessor)
        binary += rows.tobytes()
    primitive["targets"] = targets
    # Names are no part of the format, but stand here in the files of all programs
    tree["meshes"][0] |= {"weights": [0.0] * len(names), "extras": {"targetNames": names}}
    tree["buffers"][0]["byteLength"] = len(binary)
    return _joined(tree, binary)


def _joined(tree: dict, binary: bytes) -> bytes:
    """Returns a file of a tree and its binary chunk, both filled up to multiples of four bytes."""
    text = json.dumps(tree, separators=(",", ":")).encode()
    chunks = (b"JSON", text + b" " * (-len(text) % 4)), (b"BIN\0", binary + bytes(-len(binary) % 4))
    body = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in chunks)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


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
