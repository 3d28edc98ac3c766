"""Changes of what the discriminator sees."""

import torch

from geometry.uv_maps import mirror_map
from pipeline.generation.augmentation import BRIGHTNESS, HOLE, augment, uniform_numbers

R = 64
HOLE_ROW, HOLE_COLUMN, TURN = 7, 8, 6  # columns of the uniform numbers


def maps(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.manual_seed(0)
    alpha = torch.rand(count, 1, R, R, generator=generator)
    colors = torch.rand(count, 3, R, R, generator=generator) * 2 - 1
    return torch.cat([colors * alpha, alpha], dim=1), torch.rand(count, 3, 32, 32)


def numbers(count: int) -> torch.Tensor:
    return uniform_numbers(count, torch.Generator().manual_seed(1))


def test_without_probability_nothing_changes() -> None:
    texture, mesh = maps(4)
    found = augment(texture, mesh, numbers(4), 0.0)
    assert torch.equal(found[0], texture)
    assert torch.equal(found[1], mesh)


def test_mirror_images_change_alike_when_their_numbers_are_mirrored() -> None:
    texture, mesh = maps(8)
    uniform = numbers(8)
    # A place at u is at 3/2 - u in the mirror, and the other way is the opposite one
    mirrored = uniform.clone()
    mirrored[:, TURN] = 1 - uniform[:, TURN]
    mirrored[:, HOLE_COLUMN] = (1.5 - uniform[:, HOLE_COLUMN]) % 1
    found = augment(mirror_map(texture), mirror_map(mesh), mirrored, 1.0)
    expected = augment(texture, mesh, uniform, 1.0)
    torch.testing.assert_close(found[0], mirror_map(expected[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], mirror_map(expected[1]))


def test_gradients_reach_what_is_not_hidden() -> None:
    texture, mesh = maps(3)
    texture.requires_grad_()
    mesh.requires_grad_()
    changed = augment(texture, mesh, numbers(3), 1.0)
    (changed[0][:, :3].square().sum() + changed[1].sum()).backward()
    assert texture.grad is not None
    assert mesh.grad is not None
    assert torch.equal(mesh.grad, torch.ones_like(mesh))
    shown = changed[0][:, 3] > 0
    torch.testing.assert_close(
        shown.float().mean((1, 2)), torch.full((3,), 1 - HOLE**2), atol=0.08, rtol=0
    )
    assert (texture.grad[:, :3].abs().sum((1, 2, 3)) > 0).all()


def test_a_hole_goes_around_the_sphere() -> None:
    texture = torch.ones(1, 4, R, R)
    uniform = torch.full((1, 9), 0.5)
    uniform[:, HOLE_COLUMN] = 0.0
    hidden = augment(texture, torch.zeros(1, 3, 32, 32), uniform, 1.0)[0][0, 3] == 0
    position = (torch.arange(R) + 0.5) / R
    near = (position < HOLE / 2) | (position > 1 - HOLE / 2)
    assert torch.equal(hidden.any(0), near)
    assert torch.equal(hidden.any(1), (position - 0.5).abs() < HOLE / 2)


def test_gray_changes_in_brightness_alone() -> None:
    alpha = torch.rand(1, 1, R, R, generator=torch.manual_seed(0))
    texture = torch.cat([0.25 * alpha.expand(-1, 3, -1, -1), alpha], dim=1)
    uniform = torch.tensor([[0.0, 1.0, 1.0, 0.9, 0.2, 0.7, 0.5, 0.5, 0.5]])
    changed, _ = augment(texture, torch.zeros(1, 3, 32, 32), uniform, 0.5)
    expected = (0.25 + BRIGHTNESS * 0.8) * alpha.expand(-1, 3, -1, -1)
    torch.testing.assert_close(changed[:, :3], expected, atol=1e-5, rtol=0)
    assert torch.equal(changed[:, 3:], alpha)


def test_both_maps_turn_together() -> None:
    small = torch.rand(2, 3, 32, 32, generator=torch.manual_seed(0))
    texture = torch.cat([small, torch.ones(2, 1, 32, 32)], dim=1).repeat_interleave(2, -1)
    texture = texture.repeat_interleave(2, -2)
    uniform = torch.tensor([[1.0, 0.0, 1.0, *[0.5] * 3, 0.1, 0.5, 0.5]]).repeat(2, 1)
    turned, mesh = augment(texture, small, uniform, 0.5)
    assert torch.equal(turned[:, :3, ::2, ::2], mesh)
    assert not torch.equal(mesh, small)
