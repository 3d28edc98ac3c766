"""Rotations against matrices, and the views against what a person would see."""

import math

import pytest
import torch

from geometry import quaternion


def degrees(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


def seen(azimuth: float, elevation: float, roll: float, direction: tuple) -> torch.Tensor:
    """Image direction (right, up, towards the viewer) of an object-space direction."""
    q = quaternion.from_view(*degrees(azimuth, elevation, roll))
    turned = quaternion.rotate(q, torch.tensor([direction], dtype=torch.float64))[0]
    return turned * torch.tensor([1.0, -1.0, -1.0])


def test_product_composes_first_the_right_then_the_left_rotation(random_rotations):
    p, q = random_rotations[:32], random_rotations[32:]
    product = quaternion.to_matrix(quaternion.multiply(p, q))
    expected = quaternion.to_matrix(p) @ quaternion.to_matrix(q)
    torch.testing.assert_close(product, expected)


def test_rotation_follows_the_textbook_formula(random_rotations):
    v = torch.randn(64, 5, 3, dtype=torch.float64)
    w, u = random_rotations[:, None, :1], random_rotations[:, None, 1:].expand(-1, 5, -1)
    cross = torch.linalg.cross(u, v)
    expected = v + 2 * (w * cross + torch.linalg.cross(u, cross))
    torch.testing.assert_close(quaternion.rotate(random_rotations, v), expected)


def test_matrix_round_trip_gives_the_quaternion_with_positive_w(random_rotations):
    half_turns = torch.eye(4, dtype=torch.float64)
    for q in (random_rotations, half_turns):
        back = quaternion.from_matrix(quaternion.to_matrix(q))
        assert (back[:, 0] >= 0).all()
        torch.testing.assert_close((back * q).sum(-1).abs(), torch.ones(len(q)).double())


def test_conjugate_undoes_a_rotation(random_rotations):
    identity = quaternion.multiply(quaternion.conjugate(random_rotations), random_rotations)
    expected = torch.eye(4, dtype=torch.float64)[0].expand(64, 4)
    torch.testing.assert_close(identity, expected, atol=1e-12, rtol=0)


def test_positive_angle_about_z_takes_x_to_y():
    z, angle = torch.tensor([0.0, 0.0, 2.0]), torch.tensor(90.0)
    turned = quaternion.rotate(quaternion.from_axis_angle(z, angle), torch.eye(3)[:1])
    torch.testing.assert_close(turned, torch.eye(3)[1:2], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("azimuth", "front"), [(0, (1, 0, 0)), (90, (0, 0, 1)), (180, (-1, 0, 0)), (270, (0, 0, -1))]
)
def test_azimuth_turns_the_front_right_nearer_left_away(azimuth, front):
    expected = torch.tensor(front, dtype=torch.float64)
    torch.testing.assert_close(seen(azimuth, 0, 0, (0, -1, 0)), expected, atol=1e-12, rtol=0)


def test_level_views_show_the_object_upright():
    for azimuth in (0, 77, 200):
        up = seen(azimuth, 0, 0, (0, 0, 1))
        torch.testing.assert_close(up, torch.eye(3).double()[1], atol=1e-12, rtol=0)


def test_positive_elevation_shows_the_top():
    towards_viewer = seen(30, 40, 0, (0, 0, 1))[2]
    assert towards_viewer == pytest.approx(math.sin(math.radians(40)))


def test_positive_roll_turns_the_picture_counter_clockwise():
    up = seen(0, 0, 90, (0, 0, 1))
    torch.testing.assert_close(up, torch.tensor([-1.0, 0, 0]).double(), atol=1e-12, rtol=0)


def test_view_round_trip(random_rotations):
    q = quaternion.from_view(*quaternion.to_view(random_rotations))
    assert quaternion.angle_between(q, random_rotations).max() < 1e-5
    azimuth, elevation, roll = quaternion.to_view(random_rotations)
    assert azimuth.min() >= 0
    assert azimuth.max() < 360
    assert elevation.abs().max() <= 90
    assert roll.abs().max() <= 180
    view = quaternion.to_view(quaternion.from_view(*degrees(123, -34, 56)))
    torch.testing.assert_close(torch.stack(view), torch.tensor([123.0, -34, 56]).double())


def test_angles_and_squared_distances_of_known_rotations():
    z, zero = torch.tensor([0.0, 0.0, 1.0]).double(), torch.zeros(()).double()
    for angle in (1e-3, 30.0, 60.0, 179.0, 180.0):
        p = quaternion.from_axis_angle(z, zero)
        q = quaternion.from_axis_angle(z, zero + angle)
        assert quaternion.angle_between(p, q) == pytest.approx(angle)
        assert quaternion.angle_between(p, -q) == pytest.approx(angle)
        expected = math.sin(math.radians(angle / 2)) ** 2
        assert quaternion.squared_distance(p, q) == pytest.approx(expected, abs=1e-12)


def test_mirror_and_complementary_rotations_are_their_matrices(random_rotations):
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0]).double())
    depth = torch.diag(torch.tensor([1.0, 1.0, -1.0]).double())
    matrix = quaternion.to_matrix(random_rotations)
    mirrored = quaternion.to_matrix(quaternion.mirror(random_rotations))
    torch.testing.assert_close(mirrored, mirror @ matrix @ mirror)
    complement = quaternion.to_matrix(quaternion.complementary(random_rotations))
    torch.testing.assert_close(complement, depth @ matrix @ mirror)


def test_complementary_score_is_one_for_side_views_and_zero_for_front_views():
    azimuth = torch.tensor([0.0, 180.0, 90.0, 270.0, 45.0]).double()
    q = quaternion.from_view(azimuth, torch.zeros(5).double(), torch.zeros(5).double())
    score = quaternion.complementary_score(q)
    torch.testing.assert_close(score, torch.tensor([1.0, 1, 0, 0, 0.5]).double())


def test_initial_views_are_those_of_the_reference(golden):
    views = quaternion.initial_views()
    torch.testing.assert_close(views, golden("rendering")["initial_views"], atol=1e-6, rtol=0)
