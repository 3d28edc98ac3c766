"""What is wrong with a mesh, on an animal of ellipsoids and cylinders that is spoiled one way at a time."""

import numpy as np
import pytest
import trimesh
from trimesh.creation import cylinder, icosphere
from trimesh.transformations import rotation_matrix

from geometry.mesh_files import Mesh, object_axes
from pipeline.remeshing.diagnosis import better_axes, cause_of_poor_fit, symmetry
from pipeline.remeshing.targets import mirror_plane


def animal(stride: float = 0.0, turn: float = 0.0) -> Mesh:
    """Makes a body, four legs that stride by an angle, and a head turned by another (radians)."""
    body = icosphere(subdivisions=3)
    body.apply_scale([0.28, 0.7, 0.3])
    parts = [body]
    for x, y in ((-0.18, -0.5), (0.18, -0.5), (-0.18, 0.5), (0.18, 0.5)):
        leg = cylinder(0.08, 0.8, sections=12)
        leg.apply_transform(rotation_matrix(np.sign(x) * stride, [1, 0, 0], [0, 0, 0.4]))
        leg.apply_translation([x, y, -0.5])
        parts.append(leg)
    head = icosphere(subdivisions=2)
    head.apply_scale([0.16, 0.35, 0.16])
    head.apply_translation([0, -0.3, 0])
    head.apply_transform(rotation_matrix(turn, [0, 0, 1]))
    head.apply_translation([0, -0.65, 0.35])
    mesh = trimesh.util.concatenate([*parts, head])
    assert isinstance(mesh, trimesh.Trimesh)
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64))


def test_the_mirror_plane_is_that_of_the_body_not_of_a_turned_head():
    for turn in (0.0, 1.2):
        mesh = animal(turn=turn)
        moved = Mesh(3 * mesh.vertices + [7, 0, 0], mesh.faces)
        low, high = moved.vertices[:, 0].min(), moved.vertices[:, 0].max()
        assert mirror_plane(moved, (low + high) / 2) == pytest.approx(7, abs=0.05)
    assert low + high > 14.5  # the box is not in the middle


def test_symmetry_is_that_of_the_mirror_plane_wherever_the_mesh_lies():
    mesh = animal()
    far = Mesh(100 * mesh.vertices + [500, 0, 0], mesh.faces)
    assert symmetry(mesh) == pytest.approx(1, abs=0.01)
    assert symmetry(far) == pytest.approx(1, abs=0.01)
    assert symmetry(mesh, axis=1) < 0.9
    assert symmetry(animal(turn=1.2)) < 0.95


@pytest.mark.parametrize(("up", "front"), [("z", "-y"), ("y", "z"), ("-x", "z"), ("z", "y")])
def test_axes_are_found_by_the_known_shape(up, front):
    true = animal()
    in_file = Mesh(true.vertices @ object_axes(up, front), true.faces)
    found = better_axes(in_file, "z", "-y", [Mesh(2 * true.vertices, true.faces)])
    if (up, front) == ("z", "-y"):
        assert found is None
        return
    now, best = found  # type: ignore[misc]
    assert (now.up, now.front) == ("z", "-y")
    assert (best.up, best.front) == (up, front)
    assert best.iou == pytest.approx(1, abs=0.02)
    # Read with the right axes, it has them
    again = Mesh(in_file.vertices @ object_axes(up, front).T, true.faces)
    assert better_axes(again, up, front, [true]) is None


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        (animal(), "thin or separate parts"),
        (animal(stride=0.5), "left and right differ mostly below, as striding legs do"),
        (animal(turn=1.2), "left and right differ mostly in front, as a turned head does"),
        (Mesh(animal().vertices[:, [1, 2, 0]], animal().faces), "mirror plane is across z"),
    ],
)
def test_the_cause_of_a_poor_fit_is_told(mesh, words):
    assert words in cause_of_poor_fit(mesh, iou=0.79)
