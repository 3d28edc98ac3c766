"""Templates from points: meshes sampled and rebuilt, and the command from a file to the template."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

import remesh
from data.cache.template_files import load_templates, written_path
from geometry.distances import chamfer_distance
from geometry.mesh_files import load_mesh
from geometry.points.normals import estimate_normals
from geometry.points.poisson import reconstruct
from pipeline.remeshing import sphere_fitting
from pipeline.remeshing.points import MOST_FACES, surface_from_points
from pipeline.remeshing.sphere_fitting import Phase
from tests.conftest import REPOSITORY
from tests.geometry.points.clouds import random, sphere
from utils.cli import UserError

MESHES = REPOSITORY.parent / "shared/data/meshes"
# Closed surfaces: what a scanner sees of an object
CLOSED = ["bird/seagull", "cow/spot_textured", "elephant/libigl_elephant", "horse/horse_quad", "bus/bus_textured"]  # fmt: skip


def save_cloud(path: Path, points: np.ndarray, normals: np.ndarray | None = None) -> str:
    if normals is None:
        np.savez(path, points=points)
    else:
        np.savez(path, points=points, normals=normals)
    return str(path)


def run(*arguments: str) -> None:
    remesh.main(["--mode", "singletpl", "--classes", "bird", "--gpu_ids", "cpu", *arguments])


@pytest.fixture
def _short(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    phases = (Phase(20.0, 15, 1.0, 1, 0.1), Phase(3.0, 25, 5.0, 1, 0.1))
    monkeypatch.setattr(sphere_fitting, "PHASES", phases)
    monkeypatch.setattr("pipeline.remeshing.stage.NUM_VIEWS", 12)
    monkeypatch.setattr("pipeline.remeshing.stage.NUM_TEST_VIEWS", 4)


@pytest.mark.usefixtures("_short")
def test_command_makes_a_template_of_the_common_topology(tmp_path, caplog):
    points = sphere(1500)[0] * [0.4, 1.0, 0.5]
    path = save_cloud(tmp_path / "scan.npz", points)
    options = ("--image_resolution", "64", "--poisson_depth", "5")
    with caplog.at_level("INFO"):
        run("--from_points", path, *options)
    template = load_templates("bird", "singletpl")
    assert template.shape == (1, 962, 3)
    np.testing.assert_allclose(template[0].abs().amax(0).numpy(), [0.4, 1, 0.5], atol=0.05)
    assert "surface through 1500 points, normals estimated" in caplog.text
    # The surface is there to be looked at, and lies where the points lie
    folder = written_path("bird", "singletpl", own=True).parent
    surface = load_mesh(folder / "bird_surface.obj", up="y", front="z")
    assert np.ptp(surface.vertices, axis=0) == pytest.approx([0.8, 2, 1], abs=0.1)
    assert {p.name for p in folder.iterdir()} == {"bird_surface.obj", "bird_templates.obj", "bird_templates.pth", "bird_templates.png"}  # fmt: skip


MISTAKES = {
    "one source": (["--from_points", "a.ply", "--templates", "meshes"], "one source"),
    "photographs": (["--from_points", "a.ply", "--from_photographs", "x"], "one source"),
    "mode": (["--from_points", "a.ply", "--mode", "multitpl"], "write --mode singletpl"),
    "classes": (["--from_points", "a.ply", "--classes", "bird,car"], "one category"),
    "depth": (["--from_points", "a.ply", "--poisson_depth", "9"], "expected 4 to 8, got 9"),
    "normals": (["--normals", "file"], "--from_points"),
    "depth alone": (["--poisson_depth", "6"], "--from_points"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_options_are_one_line(name, capsys):
    arguments, message = MISTAKES[name]
    with pytest.raises(SystemExit):
        run(*arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_normals_are_not_made_up_when_asked_for(tmp_path):
    path = Path(save_cloud(tmp_path / "a.npz", sphere(100)[0]))
    with pytest.raises(UserError, match="it has no normals"):
        surface_from_points(path, "z", "-y", "file", 4)


def test_flipped_normals_are_questioned_and_can_be_estimated(tmp_path, caplog):
    points, normals = sphere(2000)
    normals[random().random(2000) < 0.3] *= -1
    path = Path(save_cloud(tmp_path / "a.npz", points, normals))
    surface_from_points(path, "z", "-y", None, 4)
    assert "Better: --normals estimate" in caplog.text
    caplog.clear()
    mesh = surface_from_points(path, "z", "-y", "estimate", 4)
    assert "Better" not in caplog.text
    assert trimesh.Trimesh(*mesh).volume == pytest.approx(4 / 3 * np.pi, rel=0.03)


def test_surface_is_simplified_to_what_silhouettes_show(tmp_path):
    path = Path(save_cloud(tmp_path / "a.npz", *sphere(5000)))
    mesh = surface_from_points(path, "z", "-y", None, 6)
    assert len(mesh.faces) <= MOST_FACES
    assert trimesh.Trimesh(*mesh, process=False).is_watertight


@pytest.mark.slow
@pytest.mark.skipif(not MESHES.exists(), reason=f"{MESHES} is absent")
@pytest.mark.parametrize("name", CLOSED)
def test_sampled_meshes_are_rebuilt_within_one_percent(name):
    path = next(p for p in sorted((MESHES / name).iterdir()) if p.suffix in (".obj", ".ply"))
    mesh = load_mesh(path)
    points = np.unique(trimesh.sample.sample_surface(trimesh.Trimesh(*mesh), 30_000, seed=0)[0], axis=0)  # fmt: skip
    rebuilt = reconstruct(points, estimate_normals(points), 7)
    assert trimesh.Trimesh(*rebuilt, process=False).is_watertight
    assert chamfer_distance(rebuilt, mesh) <= 1.0
