"""One test per sign of the camera."""

import math

import pytest
import torch

from geometry import camera, quaternion
from geometry.camera import Pose, project
from tests.oracles import golden_pose


def level_pose(azimuth: float = 0.0, **changes: tuple[float, ...]) -> Pose:
    zero = torch.zeros(1)
    rotation = quaternion.from_view(zero + azimuth, zero, zero)
    pose = Pose(torch.ones(1, 1), torch.zeros(1, 2), rotation, torch.full((1, 1), 2.0))
    return pose._replace(**{key: torch.tensor([value]) for key, value in changes.items()})


def image_of(point: tuple[float, float, float], pose: Pose, orthographic: bool = True) -> list:
    screen = project(torch.tensor([[point]]), pose, orthographic=orthographic)
    return [round(value, 5) for value in screen[0, 0].tolist()]


def test_up_is_up_in_the_image():
    assert image_of((0, 0, 1), level_pose()) == pytest.approx([0, 1, 0])


def test_front_of_the_object_points_right_at_azimuth_zero():
    assert image_of((0, -1, 0), level_pose()) == pytest.approx([1, 0, 0])


def test_positive_x_side_lies_behind_at_azimuth_zero():
    assert image_of((1, 0, 0), level_pose()) == pytest.approx([0, 0, -1])


def test_translation_is_right_and_down():
    pose = level_pose(translation=(0.25, 0.5))
    assert image_of((0, 0, 0), pose) == pytest.approx([0.25, -0.5, 0])


def test_scale_acts_before_translation():
    pose = level_pose(scale=(0.5,), translation=(0.25, 0.0))
    assert image_of((0, -1, 0), pose) == pytest.approx([0.75, 0, 0])


def test_perspective_enlarges_what_is_nearer():
    pose = level_pose(azimuth=90.0)
    near = image_of((0.3, -0.8, 0.2), pose, orthographic=False)
    distance = 1 + math.exp(2)
    factor = (distance + 0.4) / (distance - 0.4)
    plain = image_of((0.3, -0.8, 0.2), pose)
    assert plain[2] == pytest.approx(0.8)
    assert near == pytest.approx([plain[0] * factor, plain[1] * factor, 0.8], abs=1e-4)


def test_camera_keeps_handedness_and_counter_clockwise_faces():
    pose = level_pose()
    axes = project(torch.eye(3)[None], pose, orthographic=True)[0]
    assert torch.linalg.det(axes) == pytest.approx(1.0)


def test_mirrored_pose_shows_the_mirrored_symmetric_object(random_rotations):
    count = len(random_rotations)
    points = torch.rand(1, 6, 3, dtype=torch.float64) - 0.5
    partner = points * torch.tensor([-1.0, 1.0, 1.0]).double()
    numbers = torch.rand(count, 4, dtype=torch.float64)
    pose = Pose(numbers[:, :1] + 0.5, numbers[:, 1:3], random_rotations, numbers[:, 3:])
    flipped = project(partner, camera.mirror(pose))
    expected = project(points, pose) * torch.tensor([-1.0, 1.0, 1.0]).double()
    torch.testing.assert_close(flipped, expected)


def changed(points: torch.Tensor, turn: float, factor: float, shift: torch.Tensor) -> torch.Tensor:
    """Turns points (..., 2) of an image counter-clockwise, scales and shifts them, as complex numbers."""
    x, y = points.unbind(-1)
    moved = factor * torch.complex(x, y) * complex(math.cos(turn), math.sin(turn))
    return torch.stack([moved.real, moved.imag], dim=-1) + shift


@pytest.mark.parametrize("orthographic", [True, False])
def test_similarity_of_the_pose_is_that_of_the_image(random_rotations, orthographic):
    count = len(random_rotations)
    points = torch.rand(1, 6, 3, dtype=torch.float64) - 0.5
    numbers = torch.rand(count, 4, dtype=torch.float64)
    pose = Pose(numbers[:, :1] + 0.5, numbers[:, 1:3], random_rotations, numbers[:, 3:] + 1)
    # With perspective, a shift is exact at one depth only
    shift = torch.tensor([0.2, -0.3]).double() * orthographic
    turn, factor = torch.full((count,), 37.0).double(), torch.full((count, 1), 1.3).double()
    new = camera.similarity(pose, turn, factor, shift.expand(count, 2))
    before = project(points, pose, orthographic=orthographic)[..., :2]
    after = project(points, new, orthographic=orthographic)[..., :2]
    torch.testing.assert_close(after, changed(before, math.radians(37), 1.3, shift))


def test_framed_meshes_fill_the_image_without_perspective(random_rotations):
    count = len(random_rotations)
    points = torch.rand(count, 9, 3).double() * torch.tensor([1.0, 2.0, 0.5])
    numbers = torch.rand(count, 4).double()
    pose = Pose(numbers[:, :1] + 0.5, numbers[:, 1:3], random_rotations, numbers[:, 3:])
    screen = project(points, camera.framed(points, pose, orthographic=True), orthographic=True)
    low, high = screen[..., :2].amin(1), screen[..., :2].amax(1)
    torch.testing.assert_close(low, -high, atol=1e-5, rtol=0)
    torch.testing.assert_close((high - low).amax(1), torch.full((count,), 2 / 1.1).double())


def test_screen_vertices_are_those_of_the_reference(golden):
    arrays = golden("rendering")
    screen = project(arrays["vertex_positions"], golden_pose(arrays))
    torch.testing.assert_close(screen, arrays["camera_vertices"], atol=1e-6, rtol=0)


def test_select_and_concatenate_undo_each_other(random_rotations):
    numbers = torch.rand(64, 4)
    pose = Pose(numbers[:, :1], numbers[:, 1:3], random_rotations, numbers[:, 3:])
    halves = camera.concatenate(
        [camera.select(pose, slice(0, 20)), camera.select(pose, torch.arange(20, 64))]
    )
    for member, original in zip(halves, pose, strict=True):
        assert torch.equal(member, original)


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"vertices: expected shape \(B, V, 3\)"):
        project(torch.zeros(1, 5, 2), level_pose())


def test_half_of_the_way_between_poses_is_half_of_the_turn():
    start = level_pose(scale=(1.0,), translation=(0.1, 0.0))
    end = level_pose(60.0, scale=(2.0,), translation=(0.3, -0.2))
    # Of either sign, a quaternion is the same rotation
    for sign in (1.0, -1.0):
        half = camera.between(start, end._replace(rotation=sign * end.rotation), 0.5)
        expected = level_pose(30.0, scale=(1.5,), translation=(0.2, -0.1))
        assert quaternion.angle_between(half.rotation, expected.rotation) < 1e-2
        torch.testing.assert_close(half[:2], expected[:2])
    for share, pose in ((0.0, start), (1.0, end)):
        torch.testing.assert_close(camera.between(start, end, share), pose)
