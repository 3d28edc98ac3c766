"""Random deformations of crops and of the positions in them."""

import math

import pytest
import torch

from models.part_discovery import centers
from models.warping import Warp, control_points, fit_spline, jitter_colors, random_warp
from utils.seeding import torch_generator


def similarity(angle: float, scale: float, shift: list[float]) -> Warp:
    """Returns a warp without bend."""
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = torch.tensor([[[cos, -sin], [sin, cos]]])
    return Warp(linear, torch.tensor([shift]), torch.zeros(1, 28, 2))


def blob(x: float, y: float) -> torch.Tensor:
    """Returns a smooth spot (1, 1, 64, 64) at a position."""
    steps = (2 * torch.arange(64) + 1) / 64 - 1
    square = (steps - x).square() + (steps - y).square()[:, None]
    return torch.exp(-square / (2 * 0.05**2))[None, None]


def test_a_spline_that_moves_nothing_is_zero() -> None:
    assert torch.equal(fit_spline(torch.zeros(1, 25, 2)), torch.zeros(1, 28, 2))


def test_a_spline_moves_its_control_points_as_asked() -> None:
    offsets = 0.1 * torch.randn(2, 25, 2, generator=torch_generator(0))
    warp = Warp(torch.eye(2).expand(2, 2, 2), torch.zeros(2, 2), fit_spline(offsets))
    points = control_points().expand(2, -1, -1)
    torch.testing.assert_close(warp.positions(points), points + offsets, atol=1e-5, rtol=0)


def test_a_spline_through_affine_movements_is_affine() -> None:
    matrix, shift = torch.tensor([[0.1, -0.2], [0.05, 0.3]]), torch.tensor([0.1, -0.1])
    bend = fit_spline((control_points() @ matrix + shift)[None])
    torch.testing.assert_close(bend[0, :25], torch.zeros(25, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(bend[0, 25:], torch.cat([shift[None], matrix]), atol=1e-5, rtol=0)


def test_similarities_turn_scale_and_shift_positions() -> None:
    warp = similarity(math.pi / 2, 2.0, [0.1, 0.0])
    found = warp.positions(torch.tensor([[[0.3, 0.0], [0.0, 0.2]]]))
    torch.testing.assert_close(found, torch.tensor([[[0.1, 0.6], [-0.3, 0.0]]]))


def test_images_follow_a_quarter_turn_exactly() -> None:
    image = torch.rand(1, 2, 8, 8, generator=torch_generator(0))
    turned = similarity(math.pi / 2, 1.0, [0.0, 0.0]).images(image)
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_images_and_positions_are_warped_alike(seed: int) -> None:
    warp = random_warp(1, torch_generator(seed))
    image = blob(0.15, -0.2)
    found, mass = centers(warp.images(image))
    assert mass > 1
    torch.testing.assert_close(
        warp.positions(found)[0, 0], torch.tensor([0.15, -0.2]), atol=0.02, rtol=0
    )


def test_random_warps_are_similarities_and_mirror_half_of_the_images() -> None:
    linear = random_warp(200, torch_generator(0)).linear
    scale = torch.linalg.det(linear).abs().sqrt()
    torch.testing.assert_close(
        linear @ linear.mT, scale.square()[:, None, None] * torch.eye(2).expand(200, 2, 2)
    )
    mirrored = (torch.linalg.det(linear) < 0).sum()
    assert 80 < mirrored < 120


def test_colors_outside_the_mask_stay_zero() -> None:
    images = torch.rand(3, 4, 8, 8, generator=torch_generator(0))
    images[:, 3] = (images[:, 3] > 0.5).float()
    images[:, :3] *= images[:, 3:]
    jittered = jitter_colors(images, torch_generator(1))
    assert torch.equal(jittered[:, 3], images[:, 3])
    assert (jittered[:, :3] * (1 - images[:, 3:]) == 0).all()
    assert not torch.equal(jittered, images)
