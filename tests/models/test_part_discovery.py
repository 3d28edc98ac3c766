"""Part discovery: the network and its losses."""

import math

import pytest
import torch
from torch import Tensor

from models.part_discovery import (
    PartNetwork,
    centers,
    concentration,
    equivariance,
    landmark_equivariance,
    orthonormality,
    pixel_grid,
    semantic_consistency,
)


def random_maps(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def rectangle(size: int, left: int, right: int, top: int, bottom: int) -> Tensor:
    parts = torch.zeros(1, 1, size, size)
    parts[..., top:bottom, left:right] = 1
    return parts


def test_network_maps_crops_to_part_maps_of_their_size() -> None:
    logits = PartNetwork(num_parts=3, width=8)(random_maps(2, 4, 32, 32))
    assert logits.shape == (2, 3, 32, 32)


def test_maps_of_an_image_do_not_depend_on_its_batch() -> None:
    network, images = PartNetwork(num_parts=3, width=8), random_maps(3, 4, 32, 32)
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


def test_grid_and_centers_are_x_right_and_y_down() -> None:
    assert pixel_grid(2)[1, 0].tolist() == [-0.5, 0.5]
    center, mass = centers(rectangle(8, left=4, right=8, top=0, bottom=8))
    assert center[0, 0].tolist() == pytest.approx([0.5, 0])
    assert mass.item() == 32


def test_concentration_of_a_rectangle_is_its_variance() -> None:
    parts = rectangle(16, left=2, right=10, top=4, bottom=8)

    def variance(pixels: int) -> float:  # of equally spaced points, 2 / 16 apart
        return (pixels**2 - 1) / 12 / 64

    expected = variance(8) + variance(4)
    assert concentration(parts).item() == pytest.approx(expected)
    both = torch.cat([parts, parts.flip(-1)], dim=1).expand(5, -1, -1, -1)
    assert concentration(both).item() == pytest.approx(2 * expected)  # not a fifth of it


def test_an_empty_part_is_no_loss_and_no_gradient_that_is_not_finite() -> None:
    parts = rectangle(16, left=2, right=10, top=4, bottom=8)
    empty = torch.cat([parts, torch.zeros(1, 1, 16, 16)], dim=1).requires_grad_()
    loss = concentration(empty)
    assert loss.item() == pytest.approx(concentration(parts).item())
    (gradient,) = torch.autograd.grad(loss, empty)
    assert gradient.isfinite().all()


def test_equivariance_equals_the_divergence_pixel_by_pixel() -> None:
    logits = random_maps(2, 3, 4, 4)
    expected = (4 * random_maps(2, 3, 4, 4).flip(0)).softmax(dim=1)
    mask = (random_maps(2, 1, 4, 4) > 0.5).float()
    total, count = 0.0, 0
    for b, y, x in mask[:, 0].nonzero().tolist():
        predicted = logits[b, :, y, x].softmax(dim=0)
        for p, q in zip(expected[b, :, y, x].tolist(), predicted.tolist(), strict=True):
            total += p * math.log(p / q)
        count += 1
    assert equivariance(logits, expected, mask).item() == pytest.approx(total / count, rel=1e-5)
    same = equivariance(logits, logits.softmax(dim=1), mask)
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_landmarks_are_compared_where_both_are_shown() -> None:
    a = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    b = torch.tensor([[[0.3, 0.4], [9.0, 9.0]]])
    shown = torch.tensor([[True, False]])
    assert landmark_equivariance(a, b, shown).item() == pytest.approx(0.25)
    assert landmark_equivariance(a, b, ~shown & False).item() == 0


def test_orthonormality_measures_the_angles_of_the_rows() -> None:
    angle = 0.7
    rows = torch.tensor([[2.0, 0.0], [3 * math.cos(angle), 3 * math.sin(angle)]])
    assert orthonormality(rows).item() == pytest.approx(2 * math.cos(angle) ** 2, rel=1e-5)
    assert orthonormality(5 * torch.eye(3, 4)).item() == pytest.approx(0, abs=1e-10)


def test_semantic_consistency_is_the_mean_error_inside_the_mask() -> None:
    parts, basis = random_maps(2, 3, 4, 4), random_maps(3, 5)
    features, mask = random_maps(2, 5, 4, 4).flip(-1), random_maps(2, 1, 4, 4)
    mask[1] = 0
    total = 0.0
    for y in range(4):
        for x in range(4):
            explained = sum(parts[0, k, y, x] * basis[k] for k in range(3))
            error = (explained - features[0, :, y, x]).square().mean()
            total += (mask[0, 0, y, x] * error).item()
    found = semantic_consistency(parts, basis, features, mask)
    assert found.item() == pytest.approx(total / mask.sum().item(), rel=1e-5)
    assert semantic_consistency(parts, basis, features, 0 * mask).item() == 0
