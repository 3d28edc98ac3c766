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
    # The estimated scale belongs to a mesh of 1 / 1.5 of the size; the origin is elsewhere
    pose = Pose(1.5 * scale, translation + moved[:, 0, :2], rotation, torch.full((count, 1), 40.0))
    mesh = symmetric_points()

    def project_true(vertices: Tensor, rows: Tensor) -> Tensor:
        turned = quaternion.rotate(true[rows], vertices.expand(len(rows), -1, -1))
        planar = scale[rows, None] * turned[..., :2] + translation[rows, None]
        return planar * torch.tensor([1.0, -1.0])

    found = common_similarity(pose, true, scale, mesh, project_true)
    assert found.frame.reversed == depths_reversed
    expected = 1.5 * quaternion.rotate(quaternion.conjugate(turn), mesh) + offset
    torch.testing.assert_close(found.apply(mesh), expected, atol=1e-5, rtol=0)


def symmetric_points() -> Tensor:
    """Returns points in mirror pairs about x = 0."""
    half = torch.rand(40, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return torch.cat([half, half * torch.tensor([-1, 1, 1])])


def test_perspective_does_not_change_the_size(random_rotations: Tensor):
    """From a distance d a unit ball looks d / sqrt(d^2 - 1) times as large as from far away."""
    true, count, distance = random_rotations[:12], 12, 3.0
    ball = quaternion.normalize(
        torch.randn(4000, 4, generator=torch.Generator().manual_seed(1))[:, :3]
    ).double()
    seen = distance / (distance**2 - 1) ** 0.5
    ones = torch.ones(count, 1, dtype=torch.float64)
    pose = Pose(0.5 * seen * ones, torch.zeros(count, 2).double(), true, 40 * ones)

    def project_true(vertices: Tensor, rows: Tensor) -> Tensor:
        x, y, z = quaternion.rotate(true[rows], vertices.expand(len(rows), -1, -1)).unbind(-1)
        return 0.5 * torch.stack([x, -y], dim=-1) / (1 + z / distance)[..., None]

    found = common_similarity(pose, true, 0.5 * ones, ball, project_true)
    assert float(found.scale) == pytest.approx(1, abs=2e-3)
    assert found.offset.norm() < 2e-3
