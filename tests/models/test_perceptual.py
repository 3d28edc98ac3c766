"""Perceptual distances: zero for equal images, closed forms, slopes."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from models.features import FeatureNetwork
from models.perceptual import feature_distance, gradient_distance


class Pyramid(nn.Module):
    """Stands for a network of timm: maps of strides 2 and 4."""

    default_cfg: ClassVar = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "input_size": (3, 32, 32)}
    feature_info: ClassVar = [{"reduction": 2}, {"reduction": 4}]

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 5, 2, 2), nn.Conv2d(5, 6, 2, 2)])

    def forward_intermediates(
        self, x: Tensor, indices: list[int], **options: object
    ) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = layer(x).tanh()
            maps.append(x)
        return [maps[i] for i in indices]


def images(count: int = 2) -> Tensor:
    return 2 * torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(count)) - 1


@pytest.mark.parametrize(
    "distance", [gradient_distance, feature_distance(FeatureNetwork(Pyramid(), "p"))]
)
def test_equal_images_are_at_distance_zero(distance):
    first = images()
    assert distance(first, first).abs() < 1e-6
    assert distance(first, first.flip(0)) > 0.01
    # A step towards the other image brings it nearer
    moved = first.flip(0).requires_grad_()
    before = distance(first, moved)
    before.backward()
    assert moved.grad is not None
    after = distance(first, (moved - 1e-3 * moved.grad / moved.grad.abs().max()).detach())
    assert after < before.detach()


def test_features_are_compared_by_their_angles():
    network = FeatureNetwork(Pyramid(), "p")
    first, second = images(1), images(3)[:1]
    expected = 0.0
    for a, b in zip(network.levels(first), network.levels(second), strict=True):
        cosines = [
            float((a[0, :, y, x] @ b[0, :, y, x]) / (a[0, :, y, x].norm() * b[0, :, y, x].norm()))
            for y in range(a.shape[2])
            for x in range(a.shape[3])
        ]
        expected += 1 - sum(cosines) / len(cosines)
    assert feature_distance(network)(first, second).item() == pytest.approx(expected, rel=1e-5)


def test_a_step_costs_its_length_at_every_scale():
    """A step of height 1 between columns of a 32 x 32 image crosses one of 31, 15, 7 and 3 places."""
    step = torch.zeros(1, 3, 32, 32)
    step[..., 16:] = 1
    expected = 1 / 31 + 1 / 15 + 1 / 7 + 1 / 3
    assert gradient_distance(step, torch.zeros_like(step)).item() == pytest.approx(expected)
    # A constant has no slope
    assert gradient_distance(step, step + 0.3).item() == pytest.approx(0, abs=1e-6)
