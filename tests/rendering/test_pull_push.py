"""Filling of gaps: what is known stays, what is not is a mean of what is."""

import torch

from rendering.pull_push import pull_push


def test_known_values_stay_and_a_constant_fills_every_gap() -> None:
    generator = torch.Generator().manual_seed(1)
    known = (torch.rand(1, 1, 37, 50, generator=generator) < 0.1).float()
    values = torch.full((1, 2, 37, 50), 0.7)
    filled = pull_push(torch.where(known > 0, values, torch.nan_to_num(values * 9)), known)
    torch.testing.assert_close(filled, values)
    noise = torch.rand(1, 2, 37, 50, generator=generator)
    torch.testing.assert_close(pull_push(noise, known) * known, noise * known)


def test_fills_stay_within_the_range_of_what_is_known() -> None:
    generator = torch.Generator().manual_seed(2)
    known = torch.rand(1, 1, 64, 64, generator=generator) * (torch.arange(64) < 20)
    filled = pull_push(torch.rand(1, 1, 64, 64, generator=generator) + 3, known)
    assert filled.min() >= 3 - 1e-5
    assert filled.max() <= 4 + 1e-5


def test_two_halves_blend_without_a_jump_in_the_gap_between_them() -> None:
    values = torch.zeros(1, 1, 64, 64)
    values[..., 40:] = 1
    known = torch.ones_like(values)
    known[..., 24:40] = 0
    row = pull_push(values, known)[0, 0, 32]
    assert (row.diff() >= -1e-5).all()
    assert row.diff().max() < 0.25


def test_a_map_that_wraps_around_is_filled_across_its_seam() -> None:
    values = torch.zeros(1, 1, 32, 32)
    known = torch.zeros_like(values)
    values[..., 1], known[..., 1] = 1, 1
    values[..., 16], known[..., 16] = -1, 1
    assert pull_push(values, known, around=True)[0, 0, 16, 31] > 0.2
    assert pull_push(values, known)[0, 0, 16, 31] < 0


def test_without_any_weight_the_fill_is_zero() -> None:
    assert not pull_push(torch.ones(1, 3, 5, 9), torch.zeros(1, 1, 5, 9)).any()
