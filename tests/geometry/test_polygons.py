"""Polygons into triangles: their area and orientation against closed forms."""

from typing import Any

import numpy as np
import pytest

from geometry import polygons, quaternion
from geometry.polygons import triangulate


def areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns the vector areas (F, 3) of triangles."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return np.cross(b - a, c - a) / 2


def one(points: np.ndarray) -> np.ndarray:
    return triangulate(points, np.arange(len(points)), np.array([len(points)]))


def lifted(points: Any) -> np.ndarray:
    return np.pad(np.asarray(points, np.float64), ((0, 0), (0, 1)))


def star(tips: int) -> tuple[np.ndarray, float]:
    """Returns a star with radii 1 and 0.3, and its area."""
    angles = np.pi * np.arange(2 * tips) / tips
    radii = np.where(np.arange(2 * tips) % 2, 0.3, 1.0)
    points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return lifted(points), tips * 0.3 * np.sin(np.pi / tips)


SHAPES = {
    "arrow": (lifted([[0, 0], [2, 0], [2, 2], [1, 0.2], [0, 2]]), 2.2),
    "concave quad": (lifted([[0, 0], [4, 0], [1, 1], [0, 4]]), 4.0),
    "square with points on its sides": (
        lifted([[0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [1, 2], [0, 2]]),
        4.0,
    ),
    "comb": (
        lifted([[0, 0], [6, 0], [6, 3], [5, 3], [5, 1], [3, 1], [3, 3], [2, 3], [2, 1], [0, 1]]),
        10.0,
    ),
    "frame with a slit": (
        lifted([[0, 0], [4, 0], [4, 4], [0, 4], [0, 0], [1, 1], [1, 3], [3, 3], [3, 1], [1, 1]]),
        12.0,
    ),
    "star": star(7),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("turned_over", [False, True])
def test_triangles_cover_a_concave_polygon_once(name, first, turned_over, random_rotations):
    points, area = SHAPES[name]
    points = np.roll(points, first, axis=0)[:: -1 if turned_over else 1]
    rotation = random_rotations[first]
    points = quaternion.rotate(rotation, rotation.new_tensor(points.copy())).numpy()
    faces = one(points)
    assert faces.shape == (len(points) - 2, 3)
    parts = areas(points, faces)
    np.testing.assert_allclose(np.linalg.norm(parts, axis=1).sum(), area)
    np.testing.assert_allclose(np.linalg.norm(parts.sum(0)), area)  # all look to the same side


def test_random_simple_polygons_keep_their_area():
    rng = np.random.default_rng(0)
    for size in range(4, 40):
        angles = np.sort(rng.uniform(0, 2 * np.pi, size))
        radii = rng.uniform(0.1, 1, size)
        if np.diff(angles, append=angles[0] + 2 * np.pi).max() > 3:
            continue  # the center would lie outside
        points = lifted(radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))
        x, y, _ = points.T
        area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
        np.testing.assert_allclose(np.linalg.norm(areas(points, one(points)), axis=1).sum(), area)


def test_polygons_keep_their_order_and_lines_are_left_out():
    vertices = lifted([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 2]])
    corners = np.array([0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 4, 3])
    faces = triangulate(vertices, corners, np.array([4, 2, 3, 5]))
    expected = [[0, 1, 2], [0, 2, 3], [2, 3, 4], [0, 1, 2], [0, 2, 4], [0, 4, 3]]
    assert faces.tolist() == expected


def test_convex_polygons_of_any_size_are_fans_and_concave_ones_have_a_limit(monkeypatch):
    monkeypatch.setattr(polygons, "MAX_CONCAVE", 12)
    angles = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    disc = lifted(np.stack([np.cos(angles), np.sin(angles)], 1))
    assert one(disc)[:, 0].max() == 0
    with pytest.raises(ValueError, match="concave polygon has 14 corners"):
        one(star(7)[0])
    monkeypatch.setattr(polygons, "MAX_CONCAVE_CORNERS", 29)
    points, corners = star(5)[0], np.arange(10)
    assert len(triangulate(points, np.tile(corners, 2), np.array([10, 10]))) == 16
    with pytest.raises(ValueError, match="concave polygons have 30 corners and more, at most 29"):
        triangulate(points, np.tile(corners, 3), np.array([10, 10, 10]))


def test_a_tangled_polygon_ends():
    points = lifted([[0, 0], [2, 2], [2, 0], [0, 2], [1, 3], [1, -1]])
    assert one(points).shape == (4, 3)
    assert one(np.zeros((6, 3))).shape == (4, 3)
