"""Points that cover a mask: closed forms of both parts of the error, and of the overlap."""

import math

import pytest
import torch

from rendering.projection.cover import SIDE, cover_errors, coverage, depth, inside, repulsion

FULL = torch.ones(1, SIDE, SIDE, dtype=torch.float64)
PIXEL = 2 / SIDE  # on the screen


def left_half() -> torch.Tensor:
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.float64)
    mask[..., : SIDE // 2] = 1
    return mask


def test_masks_are_read_between_the_centers_of_pixels():
    mask = torch.zeros(1, 4, 4)
    mask[0, 1, 2] = 1
    # Its center, half way to the right neighbor, a quarter of the way up, and outside of the image
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.25], [0.25, 0.375], [3.0, 0.0]]])
    torch.testing.assert_close(inside(points, mask), torch.tensor([[1.0, 0.5, 0.75, 0.0]]))


@pytest.mark.parametrize("pixels", [0.0, 1.0, 4.0])
def test_the_repulsion_of_two_points_has_a_closed_form(pixels):
    points = torch.tensor([[[0.0, 0.0], [0.0, pixels * PIXEL]]], dtype=torch.float64)
    scale = SIDE**2 / (5 * math.pi)
    expected = scale * (2 + 2 * math.exp(-(pixels**2) / 5)) / 4
    assert repulsion(points, FULL).item() == pytest.approx(expected)


def test_points_that_fill_a_mask_evenly_repel_each_other_by_one():
    # A lattice of points, away from the border of the mask
    axis = torch.arange(-1, 1, PIXEL / 2, dtype=torch.float64) + PIXEL / 4
    lattice = torch.cartesian_prod(axis, axis)[None]
    # Near the border half of the neighbors are missing, and the rings leave the image
    assert 0.75 < repulsion(lattice, FULL).item() < 1
    half = 0.5 * lattice + torch.tensor([-0.5, 0.0])
    assert repulsion(half, left_half()).item() > 1.5 * repulsion(lattice, FULL).item()


def test_points_outside_of_the_mask_repel_nobody():
    points = torch.tensor([[[-0.5, 0.0], [0.5, 0.0], [0.5, 0.01]]], dtype=torch.float64)
    alone = torch.tensor([[[-0.5, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(repulsion(points, left_half()) * 9, repulsion(alone, left_half()))


def test_points_deep_inside_know_it():
    points = torch.tensor([[[-0.5, 0.0], [0.0, 0.0], [0.5, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        depth(points, left_half()), torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    )


def test_a_point_outside_is_led_back_and_crowded_points_apart():
    points = torch.tensor([[[2 * PIXEL, 0.0]]], dtype=torch.float64, requires_grad=True)
    error, _ = cover_errors(points, left_half(), 3.0, 0.0)
    (gradient,) = torch.autograd.grad(error.sum(), points)
    assert gradient[0, 0, 0] > 0.01
    pair = torch.tensor([[[-0.5, 0.0], [-0.45, 0.0]]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(repulsion(pair, left_half()).sum(), pair)
    assert gradient[0, 0, 0] > 0 > gradient[0, 1, 0]


def test_gradients_of_the_distances_agree_with_finite_differences():
    points = 0.6 * torch.rand(
        2, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    # Within a full mask, all that depends on the mask is constant
    masks = FULL.expand(2, -1, -1)
    points = (points - 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: cover_errors(p, masks, 0.2, 1.0)[0], points)


def test_overlap_of_points_that_fill_half_of_the_mask():
    points = 2 * torch.rand(1, 4000, 2, generator=torch.Generator().manual_seed(0)) - 1
    points = points * torch.tensor([0.5, 1.0]) - torch.tensor([0.5, 0.0])
    assert coverage(points, left_half().float()).item() > 0.95
    # Twice as dense as needed, on half of it
    assert coverage(points, FULL.float()).item() == pytest.approx(0.5, abs=0.04)
