"""Surfaces through points: closed manifolds of the right topology, less than a cell off."""

import resource
import sys

import numpy as np
import pytest
import trimesh

from geometry.points import poisson
from geometry.points.normals import estimate_normals
from geometry.points.poisson import MARGIN, interpolation, largest_component, reconstruct
from tests.geometry.points.clouds import random, sphere, sphere_error, torus, torus_error

DEPTH = 5


def solid(points: np.ndarray, normals: np.ndarray, depth: int = DEPTH) -> trimesh.Trimesh:
    return trimesh.Trimesh(*reconstruct(points, normals, depth), process=False)


def cell(points: np.ndarray, depth: int = DEPTH) -> float:
    return MARGIN * np.ptp(points, axis=0).max() / 2**depth


def check(mesh: trimesh.Trimesh, euler: int) -> None:
    """Checks a closed, oriented manifold: every edge once in each direction."""
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == euler
    assert mesh.volume > 0


@pytest.mark.parametrize("depth", [4, 5, 6])
def test_sphere_is_a_closed_surface_without_handles_within_a_cell(depth):
    points, normals = sphere(3000)
    mesh = solid(points, normals, depth)
    check(mesh, euler=2)
    assert sphere_error(mesh.vertices).max() < 0.3 * cell(points, depth)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)


@pytest.mark.parametrize("depth", [5, 6])
def test_torus_keeps_its_hole(depth):
    points, normals = torus(6000)
    mesh = solid(points, normals, depth)
    check(mesh, euler=0)
    assert torus_error(mesh.vertices).max() < 0.3 * cell(points, depth)
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.4**2, rel=0.01)


def test_estimated_normals_do_as_well():
    points, _ = torus(3000)
    mesh = solid(points, estimate_normals(points))
    check(mesh, euler=0)
    assert torus_error(mesh.vertices).max() < 0.5 * cell(points)


def test_error_falls_with_the_depth():
    points, normals = torus(20_000)
    errors = [torus_error(solid(points, normals, depth).vertices).mean() for depth in (4, 5, 6)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_normals_that_all_look_inward_give_the_same_surface():
    points, normals = sphere(1000)
    outward, inward = solid(points, normals), solid(points, -normals)
    check(inward, euler=2)
    np.testing.assert_allclose(inward.vertices, outward.vertices, atol=1e-6)
    np.testing.assert_array_equal(inward.faces, outward.faces)


def test_noise_is_averaged():
    points, normals = sphere(5000)
    noisy = points + 0.03 * random(1).normal(size=points.shape)
    mesh = solid(noisy, normals)
    assert sphere_error(mesh.vertices).mean() < 0.5 * sphere_error(noisy).mean()


def test_hole_in_the_points_is_closed():
    points, normals = sphere(4000)
    kept = points[:, 2] < 0.8  # without its cap, 10 % of the area
    mesh = solid(points[kept], normals[kept])
    check(mesh, euler=2)
    assert sphere_error(mesh.vertices).max() < 0.25


def test_uneven_density_does_not_bend_the_surface():
    points, normals = sphere(20_000)
    kept = random(2).random(len(points)) < np.where(points[:, 0] > 0, 1.0, 0.05)
    mesh = solid(points[kept], normals[kept])
    check(mesh, euler=2)
    assert sphere_error(mesh.vertices).max() < cell(points)


def test_few_points_on_a_fine_grid_make_no_bubbles():
    points, normals = sphere(200)
    mesh = solid(points, normals, 6)
    check(mesh, euler=2)
    assert sphere_error(mesh.vertices).max() < 0.1


def test_size_and_place_do_not_matter():
    points, normals = torus(2000)
    mesh, moved = solid(points, normals), solid(1000 * points + [5, 6, 7e3], normals)
    np.testing.assert_allclose(moved.vertices, 1000 * mesh.vertices + [5, 6, 7e3], atol=0.5)


def test_largest_of_several_bodies_is_kept():
    large, small = trimesh.creation.icosphere(1), trimesh.creation.icosphere(1, radius=0.3)
    vertices = np.concatenate([np.add(small.vertices, [3, 0, 0]), large.vertices])
    faces = np.concatenate([small.faces, large.faces + len(small.vertices)])
    vertices, faces = largest_component(vertices, faces)
    assert trimesh.Trimesh(vertices, faces).volume == pytest.approx(large.volume)
    assert len(vertices) == len(large.vertices)


def test_points_that_enclose_nothing_are_refused():
    points, normals = sphere(100)
    with pytest.raises(ValueError, match="enclose nothing"):
        reconstruct(points, 0 * normals, 4)


def test_interpolation_is_exact_for_linear_functions_and_splats_keep_their_mass():
    size = 8
    positions = 1 + 5 * random().random((40, 3))
    x, y, z = np.indices((size,) * 3)
    matrix = interpolation(positions, size)
    expected = positions @ [1, 2, -3] + 4
    np.testing.assert_allclose(matrix @ (x + 2 * y - 3 * z + 4.0).ravel(), expected, atol=1e-5)
    assert matrix.T.dot(np.ones(40)).sum() == pytest.approx(40)


def test_areas_of_points_add_up_to_that_of_the_sphere():
    areas = poisson.point_areas(sphere(5000)[0])
    assert areas.sum() == pytest.approx(4 * np.pi, rel=0.1)


def test_conjugate_gradients_solve_what_a_dense_matrix_does(monkeypatch):
    monkeypatch.setattr(poisson, "TOLERANCE", 1e-6)
    size, generator = 8, random()
    values = interpolation(7 * generator.random((60, 3)), size).toarray()
    # The negative Laplacian from its definition: six neighbors, around the corner too
    ones = np.eye(size**3).reshape(size**3, size, size, size)
    neighbors = sum(np.roll(ones, step, axis) for axis in (1, 2, 3) for step in (-1, 1))
    matrix = (6 * ones - neighbors).reshape(size**3, -1) + values.T @ values
    source = generator.normal(size=(size,) * 3)
    found = poisson.conjugate_gradients(
        source.astype(np.float32),
        lambda x: (values.T @ (values @ x.ravel())).reshape(x.shape),
        shift=60 / size**3,
    )
    direct = np.linalg.solve(matrix, source.ravel())
    np.testing.assert_allclose(found.ravel(), direct, atol=1e-3 * np.abs(direct).max())


@pytest.mark.slow
def test_hundred_thousand_points_take_bounded_memory():
    points, _ = torus(100_000)
    mesh = solid(points, estimate_normals(points), 7)
    check(mesh, euler=0)
    assert torus_error(mesh.vertices).max() < cell(points, 7)
    unit = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < 2.5e9
