"""Normals from neighborhoods: direction against closed forms, and signs that agree and look outward."""

import numpy as np
import pytest

from geometry.points.normals import disagreement, estimate_normals, orient
from tests.geometry.points.clouds import random, sphere, torus


def cosines(points: np.ndarray, true: np.ndarray) -> np.ndarray:
    return (estimate_normals(points) * true).sum(1)


@pytest.mark.parametrize("surface", [sphere, torus])
def test_normals_are_those_of_the_surface_on_its_outer_side(surface):
    found = cosines(*surface(3000))
    assert (found > 0).all()
    assert np.degrees(np.arccos(found.clip(-1, 1))).mean() < 3


def test_normals_have_unit_length():
    lengths = np.linalg.norm(estimate_normals(sphere(300)[0]), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-9)


def test_several_bodies_all_look_outward():
    points, true = sphere(1500)
    centers = np.array([[-4.0, 0, 0], [0.0, 0, 0], [3.0, 1, 0]])
    both = np.concatenate([points + center for center in centers])
    assert (cosines(both, np.tile(true, (3, 1))) > 0).all()


def test_two_sides_of_a_thin_plate_look_apart():
    # Rows of points above and below, closer to each other than twice the distance within a row
    x, y = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 60))
    flat = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1)
    flat[:, :2] += random().normal(size=(3600, 2)) * 0.005
    thickness = np.sqrt((1 - np.abs(flat[:, 0])).clip(0) * 0.05)[:, None] + 0.06
    plate = np.concatenate([flat + thickness * [0, 0, 1], flat - thickness * [0, 0, 1]])
    up = estimate_normals(plate)[:, 2]
    assert (up[:3600] > 0).mean() > 0.99
    assert (up[3600:] < 0).mean() > 0.99


def test_noise_of_a_tenth_leaves_nearly_all_signs_right():
    points, true = sphere(4000)
    noisy = points + 0.02 * random(1).normal(size=points.shape)
    assert (cosines(noisy, true) > 0).mean() > 0.99


def test_result_does_not_depend_on_the_signs_given():
    points, true = torus(800)
    flips = random().choice([-1.0, 1.0], size=(len(points), 1))
    neighbors = np.argsort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 1:9]
    np.testing.assert_array_equal(
        orient(points, true, neighbors), orient(points, true * flips, neighbors)
    )


def test_result_does_not_depend_on_place_size_and_rotation():
    points, _ = torus(500)
    rotation = np.linalg.qr(random().normal(size=(3, 3)))[0]
    moved = 7 * points @ rotation.T + [3, -2, 9]
    expected = estimate_normals(points) @ rotation.T
    np.testing.assert_allclose(estimate_normals(moved), expected, atol=1e-6)


def test_disagreement_counts_the_normals_opposite_to_their_nearest():
    points, normals = sphere(2000)
    assert disagreement(points, normals) == 0
    normals[random().random(2000) < 0.5] *= -1
    assert disagreement(points, normals) == pytest.approx(0.5, abs=0.05)
