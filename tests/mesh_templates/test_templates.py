"""Tests of the committed templates and of the models that they were built from."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import KDTree

from data.definitions import CATEGORIES, PART_NAMES
from geometry.uv_sphere import uv_sphere
from mesh_templates import build
from mesh_templates.primitives import Shape, ellipsoid, joined, mesh_from_distance, tube
from utils.cli import UserError

NAMES = list(build.SHAPES)
ANIMALS = list(build.animals.SHAPES)


def read(name: str) -> trimesh.Trimesh:
    mesh = trimesh.load(build.FOLDER / "classes" / f"{name}.obj", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def touched(name: str, part: str) -> np.ndarray:
    """The vertices of the committed mesh inside the region of a part."""
    vertices = read(name).vertices
    return vertices[build.SHAPES[name]().parts[part](vertices) < 0]


@pytest.mark.parametrize("name", NAMES)
def test_template_is_one_closed_symmetric_surface(name):
    mesh = read(name)
    assert 1000 <= len(mesh.faces) <= 5000
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert mesh.volume > 0  # outward winding
    mirrored = mesh.vertices * [-1, 1, 1]
    np.testing.assert_allclose(KDTree(mesh.vertices).query(mirrored)[0], 0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_faces_come_in_mirrored_pairs(name):
    mesh = read(name)
    image = np.asarray(KDTree(mesh.vertices).query(mesh.vertices * [-1, 1, 1])[1])
    faces = {tuple(np.roll(face, -face.argmin())) for face in mesh.faces}
    flipped = {tuple(np.roll(face, -face.argmin())) for face in image[mesh.faces][:, ::-1]}
    assert faces == flipped


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_known_and_touch_the_surface(name):
    points = np.asarray(trimesh.sample.sample_surface(read(name), 6000, seed=1)[0])
    parts = build.SHAPES[name]().parts
    assert parts
    for part, region in parts.items():
        assert part in PART_NAMES
        share = (region(points) < 0).mean()
        assert 0 < share < 0.7, f"{part} has {share:.0%} of the surface"


@pytest.mark.parametrize("name", ANIMALS)
def test_animals_look_to_minus_y_and_stand_upright(name):
    vertices = read(name).vertices
    head, tail, leg = (touched(name, part).mean(axis=0) for part in ("head", "tail", "leg"))
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    assert head[1] < -0.4 < 0.4 < tail[1]
    assert leg[2] < (low[2] + high[2]) / 2 - 0.1
    assert head[2] > leg[2] + 0.3


def test_four_legs_stand_apart():
    for name in ("sheep1", "elephant1", "zebra1", "horse1", "cow1", "bear1", "giraffe1"):
        mesh = read(name)
        height = mesh.bounds[0, 2] + 0.1 * np.ptp(mesh.bounds[:, 2])
        section = mesh.section(plane_origin=[0, 0, height], plane_normal=[0, 0, 1])
        assert section is not None
        centers = np.array([loop.mean(axis=0) for loop in section.discrete])
        feet = {(x > 0, y > 0) for x, y, _ in centers if abs(x) > 0.05}
        assert len(feet) == 4, name


def test_every_category_has_numbered_templates():
    for category in CATEGORIES:
        numbers = sorted(
            int(n[len(category) :]) for n in NAMES if n.rstrip("0123456789") == category
        )
        assert numbers == list(range(1, len(numbers) + 1)), category
        assert numbers, category


@pytest.mark.parametrize("name", ["bird1"])
def test_committed_file_is_what_the_script_builds(name, tmp_path, monkeypatch):
    committed = read(name)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.main(["--only", name, "--preview", str(tmp_path)])
    built = trimesh.load(tmp_path / "classes" / f"{name}.obj", process=False)
    assert isinstance(built, trimesh.Trimesh)
    assert abs(len(built.faces) - len(committed.faces)) < 40
    for one, other in ((built, committed), (committed, built)):
        assert KDTree(one.vertices).query(other.vertices)[0].mean() < 0.01
    assert built.volume == pytest.approx(committed.volume, rel=5e-3)
    assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("rings", [16, 31, 63])
def test_sphere_file_has_the_order_of_the_sphere(rings):
    lines = (build.FOLDER / f"uvsphere_{rings}rings.obj").read_text().splitlines()
    rows = [line.split()[1:] for line in lines if line.startswith("v ")]
    faces = [[w.split("/") for w in line.split()[1:]] for line in lines if line.startswith("f ")]
    sphere = uv_sphere(rings)
    np.testing.assert_allclose(np.array(rows, float), sphere.vertices, atol=1e-6)
    np.testing.assert_array_equal(np.array(faces, int)[..., 0] - 1, sphere.faces)
    np.testing.assert_array_equal(np.array(faces, int)[..., 1] - 1, sphere.face_uvs)


def test_unknown_template_is_the_users_mistake():
    with pytest.raises(UserError, match="no template 'unicorn1'"):
        build.main(["--only", "unicorn1"])


def test_mesh_lies_on_the_surface_and_is_exactly_symmetric():
    distance = joined(
        ellipsoid((0, 0, 0), (0.3, 0.6, 0.4)),
        (tube([(0, -0.4, 0.1), (0, -0.8, 0.5)], [0.2, 0.1], width=0.5), 0.05),
    )
    shape = Shape(distance, bounds=((-0.5, -1, -0.5), (0.5, 0.7, 0.8)))
    mesh = mesh_from_distance(shape, target_faces=1500, cells=64)
    assert abs(len(mesh.faces) - 1500) <= 20
    assert np.abs(distance(mesh.vertices)).max() < 0.02
    image = mesh.vertices * [-1, 1, 1]
    assert KDTree(mesh.vertices).query(image)[0].max() == 0


def test_parts_of_the_shape_beyond_the_bounds_are_refused():
    with pytest.raises(AssertionError, match="enlarge the bounds"):
        mesh_from_distance(
            Shape(ellipsoid((0, 0, 0), (1, 1, 1)), ((-1, -1, -1), (1, 1, 0.5))), cells=32
        )
