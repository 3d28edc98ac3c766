"""Tests of the rotation between two frames, and of distances between clouds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from geometry import quaternion
from pipeline.reconstruction.points.alignment import accuracy, chamfer, common_rotation, medoid


def random_rotations(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return quaternion.normalize(torch.randn(count, 4, generator=generator).double())


def slightly_turned(rotation: Tensor, degrees: float) -> Tensor:
    axis = random_rotations(len(rotation), 5)[:, 1:]
    turn = quaternion.from_axis_angle(axis, torch.full((len(rotation),), degrees).double())
    return quaternion.multiply(turn, rotation)


def test_a_common_rotation_is_found_exactly():
    true, common = random_rotations(20), random_rotations(1, 9)[0]
    estimated = quaternion.multiply(true, common)
    found = common_rotation(estimated, true)
    assert quaternion.angle_between(found, common) < 1e-4
    assert accuracy(estimated, true, found) == (1.0, pytest.approx(0, abs=1e-4))


def test_wrong_estimates_do_not_move_it():
    true, common = random_rotations(40), random_rotations(1, 9)[0]
    estimated = slightly_turned(quaternion.multiply(true, common), 10.0)
    estimated[:12] = random_rotations(12, 3)
    estimated[20:] = -estimated[20:]  # the same rotations
    found = common_rotation(estimated, true)
    assert quaternion.angle_between(found, common) < 8
    assert accuracy(estimated, true, found).share == pytest.approx(28 / 40, abs=0.05)


def test_between_upright_frames_only_turns_about_the_vertical_count():
    axis = torch.tensor([0.0, 0.0, 1.0]).double()
    turn = quaternion.from_axis_angle(axis, torch.tensor(70.0).double())
    true = random_rotations(30)
    tilted = slightly_turned(turn[None], 8.0)[0]
    found = common_rotation(quaternion.multiply(true, tilted), true, upright=True)
    assert found[1] == found[2] == 0
    assert quaternion.angle_between(found, turn) < 8


def test_the_angle_of_all_is_the_median():
    true = random_rotations(9)
    estimated = slightly_turned(true, 20.0)
    assert accuracy(estimated, true, torch.tensor([1.0, 0, 0, 0])).median == pytest.approx(20)


def test_chamfer_distance_of_shifted_grids_is_the_shift():
    grid = np.stack(np.meshgrid(*[np.arange(5) * 0.2] * 3), -1).reshape(-1, 3)
    assert chamfer(grid, grid) == 0
    assert chamfer(grid, grid + np.array([0.03, 0, 0])) == pytest.approx(3)
    # From one side only: a point more at a distance of 1
    assert chamfer(np.zeros((1, 3)), np.array([[0.0, 0, 0], [1.0, 0, 0]])) == pytest.approx(25)


def test_the_medoid_is_the_one_in_the_middle():
    cloud = np.random.default_rng(0).random((50, 3))
    assert medoid([cloud + shift for shift in (0.0, 0.5, 0.1, -0.3, 0.15)]) == 2
