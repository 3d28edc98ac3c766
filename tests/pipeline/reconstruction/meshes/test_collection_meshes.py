"""Meshes of a collection's photographs: files, camera, page, interruption and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import run_reconstruction
from data.crops import Box, square_box, to_pixels
from data.detections import load_detections
from geometry import camera
from geometry.mesh_files import to_y_up
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.meshes import camera_file, collection_meshes, mesh_folder
from tests.pipeline.reconstruction.toy import run
from utils.cli import UserError

OUT = Path("output/toy_singletpl_meshes")
EXPORT = ("--export_meshes", "--pseudogt_resolution", "64")
FILES = ["camera.json", "mesh.glb", "mesh.mtl", "mesh.obj", "mesh.png", "panel.png"]


def times() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in OUT.rglob("mesh.*")}


@pytest.mark.usefixtures("toy")
def test_every_photograph_becomes_a_mesh_and_a_place_on_the_page() -> None:
    run("--iters", "1")
    run(*EXPORT)
    assert sorted(p.name for p in OUT.iterdir()) == [
        "1",
        "2",
        "3",
        "4",
        "index.html",
        "turntable.gif",
    ]
    assert sorted(p.name for p in (OUT / "2").iterdir()) == FILES
    mesh = trimesh.load(OUT / "2" / "mesh.glb", force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    assert mesh.volume > 0
    # The disk in the photograph has one color, and so has what is seen of it
    color = np.asarray(Image.open("datasets/toy/images/2.png"))[0, 0]
    texture = np.asarray(Image.open(OUT / "2" / "mesh.png"), int)
    assert (np.abs(texture - color).max(-1) < 3).mean() > 0.3
    page = (OUT / "index.html").read_text()
    assert page.count("<model-viewer ") == page.count("<img ") == 4
    with Image.open(OUT / "turntable.gif") as picture:
        assert picture.n_frames == 24  # type: ignore[attr-defined]
    # A second run finds everything done; a deleted folder is made again, the same
    first = times()
    glb = (OUT / "3" / "mesh.glb").read_bytes()
    (OUT / "3" / "camera.json").unlink()
    run(*EXPORT, "--batch_size", "1")
    changed = {path.parent.name for path, time in times().items() if time != first[path]}
    assert changed == {"3"}
    assert (OUT / "3" / "mesh.glb").read_bytes() == glb


@pytest.mark.usefixtures("toy")
def test_the_camera_takes_vertices_of_the_files_to_pixels_of_the_photograph() -> None:
    run("--iters", "1")
    run(*EXPORT, "--how_many", "1", "--out_path", "there")
    (path,) = Path("there").glob("*/camera.json")
    record = json.loads(path.read_text())
    data = collection_meshes.ReconstructionData("toy", "singletpl", 64, semi_fraction=0, parts=True)
    row = int(path.parent.name) - 1
    detection = load_detections("toy")[row + 1]
    # By the project's own camera and crop
    mesh = trimesh.load(path.with_name("mesh.obj"), force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    x, y, z = torch.from_numpy(mesh.vertices).float().unbind(1)
    vertices = torch.stack([x, -z, y], dim=1)
    screen = camera.project(vertices[None], camera.select(data.labels.pose, slice(row, row + 1)))
    expected = to_pixels(screen[0, :, :2], square_box(detection.bbox))
    found = camera_file.to_pixels(record, torch.stack([x, y, z], dim=1))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (record["width"], record["height"]) == (detection.width, detection.height)


def test_the_formula_is_what_the_camera_of_the_project_does(template: SphereMesh) -> None:
    generator = torch.Generator().manual_seed(4)
    rotation = torch.nn.functional.normalize(torch.randn(4, generator=generator), dim=0)
    pose = camera.Pose(
        torch.tensor([0.7]), torch.tensor([0.1, -0.2]), rotation, torch.tensor([1.2])
    )
    box = Box(31, -7, 210)
    record = camera_file.camera_record(pose, box, 640, 480)
    # Written out by hand for each vertex, as the file says it
    matrix, offset = np.array(record["matrix"]), np.array(record["offset"])
    expected = to_pixels(camera.project(template.vertices[None], pose)[0, :, :2], box)
    for vertex, pixel in list(zip(to_y_up(template.vertices), expected, strict=True))[::40]:
        x, y, z = matrix @ vertex.double().numpy() + offset
        factor = (record["distance"] - z / 2) / (record["distance"] + z / 2)
        np.testing.assert_allclose(
            np.array(record["center"]) + factor * np.array([x, y]), pixel.numpy(), atol=1e-3
        )


def test_the_page_shows_a_mesh_from_where_the_camera_stands() -> None:
    for azimuth, elevation, orbit in ((90, 0, "0.0deg 90.0deg"), (90, 30, "0.0deg 60.0deg"), (0, 0, "90.0deg 90.0deg")):  # fmt: skip
        angles = (torch.tensor(float(angle)) for angle in (azimuth, elevation, 0))
        pose = camera.Pose(torch.ones(1), torch.zeros(2), camera_file.quaternion.from_view(*angles), torch.zeros(1))  # fmt: skip
        record = camera_file.camera_record(pose, Box(0, 0, 100), 100, 100)
        assert camera_file.viewer_orbit(record).removeprefix("-") == f"{orbit} auto"


@pytest.mark.usefixtures("toy")
def test_meshes_of_another_kind_are_replaced_only_when_asked_for() -> None:
    run("--iters", "1")
    run(*EXPORT, "--how_many", "2")
    before = times()
    with pytest.raises(UserError, match=r"another texture_resolution.*--out_path.*--overwrite"):
        run("--export_meshes", "--pseudogt_resolution", "32")
    assert times() == before
    run("--export_meshes", "--pseudogt_resolution", "32", "--overwrite")
    with Image.open(OUT / "1" / "mesh.png") as picture:
        assert picture.size == (32, 32)


@pytest.mark.usefixtures("toy")
def test_an_interrupted_export_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    run("--iters", "1")

    def interrupt(path: Path, *_: object) -> None:
        if path.parent.name == "2":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mesh_folder, "save_glb", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(*EXPORT)
    # The mesh that was being written does not look complete
    assert (OUT / "1" / "camera.json").exists()
    assert not (OUT / "2" / "camera.json").exists()
    first = (OUT / "1" / "mesh.obj").stat().st_mtime_ns
    run(*EXPORT, "--out_path", "whole")
    (OUT / "1" / "mesh.glb").write_bytes(Path("whole/1/mesh.glb").read_bytes())
    run(*EXPORT)
    assert (OUT / "1" / "mesh.obj").stat().st_mtime_ns == first
    for name in ("1", "2", "3", "4"):
        assert (OUT / name / "mesh.glb").read_bytes() == Path(f"whole/{name}/mesh.glb").read_bytes()


@pytest.mark.usefixtures("toy")
def test_a_network_without_textures_is_refused() -> None:
    run("--iters", "1", "--prediction_type", "semantics")
    with pytest.raises(UserError, match="need --prediction_type texture or both"):
        run(*EXPORT)
    assert not OUT.exists()


def test_photographs_are_drawn_so_that_more_include_fewer() -> None:
    few, more = (collection_meshes.choose_rows(50, count, 3) for count in (5, 20))
    assert len(few) == 5
    assert set(few) < set(more)
    assert collection_meshes.choose_rows(4, None, 3) == [0, 1, 2, 3]
    assert collection_meshes.choose_rows(4, 9, 3) == [0, 1, 2, 3]


def test_folders_are_named_after_photographs() -> None:
    assert collection_meshes.stem_of("datasets/x/images/a/0001.jpg") == "a/0001"
    assert collection_meshes.stem_of("n01234/images.png") == "n01234/images"
    assert collection_meshes.distinct(["a", "b", "a", "a"]) == ["a", "b", "a_2", "a_3"]


@pytest.mark.parametrize("option", ["--how_many 3", "--out_path x", "--overwrite"])
def test_options_of_the_export_need_it(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_reconstruction.main(["--name", "r_singletpl", "--dataset", "toy", *option.split()])
    assert "needs --export_meshes" in capsys.readouterr().err
