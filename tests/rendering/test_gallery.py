"""Exported meshes in other programs: sides, textures, the page and the turntable."""

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from geometry import gltf
from geometry.glb import save_glb
from geometry.mesh_files import save_textured_mesh
from geometry.sphere_mesh import SphereMesh
from rendering import gallery
from tests.conftest import REPOSITORY

SIZE = 64
ORIGIN = {"run": "a\nrun", "seed": 3, "checkpoint": Path("x.pth")}
FACTORS = torch.tensor([0.4, 1.0, 0.6])  # narrow, long, flat


def marked_texture() -> torch.Tensor:
    """Grey, with a red patch on the object's left (u = 1/2) near its front, and a blue back."""
    texture = torch.zeros(3, SIZE, SIZE)
    texture[:, SIZE * 11 // 16 : SIZE * 13 // 16, SIZE * 7 // 16 : SIZE * 9 // 16] = -1
    texture[0, SIZE * 11 // 16 : SIZE * 13 // 16, SIZE * 7 // 16 : SIZE * 9 // 16] = 1
    texture[:, :4] = torch.tensor([-1.0, -1.0, 1.0])[:, None, None]
    return texture


def write(folder: Path, kind: str) -> Path:
    template = SphereMesh()
    path = folder / f"mesh.{kind}"
    vertices, texture = template.vertices * FACTORS, marked_texture()
    if kind == "glb":
        save_glb(path, template, vertices, texture, ORIGIN)
    else:
        arrays = (template.faces, template.uvs, template.face_uvs)
        save_textured_mesh(path, vertices, *arrays, texture, ORIGIN)
    return path


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_a_marker_on_the_left_stays_on_the_left(tmp_path: Path, kind: str) -> None:
    mesh = trimesh.load(write(tmp_path, kind), force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    np.testing.assert_allclose(
        mesh.extents, [0.8, 1.2, 2.0], atol=0.01
    )  # y up, front and back on z
    assert mesh.volume > 0  # outward
    colors = mesh.visual.to_color().vertex_colors.astype(int)  # type: ignore[union-attr]
    red = mesh.vertices[colors[:, 0] - colors[:, 1] > 100]
    blue = mesh.vertices[colors[:, 2] - colors[:, 1] > 100]
    # Who looks along z, with y up, has x on the left
    assert len(red) > 3
    assert (red[:, 0] > 0.2).all()
    assert (red[:, 2] > 0.2).all()
    assert len(blue) > 3
    assert (blue[:, 2] < -0.8).all()


def test_binary_files_hold_one_unlit_mesh_with_its_texture(tmp_path: Path) -> None:
    content = write(tmp_path, "glb").read_bytes()
    magic, version, size, length = struct.unpack("<4sIII", content[:16])
    assert (magic, version, size) == (b"glTF", 2, len(content))
    tree = json.loads(content[20 : 20 + length])
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    assert [image["mimeType"] for image in tree["images"]] == ["image/png"]
    positions = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert positions["count"] == 1054  # one per pair of vertex and texture coordinate


def columns(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions and normals (V, 3) as they stand in a file."""
    if path.suffix == ".obj":
        rows = [line.split() for line in path.read_text().splitlines()]
        found = ([row[1:] for row in rows if row[0] == kind] for kind in ("v", "vn"))
        positions, normals = (np.array(values, float) for values in found)
        return positions, normals
    content = path.read_bytes()
    start = 20 + int.from_bytes(content[12:16], "little")
    tree, buffer = json.loads(content[20:start]), content[start + 8 :]
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    arrays = [
        gltf._accessor(tree, [buffer], attributes[name], 3) for name in ("POSITION", "NORMAL")
    ]
    return arrays[0], arrays[1]


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_normals_are_those_of_the_ellipsoid(tmp_path: Path, kind: str) -> None:
    positions, normals = columns(write(tmp_path, kind))
    across, along, high = FACTORS.tolist()
    exact = positions / np.square([across, high, along])  # y up
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert np.degrees(np.arccos((normals * exact).sum(1).clip(-1, 1))).max() < 6
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_files_are_named_and_say_what_they_were_made_from(tmp_path: Path) -> None:
    content = write(tmp_path, "glb").read_bytes()
    tree = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert tree["asset"]["extras"] == {"run": "a\nrun", "seed": 3, "checkpoint": "x.pth"}
    assert [entry["name"] for entry in tree["meshes"] + tree["materials"]] == ["mesh", "mesh"]
    assert [node["name"] for node in tree["nodes"] if "mesh" in node] == ["mesh"]
    lines = write(tmp_path, "obj").read_text().splitlines()
    assert lines[:5] == ["# run: a run", "# seed: 3", "# checkpoint: x.pth", "mtllib mesh.mtl", "o mesh"]  # fmt: skip


def turntable(tmp_path: Path) -> Image.Image:
    texture = marked_texture()[None].expand(3, -1, -1, -1)
    template = SphereMesh()
    vertices = template.vertices.expand(3, -1, -1)
    frames = gallery.turntable_frames(template, vertices, texture)
    gallery.save_turntable(tmp_path / "turntable.gif", frames)
    return Image.open(tmp_path / "turntable.gif")


def test_the_turntable_shows_every_side(tmp_path: Path) -> None:
    with turntable(tmp_path) as picture:
        assert picture.n_frames == gallery.TURNTABLE_FRAMES  # type: ignore[attr-defined]
        assert picture.size == (3 * gallery.TURNTABLE_SIZE, gallery.TURNTABLE_SIZE)
        red = []
        for number in range(0, gallery.TURNTABLE_FRAMES, gallery.TURNTABLE_FRAMES // 4):
            picture.seek(number)
            pixels = np.asarray(picture.convert("RGB"), int)
            marked = np.argwhere(pixels[:, : gallery.TURNTABLE_SIZE, 0] - pixels[:, :128, 1] > 100)
            red.append(marked[:, 1].mean() / gallery.TURNTABLE_SIZE if len(marked) > 9 else None)
    right, toward, left, away = red  # where the front points
    assert right is None or left is None  # the marker is on one side only
    assert (right or left) != pytest.approx(0.5, abs=0.1)
    assert toward is not None
    assert toward > 0.5  # its left is on the right of who faces it
    assert away is None


def test_the_page_needs_no_network_and_names_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = write(tmp_path, "glb")
    monkeypatch.setattr(gallery, "GALLERY_MESHES", 2)
    gallery.save_page(tmp_path / "index.html", "a <b> run", [mesh] * 3)
    page = (tmp_path / "index.html").read_text()
    script = (REPOSITORY / "rendering/viewer/model-viewer.min.js").read_text()
    assert script in page
    rest = page.replace(script, "")
    assert "http:" not in rest.replace("http-equiv", "")
    assert "https:" not in rest
    assert "a &lt;b&gt; run" in rest
    assert "<b>" not in rest
    assert rest.count("<model-viewer ") == 2
    assert "2 of 3 meshes" in rest


def node_modules(*packages: str) -> dict[str, str]:
    """Returns the environment in which node finds npm packages, from $TMG_NODE_MODULES."""
    folder = Path(os.environ.get("TMG_NODE_MODULES", "node_modules")).resolve()
    missing = [name for name in packages if not (folder / name).is_dir()]
    if shutil.which("node") is None or missing:
        pytest.skip(f"needs node, and npm install {' '.join(packages)} (TMG_NODE_MODULES: where)")
    return os.environ | {"NODE_PATH": str(folder)}


def run_node(script: str, *arguments: object, environment: dict[str, str]) -> dict:
    command = ["node", str(REPOSITORY / "tests/pipeline" / script), *map(str, arguments)]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_binary_files_pass_the_khronos_validator(tmp_path: Path) -> None:
    environment = node_modules("gltf-validator")
    issues = run_node("validate.cjs", write(tmp_path, "glb"), environment=environment)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0)


@pytest.mark.slow
def test_the_page_draws_and_turns_in_a_browser(tmp_path: Path) -> None:
    environment = node_modules("puppeteer-core", "@sparticuz/chromium")
    gallery.save_page(tmp_path / "index.html", "run", [write(tmp_path, "glb")])
    shots = [tmp_path / "first.png", tmp_path / "turned.png"]
    page = (tmp_path / "index.html").as_uri()
    assert run_node("browser.cjs", page, *shots, environment=environment)["messages"] == []
    red = []
    for shot in shots:
        pixels = np.asarray(Image.open(shot).convert("RGB"), int)
        red.append((pixels[..., 0] - pixels[..., 1] > 150).sum())
    assert red[0] > 200  # the marked side is seen first
    assert red[1] < red[0] / 2
    seen, expected = outline(shots[0]), seen_from(tmp_path / "mesh.glb", azimuth=60, polar=75)
    np.testing.assert_allclose(seen, expected, atol=0.02)


@pytest.mark.slow
def test_a_slider_changes_the_shape_in_a_browser(tmp_path: Path) -> None:
    environment = node_modules("puppeteer-core", "@sparticuz/chromium", "gltf-validator")
    template, path = SphereMesh(), tmp_path / "morphs.glb"
    offsets = {"1: higher": template.vertices * torch.tensor([0, 0, 1.0])}
    gray = torch.zeros(3, SIZE, SIZE)
    save_glb(path, template, template.vertices * 0.5, gray, ORIGIN, offsets)
    issues = run_node("validate.cjs", path, environment=environment)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0)
    extras = gallery.Extras(path, {}, ORIGIN)
    gallery.save_page(tmp_path / "index.html", "run", [], extras=extras)
    shots = [tmp_path / "mean.png", tmp_path / "moved.png"]
    page = (tmp_path / "index.html").as_uri()
    found = run_node("browser.cjs", page, *shots, -0.3, environment=environment)
    assert found["messages"] == []
    # The sphere becomes flatter, and keeps its width
    heights, widths = [], []
    for shot in shots:
        pixels = np.asarray(Image.open(shot).convert("RGB"), int)
        gray = np.abs(pixels - 127).max(-1) < 6
        heights.append((gray.sum(1) > 30).sum())  # words are thinner
        widths.append((gray.sum(0) > 30).sum())
    assert heights[1] < 0.6 * heights[0]
    assert widths[1] > 0.9 * widths[0]


def outline(shot: Path) -> tuple[float, float, float]:
    """Returns height per width of the object in a screenshot, and where in it the red patch is."""
    pixels = np.asarray(Image.open(shot).convert("RGB"), int)
    card = np.argwhere(pixels.min(-1) == 255)
    (top, left), (bottom, right) = card.min(0), card.max(0)
    inside = pixels[top : bottom - 30, left:right]  # without the name below it
    grey = (abs(inside - 127) < 4).all(-1)
    red = inside[..., 0] - inside[..., 1] > 150
    blue = inside[..., 2] - inside[..., 1] > 150
    return relative(np.argwhere(grey | red | blue)[:, ::-1], np.argwhere(red)[:, ::-1].mean(0))


def relative(points: np.ndarray, marker: np.ndarray) -> tuple[float, float, float]:
    """Returns height per width of points (x, y), and the marker's place in their box."""
    low, size = points.min(0), np.ptp(points, axis=0)
    x, y = (marker - low) / size
    return float(size[1] / size[0]), float(x), float(y)


def seen_from(mesh_path: Path, azimuth: float, polar: float) -> tuple[float, float, float]:
    """The same of a mesh, seen by a pinhole camera that turns about the y axis; 0 looks along -z."""
    mesh = trimesh.load(mesh_path, force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    theta, phi = np.radians([azimuth, polar])
    back = np.array([np.sin(phi) * np.sin(theta), np.cos(phi), np.sin(phi) * np.cos(theta)])
    right = np.array([np.cos(theta), 0, -np.sin(theta)])
    axes = np.stack([right, np.cross(right, back), back], axis=1)  # right, down, towards the camera
    points = (mesh.vertices - mesh.bounds.mean(0)) @ axes
    distance = np.linalg.norm(points, axis=1).max() / np.sin(np.radians(15))  # 30 degrees wide
    image = points[:, :2] / (distance - points[:, 2:])
    uvs = mesh.visual.uv  # type: ignore[union-attr]
    marked = (abs(uvs - [0.5, 0.25]) < 1 / 16).all(1)
    return relative(image, image[marked].mean(0))
