"""Mesh files as people's programs write them: every dialect gives the same cube, or a true reason."""

import base64
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from geometry import gltf
from geometry.mesh_files import Mesh, load_mesh
from utils.cli import UserError

CORNERS = np.array([[x, y, z] for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))], float)
QUADS = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
TRIANGLES = [[q[0], q[i], q[i + 1]] for q in QUADS for i in (1, 2)]
AXES = {"up": "z", "front": "-y"}  # those of the cube, whatever the format says


def positions(separator: str = " ", prefix: str = "v ") -> str:
    return "".join(
        prefix.replace(" ", separator) + separator.join(map(str, p)) + "\n" for p in CORNERS
    )


def rows(faces: list[list[int]], shift: int = 1, prefix: str = "f ") -> str:
    return "".join(prefix + " ".join(str(i + shift) for i in face) + "\n" for face in faces)


def ply(order: str, faces: list[list[int]], extra: bool = False) -> bytes:
    """Returns a .ply file; with `extra`, columns that nobody asks for and an element in between."""
    name = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}[order]
    color = "property uchar red\n" * extra
    between = "element rest 2\nproperty list uchar float values\n" * extra
    header = (
        f"ply\nformat {name} 1.0\ncomment mod\xe8le\nelement vertex 8\nproperty float x\n"
        f"property float y\n{color}property float z\n{between}element face {len(faces)}\n"
        f"property list uchar int vertex_indices\nend_header\n"
    )
    if not order:
        lines = [f"{x} {y} {'7 ' * extra}{z}" for x, y, z in CORNERS]
        lines += ["0", "2 1.5 2.5"] * extra
        lines += [f"{len(face)} {' '.join(map(str, face))}" for face in faces]
        return (header + "\n".join(lines) + "\n").encode("latin-1")
    body = b"".join(
        struct.pack(order + "ff" + "B" * extra + "f", x, y, *[7] * extra, z) for x, y, z in CORNERS
    )
    body += struct.pack(order + "BBff", 0, 2, 1.5, 2.5) * extra
    body += b"".join(struct.pack(f"{order}B{len(f)}i", len(f), *f) for f in faces)
    return header.encode("latin-1") + body


def stl(trailing: bytes = b"") -> bytes:
    triangles = CORNERS[TRIANGLES].reshape(12, 9)
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *t, 0) for t in triangles)
    return b"solid, though binary".ljust(80) + struct.pack("<I", 12) + body + trailing


def stl_text() -> bytes:
    text = "".join(
        "facet normal 0 0 0\nouter loop\n"
        + "".join(f"vertex {x} {y} {z}\n" for x, y, z in CORNERS[triangle])
        + "endloop\nendfacet\n"
        for triangle in TRIANGLES
    )
    return f"solid mod\xe8le\n{text}endsolid".encode("latin-1")


def tree(**changes: object) -> dict:
    """Returns a glTF tree whose buffer holds the corners and the indices of the cube."""
    return {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 36, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 96},
            {"buffer": 0, "byteOffset": 96, "byteLength": 72},
        ],
        "buffers": [{"byteLength": 168}],
        **changes,
    }


BUFFER = CORNERS.astype("<f4").tobytes() + np.array(TRIANGLES, "<u2").tobytes()


