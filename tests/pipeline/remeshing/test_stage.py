"""Stage 0 on small shapes: geometry, robustness to messy meshes, files and messages."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import remesh
from data.cache import template_files
from data.cache.template_files import load_templates
from geometry import mesh_files, operators, quaternion
from geometry.distances import chamfer_distance
from geometry.mesh_files import Mesh, load_mesh
from geometry.sphere_mesh import SphereMesh
from pipeline.remeshing import paper_schedule, sphere_fitting
from pipeline.remeshing import picture as picture_of_fits
from pipeline.remeshing.sphere_fitting import Phase
from pipeline.remeshing.stage import SCHEDULES, Config, find_templates, normalize, silhouettes
from pipeline.remeshing.stage import remesh as remesh_meshes
from utils.cli import UserError


def ellipsoid(radii: tuple[float, float, float] = (0.3, 1.0, 0.5), shift: float = 0.0) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=2)
    vertices = np.asarray(sphere.vertices) * radii + (0, shift, 0)
    return Mesh(vertices, np.asarray(sphere.faces, np.int64))


def config(**changes: object) -> Config:
    options = {
        "mode": "singletpl",
        "classes": ("bird",),
        "templates": Path("mesh_templates/classes"),
        "from_points": None,
        "normals": None,
        "poisson_depth": 5,
        "up": "z",
        "front": "-y",
        "image_resolution": 64,
        "schedule": "fast",
        "step_factor": 1.0,
        "min_iou": 0.8,
        "seed": 1,
    }
    return Config(**(options | changes))  # type: ignore[arg-type]


def fit(*meshes: Mesh, aligned: bool = True, **changes: object):
    return remesh_meshes(meshes, aligned, config(**changes), torch.device("cpu"))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    phases = (Phase(20.0, 15, 1.0, 1, 0.1), Phase(3.0, 25, 5.0, 1, 0.1))
    monkeypatch.setattr(sphere_fitting, "PHASES", phases)
    monkeypatch.setattr("pipeline.remeshing.stage.NUM_VIEWS", 12)
    monkeypatch.setattr("pipeline.remeshing.stage.NUM_TEST_VIEWS", 4)


def test_ellipsoid_is_found_and_keeps_symmetry_size_and_orientation():
    result = fit(ellipsoid())
    template, vertices = SphereMesh(), result.vertices
    assert result.iou.item() > 0.93
    assert vertices.abs().max() == pytest.approx(1.0)
    torch.testing.assert_close(template.symmetrize(vertices), vertices, atol=1e-6, rtol=0)
    assert operators.volume(vertices[0], template.faces) > 0.3
    north, south = vertices[0, template.poles]
    assert north[1] > 0.9
    assert south[1] < -0.9
    top = vertices[0, template.grid[15, 8]]
    assert top[2] > 0.35


def test_same_seed_gives_the_same_mesh():
    first, second = (fit(ellipsoid(), step_factor=0.1).vertices for _ in range(2))
    assert torch.equal(first, second)


def test_open_shell_with_wrong_windings_in_pieces_is_filled():
    mesh = ellipsoid()
    keep = mesh.vertices[mesh.faces].mean(1)[:, 2] < 0.35  # no lid
    faces = mesh.faces[keep]
    faces[::2] = faces[::2, ::-1]
    result = fit(Mesh(mesh.vertices, faces))
    assert result.iou.item() > 0.9


def test_silhouettes_show_both_sides_and_fill_holes():
    views = quaternion.initial_views()[2:3]  # level, looking along x
    ring = trimesh.creation.torus(0.6, 0.2)
    ring.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 1, 0]))
    mask = silhouettes(Mesh(np.asarray(ring.vertices), np.asarray(ring.faces)), views, 64)
    assert mask[0, 32, 32] == 1
    solid = ellipsoid((0.2, 1.0, 1.0))
    inside_out = Mesh(solid.vertices, solid.faces[:, ::-1].copy())
    torch.testing.assert_close(silhouettes(inside_out, views, 64), silhouettes(solid, views, 64))


def test_what_shines_through_a_closed_solid_stays_open():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    across, thick, along = np.asarray(sphere.vertices).T
    angle, radius = np.radians(200) * along, 0.8 + 0.15 * thick
    x = 0.3 * along + 0.15 * across  # one turn of a screw, its ends overlap
    vertices = np.stack([x, radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    faces = np.asarray(sphere.faces, np.int64)
    view = quaternion.initial_views()[2:3]  # level, looking along x
    assert silhouettes(Mesh(vertices, faces), view, 64)[0, 32, 32] == 0
    assert silhouettes(Mesh(vertices, faces[1:]), view, 64)[0, 32, 32] == 1  # an open shell


def test_aligned_templates_share_one_box():
    small, far = ellipsoid((0.1, 0.2, 0.1)), ellipsoid((0.1, 0.2, 0.1), shift=2.0)
    first, second = normalize([small, far], aligned=True)
    assert first.vertices[:, 1].min() == pytest.approx(-1)
    assert second.vertices[:, 1].max() == pytest.approx(1)
    for mesh in normalize([small, far], aligned=False):
        assert np.abs(mesh.vertices).max() == pytest.approx(1)
        assert mesh.vertices[:, 1].max() == pytest.approx(1)


def test_mirror_plane_stays_unless_the_mesh_lies_beside_it():
    mesh = ellipsoid()
    nudged = Mesh(mesh.vertices + np.array([0.02, 0, 0]), mesh.faces)
    beside = Mesh(mesh.vertices + np.array([2.0, 0, 0]), mesh.faces)
    assert normalize([nudged], False)[0].vertices[:, 0].max() == pytest.approx(0.32)
    assert normalize([beside], False)[0].vertices[:, 0].max() == pytest.approx(0.3)


@pytest.mark.parametrize("aligned", [True, False])
def test_published_schedule_improves_on_the_sphere(aligned, monkeypatch):
    monkeypatch.setattr("pipeline.remeshing.stage.NUM_VIEWS", 4)
    monkeypatch.setattr(paper_schedule, "ALIGNMENT_STEPS", 4)
    monkeypatch.setattr(paper_schedule, "WARMUP_STEPS", 4)
    monkeypatch.setattr(paper_schedule, "DECAY", 0.7)
    meshes = (ellipsoid((0.3, 1.0, 0.5)), ellipsoid((0.3, 0.7, 0.5)))
    result = fit(*meshes, aligned=aligned, schedule="reference", mode="multitpl")
    assert result.vertices.shape == (2, 962, 3)
    assert result.vertices.abs().max() == pytest.approx(1.0)
    sphere = SphereMesh()
    for fitted, mesh in zip(result.vertices.double(), meshes, strict=True):
        before, after = (
            chamfer_distance((np.array(vertices), np.array(sphere.faces)), mesh)
            for vertices in (sphere.vertices.double(), fitted)
        )
        assert after < 0.7 * before


def test_command_writes_templates_and_meshes(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "classes"
    folder.mkdir()
    for i, shift in enumerate((0.0, 0.1)):
        mesh = trimesh.Trimesh(*ellipsoid(shift=shift))
        mesh.vertices = np.asarray(mesh.vertices)[:, [0, 2, 1]] * (1, 1, -1)  # y up, front z
        mesh.export(folder / f"bird{i + 1}.ply")
    options = ["--templates", str(folder), "--up", "y", "--front", "z", "--classes", "bird"]
    options += ["--image_resolution", "32", "--step_factor", "0.1", "--gpu_ids", "cpu"]
    with caplog.at_level("INFO"):
        for mode, count in (("singletpl", 1), ("multitpl", 2)):
            remesh.main(["--mode", mode, *options])
            assert load_templates("bird", mode).shape == (count, 962, 3)
            path = f"cache/own_templates/{mode}/bird_templates"
            assert len(load_mesh(f"{path}.obj", up="y", front="z").faces) == count * 1920
            with Image.open(f"{path}.png") as picture:
                assert picture.height == count * (picture_of_fits.SIZE + 2) + 2
    assert "silhouette IoU from unseen views" in caplog.text
    assert "are --up and --front right?" in caplog.text  # after so few steps


def test_templates_are_numbered_without_gaps(tmp_path):
    for name in ("bird1.obj", "bird2.ply", "bird4.obj"):
        (tmp_path / name).touch()
    names = [path.name for path in find_templates(tmp_path, "bird", "multitpl")]
    assert names == ["bird1.obj", "bird2.ply"]
    assert len(find_templates(tmp_path, "bird", "singletpl")) == 1
    (tmp_path / "Bear1.OBJ").touch()
    assert [path.name for path in find_templates(tmp_path, "bear", "multitpl")] == ["Bear1.OBJ"]
    with pytest.raises(UserError, match=r"car1.obj does not exist"):
        find_templates(tmp_path, "car", "singletpl")
    (tmp_path / "dragon1.stl").touch()
    assert [path.name for path in find_templates(tmp_path, "dragon", "multitpl")] == ["dragon1.stl"]
    three_ways = "--templates <folder>.*--template_of horse.*--from_photographs <dataset>$"
    with pytest.raises(UserError, match=three_ways):
        find_templates(remesh.MODELED_TEMPLATES, "dragon", "singletpl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "bird,Dragon"], "'Dragon' is no name of a category"),
        (["--mesh_path", "uvsphere_16rings.obj"], "31rings"),
        (["--up", "z", "--front", "z"], "two different axes"),
        (["--no-symmetric"], "always symmetric"),
    ],
)
def test_mistakes_are_told_before_anything_runs(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        remesh.main(["--mode", "singletpl", *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_options_name_what_the_stage_has():
    assert set(remesh.AXES) == set(mesh_files.AXES)
    for name in SCHEDULES:
        assert remesh.build_parser().parse_args(["--mode", "singletpl", "--schedule", name])


COMMON = [
    "--mode",
    "singletpl",
    "--classes",
    "bird",
    "--gpu_ids",
    "cpu",
    "--image_resolution",
    "32",
]


@pytest.fixture
def own_bird(tmp_path, monkeypatch):
    """Returns a function that runs the command on a mesh of one's own in an empty directory."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()

    def remesh_own(mesh: Mesh, *options: str) -> None:
        trimesh.Trimesh(*mesh).export("mine/bird1.ply")
        remesh.main([*COMMON, "--templates", "mine", *options])

    return remesh_own


