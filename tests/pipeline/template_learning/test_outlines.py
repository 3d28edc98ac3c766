"""Forms of masks, against areas that can be counted."""

import torch

from pipeline.template_learning import outlines


def drawn(size: int = 40) -> torch.Tensor:
    """Returns a mask (size, size): a disk of radius 10 with a bar, 3 pixels wide, below it."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disk = (x - 20).square() + (y - 12).square() <= 100
    return (disk | ((x - 20).abs() <= 1) & (y > 12) & (y < 38)).float()


def test_solidity_is_the_share_of_the_convex_hull():
    masks = torch.zeros(4, 16, 16)
    masks[0, 2:10, 2:10] = 1
    # An L, whose hull lacks half of the missing square
    masks[1, 2:10, 2:10] = 1
    masks[1, 2:6, 6:10] = 0
    masks[2, 5] = 1
    expected = torch.tensor([1.0, 48 / 56, 1.0, 1.0])
    torch.testing.assert_close(outlines.solidity(masks), expected)


def test_a_leg_is_thin_and_a_torso_is_not():
    thin = torch.from_numpy(outlines.thin_parts(drawn().numpy() > 0.5))
    assert thin[26:38, 19:22].all()
    assert not thin[4:21, 15:26].any()
    assert thin.sum() < 1.2 * thin[22:, 19:22].sum()


def test_missing_a_thin_part_costs_more_than_missing_as_many_other_pixels():
    mask = drawn()
    target = outlines.emphasize_thin(mask[None])[0]
    cost = target.square() - (1 - target).square()
    assert cost[30, 20] == outlines.EMPHASIS
    assert cost[12, 20] == 1
    assert cost[0, 0] == -1
