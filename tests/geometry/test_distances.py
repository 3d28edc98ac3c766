"""Distances of shapes against closed forms."""

import numpy as np
import pytest
import torch
import trimesh

from geometry.distances import SURFACE_POINTS, chamfer_distance, hard_iou, iou, surface_points


def box(*extents: float) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.box(extents)
    return np.array(mesh.vertices), np.array(mesh.faces)


def test_iou_of_two_rectangles_is_overlap_over_union():
    alpha, mask = torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)
    alpha[:, :4, :4] = 0.51  # 16 pixels
    alpha[:, 6:, 6:] = 0.5  # not above the threshold
    mask[0, 2:6, 2:6] = 1  # 16 pixels, of which 4 are shared
    assert hard_iou(alpha, mask).tolist() == pytest.approx([4 / 28, 0])
    assert hard_iou(mask[1:], mask[1:]).tolist() == [0]  # nothing on either side


def test_iou_of_soft_images_sums_the_smaller_over_the_larger_values():
    first, second = torch.full((1, 4, 4), 0.25), torch.full((1, 4, 4), 0.75)
    second[:, :2] = 0
    assert iou(first, second).item() == pytest.approx(8 * 0.25 / (8 * 0.75 + 8 * 0.25))


def test_surface_points_lie_on_the_surface_in_proportion_to_area():
    points = surface_points(*box(1, 1, 4))
    outside = np.abs(points) / (0.5, 0.5, 2)
    np.testing.assert_allclose(outside.max(axis=1), 1)
    caps = (outside[:, 2] > 1 - 1e-9).mean()  # 2 of 18 units of area
    assert caps == pytest.approx(1 / 9, abs=4 * (1 / 9 * 8 / 9 / SURFACE_POINTS) ** 0.5)
    assert np.array_equal(points, surface_points(*box(1, 1, 4)))


def test_chamfer_distance_of_plates_of_the_same_diagonal():
    """Two thin plates that cross at a right angle, each 1 wide: the mean distance is 1/4."""
    along_y, along_z = box(1e-9, 1, 1), box(1, 1e-9, 1)
    expected = 100 * 0.25 / 2**0.5  # in units of the diagonal
    assert chamfer_distance(along_y, along_z) == pytest.approx(expected, rel=0.05)


def test_chamfer_distance_ignores_size_place_and_unused_vertices():
    vertices, faces = box(1, 2, 3)
    moved = np.concatenate([5 * vertices + 7, [[99.0, 0, 0]]])
    assert chamfer_distance((vertices, faces), (moved, faces)) == pytest.approx(0, abs=1e-9)