def shipped() -> torch.Tensor:
    """Writes shipped templates: an ellipsoid, higher in front."""
    vertices = SphereMesh().vertices * torch.tensor([0.3, 1.0, 0.5])
    vertices[:, 2] *= 1 - 0.5 * vertices[:, 1]
    template_files.save_templates("bird", "singletpl", vertices[None])
    return vertices


def as_mesh(vertices: torch.Tensor) -> Mesh:
    return Mesh(vertices.double().numpy(), SphereMesh().faces.numpy())


def test_a_poor_fit_does_not_take_the_place_of_present_templates(own_bird):
    vertices = shipped()
    with pytest.raises(UserError, match=r"Likely cause: .*stays as it was. --min_iou 0") as error:
        own_bird(as_mesh(vertices), "--step_factor", "0.05")
    assert "bird_rejected.png" in str(error.value)
    assert torch.equal(load_templates("bird", "singletpl")[0], vertices)
    assert {p.name for p in Path("cache/own_templates/singletpl").iterdir()} == {
        "bird_rejected.png",
        "bird_rejected.obj",
    }
    own_bird(as_mesh(vertices), "--step_factor", "0.05", "--min_iou", "0")
    assert not torch.equal(load_templates("bird", "singletpl")[0], vertices)
    names = {path.name for path in Path("cache/own_templates/singletpl").iterdir()}
    assert names == {f"bird_templates.{suffix}" for suffix in ("pth", "obj", "png")}


