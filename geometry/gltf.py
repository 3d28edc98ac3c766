"""Reader of the geometry in .gltf and .glb files: what the scene shows, in its own coordinates.

https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html; materials, skins, morph targets and
animations are left out.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geometry.mesh_formats import Polygons

MAX_TRIANGLES = 20_000_000  # of a scene: a small mesh may be shown many times
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_COMPRESSION = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_meshopt_compression": "meshopt",
}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


def read_gltf(path: Path) -> Polygons:
    """Reads the triangles of a scene.

    Raises:
        ValueError: if the file is compressed, damaged, or shows points and lines only; KeyError,
            IndexError, TypeError or AttributeError if its structure is not that of the format.
    """
    tree, binary = split(path.read_bytes())
    _refuse_compression(tree)
    buffers = [_buffer(path, entry, binary) for entry in tree.get("buffers", [])]
    parts, total, others = [], 0, 0
    for number, matrix in _shown_meshes(tree):
        for primitive in tree["meshes"][number]["primitives"]:
            if primitive.get("mode", _TRIANGLES) not in (_TRIANGLES, _STRIP, _FAN):
                others += 1
                continue
            points, faces = _primitive(tree, buffers, primitive)
            total += len(faces)
            if total > MAX_TRIANGLES:
                raise ValueError(f"its scene has more than {MAX_TRIANGLES:,} triangles")
            parts.append((points @ matrix[:3, :3].T + matrix[:3, 3], faces))
    if not parts and others:
        raise ValueError("it shows points and lines only; export the surface, as triangles")
    offsets = np.cumsum([0, *(len(points) for points, _ in parts)])
    vertices = np.concatenate([np.zeros((0, 3)), *(points for points, _ in parts)])
    faces = [faces + offset for (_, faces), offset in zip(parts, offsets, strict=False)]
    corners = np.concatenate([np.zeros((0, 3), np.int64), *faces])
    return Polygons(vertices, corners.ravel(), np.full(len(corners), 3))


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the tree of a file and, of a .glb, its binary chunk."""
    if content[:4] != b"glTF":
        return json.loads(content), b""
    version, length = (int.from_bytes(content[i : i + 4], "little") for i in (4, 8))
    if version != 2:
        raise ValueError(f"it has version {version} of glTF, expected 2")
    if length > len(content):
        raise ValueError(f"it says that it has {length} bytes, of {len(content)}, so it was cut")
    chunks: dict[bytes, bytes] = {}
    start = 12
    while start + 8 <= length:
        size = int.from_bytes(content[start : start + 4], "little")
        chunks.setdefault(content[start + 4 : start + 8], content[start + 8 : start + 8 + size])
        start += 8 + size
    return json.loads(chunks[b"JSON"]), chunks.get(b"BIN\0", b"")


def _refuse_compression(tree: dict[str, Any]) -> None:
    """Names the compression of a file that needs a decoder of its own."""
    for extension in tree.get("extensionsRequired", []):
        if extension in _COMPRESSION:
            raise ValueError(
                f"its geometry is compressed with {_COMPRESSION[extension]}, which is not read. "
                "Export it without compression, or unpack it with: npx @gltf-transform/cli copy"
            )


def _buffer(path: Path, entry: dict[str, Any], binary: bytes) -> bytes:
    """Returns the bytes of a buffer: of the file itself, in its text, or in a file beside it."""
    uri = entry.get("uri")
    if uri is None:
        return binary
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    beside = path.parent / uri
    if ":" in uri or path.parent.resolve() not in beside.resolve().parents:
        raise ValueError(f"it refers to {uri[:80]!r}, which is not below its folder")
    if not beside.is_file():
        raise ValueError(f"it refers to {uri[:80]!r}, which is not there; keep the two together")
    return beside.read_bytes()


def _shown_meshes(tree: dict[str, Any]) -> list[tuple[int, NDArray[np.float64]]]:
    """Returns number and transform (4, 4) of every mesh in the scene."""
    nodes = tree.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    roots = [i for i in range(len(nodes)) if i not in children]
    if tree.get("scenes"):
        roots = tree["scenes"][tree.get("scene", 0)].get("nodes", [])
    waiting, seen, found = [(i, np.eye(4)) for i in reversed(roots)], set(), []
    while waiting:
        i, matrix = waiting.pop()
        if i in seen:
            raise ValueError(f"its node {i} has two parents")
        seen.add(i)
        matrix = matrix @ _transform(nodes[i])
        if "mesh" in nodes[i]:
            found.append((nodes[i]["mesh"], matrix))
        waiting += [(child, matrix) for child in reversed(nodes[i].get("children", []))]
    return found


def _transform(node: dict[str, Any]) -> NDArray[np.float64]:
    """Matrix (4, 4) of a node: given by columns, or as translation, rotation x y z w and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ) * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _primitive(
    tree: dict[str, Any], buffers: list[bytes], primitive: dict[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns positions (V, 3) and triangles (F, 3) of a part of a mesh."""
    if primitive.get("extensions", {}).keys() & _COMPRESSION.keys():
        _refuse_compression({"extensionsRequired": list(primitive["extensions"])})
    points = _accessor(tree, buffers, primitive["attributes"]["POSITION"], 3).astype(np.float64)
    corners = np.arange(len(points))
    if "indices" in primitive:
        corners = _accessor(tree, buffers, primitive["indices"], 1).ravel().astype(np.int64)
    if corners.size and not 0 <= corners.min() <= corners.max() < len(points):
        raise ValueError(f"a triangle has corner {corners.max()}, of {len(points)} vertices")
    if primitive.get("mode", _TRIANGLES) == _TRIANGLES:
        return points, corners[: len(corners) // 3 * 3].reshape(-1, 3)
    first, second = np.arange(len(corners) - 2), np.arange(1, len(corners) - 1)
    if primitive["mode"] == _FAN:
        return points, corners[np.stack([0 * first, second, second + 1], axis=1)]
    odd = first % 2  # every other triangle of a strip is turned over
    return points, corners[np.stack([first, second + odd, second + 1 - odd], axis=1)]


def _accessor(tree: dict[str, Any], buffers: list[bytes], number: int, width: int) -> NDArray:
    """Returns the rows (n, width) of an accessor."""
    entry = tree["accessors"][number]
    if "sparse" in entry or "bufferView" not in entry:
        raise ValueError(
            "its geometry is stored sparsely or not at all, which is not read. Export it again, "
            "without compression"
        )
    if entry["type"] != ("SCALAR", "VEC2", "VEC3")[width - 1]:
        raise ValueError(f"an accessor has the type {entry['type']}")
    view = tree["bufferViews"][entry["bufferView"]]
    kind = np.dtype(_COMPONENTS[entry["componentType"]])
    stride = view.get("byteStride", width * kind.itemsize)
    start = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
    content, count = buffers[view["buffer"]], entry["count"]
    end = start + stride * (count - 1) + width * kind.itemsize
    if min(start, count - 1, stride - width * kind.itemsize) < 0 or end > len(content):
        raise ValueError("its geometry is not all there, so it was cut or damaged")
    rows = np.ndarray((count, width), kind, content, start, (stride, kind.itemsize))
    if entry.get("normalized") and kind.kind != "f":
        return np.maximum(rows / np.iinfo(kind).max, -1)
    return rows.copy()