def glb(content: dict, buffer: bytes = BUFFER, trailing: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(buffer)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
    return struct.pack("<4sII", b"glTF", 2, length) + chunks + trailing


def in_text(content: dict, buffer: bytes = BUFFER) -> bytes:
    uri = "data:application/octet-stream;base64," + base64.b64encode(buffer).decode()
    return json.dumps({**content, "buffers": [{"byteLength": len(buffer), "uri": uri}]}).encode()


CUBES: dict[str, bytes] = {
    "quads.obj": (positions() + rows(QUADS)).encode(),
    "triangles.obj": (positions() + rows(TRIANGLES)).encode(),
    "tabs.obj": (positions("\t") + rows(QUADS)).replace(" ", "\t").encode(),
    "latin.obj": "# mod\xe8le \x85 f 1 2 3\n".encode("latin-1")
    + (positions() + rows(QUADS)).encode(),
    "old line ends.obj": (positions() + rows(QUADS)).replace("\n", "\r").encode(),
    "dos.obj": (positions() + rows(QUADS)).replace("\n", "\r\n").encode(),
    "no newline.obj": (positions() + rows(QUADS)).strip().encode(),
    "continued.obj": (positions() + rows(QUADS).replace(" 3 ", " 3 \\\n")).encode(),
    "comments.obj": (positions() + rows(QUADS).replace("\n", " # a face\n")).encode(),
    "colors.obj": (positions().replace("\n", " .5 .5 .5\n") + rows(QUADS)).encode(),
    "negative.obj": (positions() + rows(QUADS, -8)).encode(),
    "negative in two blocks.obj": (
        positions() + rows(QUADS[:3], -8) + "v 9 9 9\n" + rows(QUADS[3:], -9)
    ).encode(),
    "faces first.obj": (rows(QUADS) + positions()).encode(),
    "texture.obj": (
        positions() + "vt 0 0\nvn 0 0 1\n" + rows(QUADS).replace("\n", "/1/1\n")
    ).encode(),
    "groups.obj": (
        positions() + "o a\n" + rows(QUADS[:2]) + "g b\nusemtl c\n" + rows(QUADS[2:])
    ).encode(),
    "LARGE.OBJ": (positions() + rows(QUADS)).encode(),
    "plain.off": ("OFF\n8 6 12\n" + positions(prefix="") + rows(QUADS, 0, "4 ")).encode(),
    "one line.off": ("OFF 8 6 12\n" + positions(prefix="") + rows(QUADS, 0, "4 ")).encode(),
    "colored.off": (
        "COFF\n# a cube\n\n8 6 12\n"
        + positions(prefix="").replace("\n", " 9 9 9 9\n")
        + rows(QUADS, 0, "4 ").replace("\n", " 1 0 0\n")
    ).encode(),
    "text.stl": stl_text(),
    "binary.stl": stl(),
    "trailing.stl": stl(b"\xff\xfe and more"),
    **{
        f"{name} {kind}{' extra' * extra}.ply": ply(order, faces, extra)
        for name, order in {"text": "", "little": "<", "big": ">"}.items()
        for kind, faces in {
            "quads": QUADS,
            "triangles": TRIANGLES,
            "mixed": [*TRIANGLES[:4], *QUADS[2:]],
            "mixed, quads first": [*QUADS[:2], *TRIANGLES[4:]],
        }.items()
        for extra in (False, True)
    },
    "plain.glb": glb(tree()),
    "trailing.glb": glb(tree(), trailing=b"abc"),
    "text.gltf": in_text(tree()),
    "without scenes.glb": glb({k: v for k, v in tree().items() if k not in ("scene", "scenes")}),
}


def moved(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


@pytest.mark.parametrize("name", CUBES)
def test_every_dialect_is_the_same_cube(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(CUBES[name])
    mesh = load_mesh(tmp_path / name, **AXES)
    assert len(mesh.faces) == 12
    assert len(mesh.vertices) == 8
    assert sorted(mesh.vertices.tolist()) == sorted(CORNERS.tolist())
    solid = moved(mesh)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(1)
    assert solid.area == pytest.approx(6)


def test_negative_indices_count_from_where_they_stand(tmp_path: Path):
    block = positions() + rows(QUADS, -8)
    (tmp_path / "m.obj").write_text(block + block.replace(" 0", " 5").replace(" 1.", " 6."))
    mesh = load_mesh(tmp_path / "m.obj")
    assert len(np.unique(mesh.faces)) == 16


def test_formats_have_the_axes_that_they_define(tmp_path: Path):
    (tmp_path / "m.glb").write_bytes(glb(tree()))
    (tmp_path / "m.obj").write_bytes(CUBES["quads.obj"])
    raw = load_mesh(tmp_path / "m.glb", **AXES).vertices
    x, y, z = raw.T  # y up, front z: z is behind in object space, where the front is -y
    np.testing.assert_array_equal(load_mesh(tmp_path / "m.glb").vertices, np.stack([x, -z, y], 1))
    np.testing.assert_array_equal(load_mesh(tmp_path / "m.obj").vertices, raw)


def test_a_scene_places_its_meshes(tmp_path: Path):
    # A quarter turn about z, twice as large, within a node that is moved
    half = np.sqrt(0.5)
    nodes = [
        {"children": [1, 2], "translation": [10, 0, 0]},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
    ]
    (tmp_path / "m.glb").write_bytes(glb(tree(nodes=nodes)))
    mesh = load_mesh(tmp_path / "m.glb", **AXES)
    assert len(mesh.faces) == 24
    np.testing.assert_allclose(mesh.vertices[:8].min(0), [8, 0, 0], atol=1e-12)
    np.testing.assert_allclose(mesh.vertices[:8].max(0), [10, 2, 2], atol=1e-12)
    np.testing.assert_allclose(mesh.vertices[8:], CORNERS + np.array([10, 0, 5]))


@pytest.mark.parametrize(("mode", "order"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])])
def test_strips_and_fans_are_a_square(tmp_path: Path, mode: int, order: list[int]):
    buffer = BUFFER[:96] + np.array(order, "<u2").tobytes()
    content = tree()
    content["meshes"][0]["primitives"][0]["mode"] = mode
    content["accessors"][1]["count"] = 4
    (tmp_path / "m.glb").write_bytes(glb(content, buffer))
    mesh = load_mesh(tmp_path / "m.glb", **AXES)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    np.testing.assert_allclose(np.cross(b - a, c - a) / 2, [[0, 0, 0.5]] * 2)


def test_a_buffer_beside_the_file_is_read_and_one_elsewhere_is_not(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for place in (tmp_path / "cube.bin", tmp_path / "in" / "cube.bin"):
        place.write_bytes(BUFFER)
    for uri, message in {
        "cube.bin": None,
        "absent.bin": "not there; keep the two together",
        "../cube.bin": "not below its folder",
        str(tmp_path / "cube.bin"): "not below its folder",
        "https://example.org/cube.bin": "not below its folder",
    }.items():
        text = json.dumps(tree(buffers=[{"byteLength": 168, "uri": uri}]))
        (tmp_path / "in" / "m.gltf").write_text(text)
        if message is None:
            assert len(load_mesh(tmp_path / "in" / "m.gltf").faces) == 12
        else:
            with pytest.raises(UserError, match=message):
                load_mesh(tmp_path / "in" / "m.gltf")


def test_our_readers_agree_with_trimesh_on_its_own_exports(tmp_path: Path):
    solid = trimesh.creation.annulus(0.5, 1.0, 2.0)
    for suffix in ("obj", "off", "ply", "stl", "glb"):
        solid.export(tmp_path / f"m.{suffix}")
        ours = moved(load_mesh(tmp_path / f"m.{suffix}", **AXES))
        assert ours.is_watertight
        assert ours.volume == pytest.approx(solid.volume, rel=1e-5)
        np.testing.assert_allclose(ours.bounds, solid.bounds, atol=1e-6)


def draco() -> bytes:
    content = tree(extensionsRequired=["KHR_draco_mesh_compression"])
    for accessor in content["accessors"]:
        del accessor["bufferView"]
    return glb(content)


POINTS = b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n0 0 0\n1 1 1\n"
REFUSED: dict[str, tuple[bytes, str]] = {
    "draco.glb": (draco(), "compressed with Draco.*without compression"),
    "meshopt.glb": (glb(tree(extensionsRequired=["EXT_meshopt_compression"])), "meshopt"),
    "sparse.glb": (
        glb(tree(accessors=[{"componentType": 5126, "count": 8, "type": "VEC3"}] * 2)),
        "not read. Export it again",
    ),
    "points.glb": (
        glb(tree(meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}])),
        "points and lines only",
    ),
    "loop.glb": (glb(tree(nodes=[{"mesh": 0, "children": [0]}])), "two parents"),
    "twice.glb": (glb(tree(nodes=[{"children": [1, 1]}, {"mesh": 0}])), "two parents"),
    "first version.glb": (struct.pack("<4sII", b"glTF", 1, 12), "version 1"),
    "cut.glb": (glb(tree())[:-40], "cut"),
    "short buffer.glb": (glb(tree(), BUFFER[:-2]), "cut or damaged"),
    "wrong corner.glb": (glb(tree(), BUFFER[:-2] + b"\x08\0"), "corner 8, of 8 vertices"),
    "no structure.glb": (glb({}), "no faces"),
    "a list.gltf": (b"[]", "damaged"),
    "points.ply": (POINTS, "point cloud: 2 points"),
    "tristrips.ply": (
        ply("", QUADS).replace(b"element face", b"element tristrips"),
        "triangle strips",
    ),
    "cut.ply": (ply("<", QUADS)[:-1], "it was cut"),
    "cut text.ply": (ply("", QUADS)[:-4], "cut"),
    "fraction.ply": (ply("", TRIANGLES).replace(b"3 0 3 2", b"3 0 3.5 2"), "whole number"),
    "negative list.ply": (
        ply("", TRIANGLES).replace(b"list uchar", b"list int").replace(b"3 0 3 2", b"-3 0 3 2"),
        "-3 numbers",
    ),
    "strips.ply": (ply("", TRIANGLES).replace(b"vertex_indices", b"strips"), "no vertex_indices"),
    "points.obj": (positions().encode(), "no faces"),
    "zero.obj": ((positions() + "f 0 1 2\n").encode(), "index 0"),
    "ninth.obj": ((positions() + "f 1 2 9\n").encode(), "corner 8, but the vertices are 0 to 7"),
    "before.obj": ((positions() + "f -9 1 2\n").encode(), "corner -1"),
    "flat.obj": (b"v 0 0\nv 1 0\nv 1 1\nf 1 2 3\n", "fewer than three coordinates"),
    "nan.obj": ((positions() + rows(QUADS)).replace("1.0", "nan", 1).encode(), "not finite"),
    "words.obj": (b"v a b c\n", "could not convert"),
    "cut.off": (CUBES["plain.off"][:-9], "cut"),
    "short face.off": (b"OFF\n1 1 0\n0 0 0\n3 0 0\n", "lists 2"),
    "binary.off": (b"OFF BINARY\n" + bytes(12), "expected OFF"),
    "no header.off": (b"8 6 12\n", "expected OFF"),
    "cut.stl": (stl()[:-1], "cut"),
    "cut text.stl": (stl_text()[:-30], "cut"),
    "empty.stl": (b"", "cut or is no .stl"),
    "model.fbx": (b"Kaydara", "expected one of .obj"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_true_reason(tmp_path: Path, name: str):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_mesh(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_small_file_cannot_show_a_mesh_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gltf, "MAX_TRIANGLES", 100)
    nodes = [{"children": list(range(1, 11))}, *[{"mesh": 0}] * 10]
    (tmp_path / "m.glb").write_bytes(glb(tree(nodes=nodes)))
    with pytest.raises(UserError, match="more than 100 triangles"):
        load_mesh(tmp_path / "m.glb")


def test_declared_sizes_reserve_no_memory(tmp_path: Path):
    content = tree()
    content["accessors"][0]["count"] = 10**12
    files = {
        "m.glb": glb(content),
        "m.ply": ply("<", QUADS).replace(b"vertex 8", b"vertex 99999999999"),
        "t.ply": ply("", QUADS).replace(b"face 6", b"face 99999999999"),
        "m.off": b"OFF\n99999999999 6 12\n",
        "m.stl": bytes(80) + b"\xff\xff\xff\xff" + bytes(100),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError):
            load_mesh(tmp_path / name)