def test_own_templates_leave_the_shipped_ones_alone_and_are_used_until_deleted(own_bird, caplog):
    vertices = shipped()
    own_bird(as_mesh(vertices * torch.tensor([1.5, 1.0, 1.0])))
    own = load_templates("bird", "singletpl")
    assert own[0, :, 0].max() > 0.4
    assert "your own, cache/own_templates/singletpl/bird_templates.pth" in caplog.text
    assert template_files.templates_path("bird", "singletpl").parts[1] == "own_templates"
    template_files.templates_path("bird", "singletpl").unlink()
    assert torch.equal(load_templates("bird", "singletpl")[0], vertices)


def test_a_fit_that_diverges_is_never_saved(own_bird, monkeypatch):
    vertices = shipped()
    nothing = torch.full((1, 962, 3), torch.nan)
    monkeypatch.setitem(SCHEDULES, "fast", lambda task: nothing)
    with pytest.raises(UserError, match=r"diverged.*stays as it was\.$"):
        own_bird(as_mesh(vertices), "--min_iou", "0")
    assert torch.equal(load_templates("bird", "singletpl")[0], vertices)
    assert not Path("cache/own_templates").exists()


def test_other_axes_are_named_before_anything_is_fitted(own_bird, caplog):
    vertices = shipped()
    y_up = as_mesh(mesh_files.to_y_up(vertices))
    with pytest.raises(UserError, match=r"--up=z --front=-y.*--up=y --front=z \(1\.00\)"):
        own_bird(y_up)
    assert not Path("cache/own_templates").exists()
    own_bird(y_up, "--up", "y", "--front", "z", "--step_factor", "0.3", "--min_iou", "0.5")
    assert "resembles" not in caplog.text
    own_bird(y_up, "--up", "z", "--front=-y", "--step_factor", "0.1", "--min_iou", "0")
    assert "resembles the bird templates at hand less" in caplog.text
