"""Tests of drawn points."""

import torch

from rendering.point_pictures import draw_points


def drawn(*screen: tuple[float, float, float], size: int = 32) -> torch.Tensor:
    """Returns a picture (3, size, size) of points whose colors follow their depth."""
    points = torch.tensor([screen])
    return draw_points(points, points, size)[0]


def test_a_point_colors_the_pixel_where_it_is():
    picture = drawn((0.5, 0.25, 0.0))
    covered = (picture != 1).any(0).nonzero()
    assert covered.tolist() == [[12, 24]]  # row from the top, column from the left


def test_the_nearer_of_two_points_hides_the_other():
    behind_first = drawn((0.0, 0.0, -0.5), (0.0, 0.0, 0.5), (0.9, 0.9, 0.0))
    front_first = drawn((0.0, 0.0, 0.5), (0.0, 0.0, -0.5), (0.9, 0.9, 0.0))
    assert torch.equal(behind_first, front_first)
    # The highest and nearest point has the brightest color
    assert torch.allclose(behind_first[:, 16, 16], 2 * torch.tensor([0.95, 0.75, 0.25]) - 1)


def test_points_beyond_the_picture_are_left_out():
    assert (drawn((1.5, 0.0, 0.0), (0.0, -2.0, 0.0)) == 1).all()


def test_discs_grow_with_the_picture():
    picture = drawn((0.0, 0.0, 0.0), size=256)
    assert int((picture != 1).any(0).sum()) == 13  # the disc of radius 2
