"""The frame of a learned template is found again from poses, also where many are wrong."""

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose
from geometry.common_frame import common_frame, common_similarity


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


@pytest.mark.parametrize("depths_reversed", [False, True])
def test_a_common_similarity_is_found_again_although_a_third_is_wrong(
    random_rotations: Tensor, depths_reversed: bool
):
    """The estimate shows the mesh x_t = turn (x - offset) / scale where the true pose shows x."""
    true, count = random_rotations, len(random_rotations)
    generator = torch.Generator().manual_seed(2)
    turn = quaternion.normalize(torch.tensor([0.3, -0.2, 0.7, 0.5], dtype=torch.float64))
    offset = torch.tensor([0.0, 0.2, -0.1], dtype=torch.float64)
    scale = 0.5 + torch.rand(count, 1, generator=generator, dtype=torch.float64)
    translation = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    rotation = quaternion.multiply(true, quaternion.conjugate(turn).expand_as(true))
    moved = scale[..., None] * quaternion.rotate(true, offset.expand(count, 1, 3))
    if depths_reversed:
        rotation = quaternion.complementary(rotation)
    rotation[::3] = true[torch.arange(0, count, 3) - 1]
    pose = Pose(1.5 * scale, translation + moved[:, 0, :2], rotation, torch.zeros(count, 1))
    found = common_similarity(pose, true, scale, translation)
    assert found.frame.reversed == depths_reversed
    mesh = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    expected = 1.5 * quaternion.rotate(quaternion.conjugate(turn), mesh) + offset
    torch.testing.assert_close(found.apply(mesh), expected, atol=1e-5, rtol=0)
