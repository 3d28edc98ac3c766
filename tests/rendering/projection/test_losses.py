"""Losses of points against masks: values, gradients, and independence of how they are divided."""

import pytest
import torch

from rendering.projection.losses import objects_at_a_time, shrink, volume_loss
from rendering.projection.schedule import keep, share_at, sigma_at
from rendering.projection.volume import occupancy, silhouette
from tests.rendering.projection.test_volume import cloud


def masks(count: int = 2, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, size, size, generator=generator, dtype=torch.float64)


def test_the_loss_is_the_mean_squared_difference():
    points, targets, index = cloud(), masks(3), torch.tensor([2, 0])
    loss, iou = volume_loss(points, targets, index, size=16, sigma=0.8)
    seen = silhouette(occupancy(points, 16, 0.8))
    torch.testing.assert_close(loss, (seen - targets[index]).square().mean((1, 2)))
    both = (seen > 0.5) & (targets[index] > 0.5)
    either = (seen > 0.5) | (targets[index] > 0.5)
    torch.testing.assert_close(iou, both.sum((1, 2)).float() / either.sum((1, 2)).float())


def test_gradients_are_those_without_chunks():
    points = cloud(objects=5).requires_grad_()
    scale = torch.linspace(0.3, 0.9, 5, dtype=torch.float64, requires_grad=True)
    targets, index = masks(2), torch.tensor([0, 1, 1, 0, 1])
    weight = torch.arange(1.0, 6.0, dtype=torch.float64)
    loss, iou = volume_loss(points, targets, index, size=16, sigma=1.5, scale=scale, memory=1)
    assert not iou.requires_grad
    found = torch.autograd.grad((weight * loss).sum(), (points, scale))
    seen = silhouette(occupancy(points, 16, 1.5, scale))
    whole = ((seen - targets[index]).square().mean((1, 2)) * weight).sum()
    for one, other in zip(found, torch.autograd.grad(whole, (points, scale)), strict=True):
        torch.testing.assert_close(one, other)


def test_results_do_not_depend_on_the_memory():
    points = cloud(300, objects=7).float().requires_grad_()
    targets, index = masks(2, 32).float(), torch.arange(7) % 2
    results = []
    for objects in (1, 3, 7):
        memory = objects * 4 * (14 * 16**3 + 120 * 300)
        assert objects_at_a_time(300, 16, memory) == objects
        loss, iou = volume_loss(points, targets, index, size=16, sigma=2.0, memory=memory)
        results.append((loss, iou, torch.autograd.grad(loss.sum(), points)[0]))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert torch.equal(one, other)


def test_no_objects_have_no_loss():
    loss, iou = volume_loss(
        torch.zeros(0, 5, 3), torch.zeros(1, 8, 8), torch.zeros(0).long(), size=8, sigma=1.0
    )
    assert loss.shape == iou.shape == (0,)


def test_masks_are_averaged():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    small = shrink(mask, 4)[0]
    # The edge lies between the rows in the middle
    assert (small[1] > 0.8).all()
    torch.testing.assert_close(small + small.flip(0), torch.ones(4, 4))
    assert shrink(mask, 8) is mask


def test_the_schedule_runs_from_few_coarse_points_to_all():
    assert (sigma_at(0), sigma_at(1)) == pytest.approx((3.0, 0.2))
    assert (share_at(0), share_at(1)) == pytest.approx((0.07, 1.0))
    assert sigma_at(0.5) == pytest.approx(1.6)


def test_kept_points_are_different_and_seeded():
    first, again = (keep(100, 0.071, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert len(first.unique()) == 8
    assert torch.equal(keep(9, 1.0, torch.Generator()).sort().values, torch.arange(9))
