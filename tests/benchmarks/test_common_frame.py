"""The frame of a learned template is found again from poses, also where many are wrong."""

import pytest
import torch
from torch import Tensor

from benchmarks.common_frame import common_frame
from geometry import quaternion


@pytest.mark.parametrize("depths_reversed", [False, True])
def test_a_common_turn_is_undone_although_a_third_is_wrong(
    random_rotations: Tensor, depths_reversed: bool
):
    true = random_rotations
    turn = quaternion.normalize(torch.tensor([0.3, -0.2, 0.7, 0.5], dtype=torch.float64))
    estimated = quaternion.multiply(true, quaternion.conjugate(turn).expand_as(true))
    if depths_reversed:
        estimated = quaternion.complementary(estimated)
    estimated[::3] = true[torch.arange(0, 64, 3) - 1]
    frame = common_frame(estimated, true)
    assert frame.reversed == depths_reversed
    right = torch.arange(64) % 3 > 0
    degrees = quaternion.angle_between(frame.apply(estimated), true)
    assert degrees[right].max() < 1e-4
    assert degrees[~right].min() > 1


def test_rotations_that_are_right_stay_as_they_are(random_rotations: Tensor):
    frame = common_frame(random_rotations, random_rotations)
    several = random_rotations.reshape(8, 8, 4)
    assert quaternion.angle_between(frame.apply(several), several).max() < 1e-4


def test_noise_is_averaged(random_rotations: Tensor):
    generator = torch.Generator().manual_seed(1)
    axis = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    noise = quaternion.from_axis_angle(axis, torch.full((64,), 8.0, dtype=torch.float64))
    frame = common_frame(quaternion.multiply(random_rotations, noise), random_rotations)
    identity = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    assert quaternion.angle_between(frame.turn, identity) < 3
