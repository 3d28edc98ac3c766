"""Upright views: their table in mirror images, and what the student is taught."""

import math

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from models.point_clouds import SECTORS, Code, UprightNetwork
from pipeline.reconstruction.points.upright import TEMPERATURE, Poses, teach

WIDTH = 360 / SECTORS


def views(azimuth: Tensor, elevation: float = 10.0) -> Tensor:
    level = torch.zeros_like(azimuth)
    return quaternion.from_view(azimuth, level + elevation, level)


class Said(UprightNetwork):
    """A student with given logits, who takes sectors for seen from their middles."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(16, 10, 0.1)
        self.logits = logits

    def poses(self, code: Code) -> tuple[Tensor, Tensor]:
        middles = views(torch.arange(SECTORS) * WIDTH)
        return self.logits, middles.expand(len(self.logits), -1, -1)


CODE = Code(torch.zeros(1, 1), torch.zeros(1, 1))


def test_mirrored_views_have_mirrored_tables():
    poses = Poses(2)
    azimuth = (torch.arange(SECTORS) + 0.2) * WIDTH
    poses.rotation.copy_(views(azimuth).expand(2, -1, -1))
    poses.error.copy_(torch.arange(2 * SECTORS).view(2, SECTORS))
    error, rotation = poses(torch.tensor([1, 1]), torch.tensor([False, True]))
    assert torch.equal(error[0], poses.error[1])
    assert torch.equal(rotation[0], poses.rotation[1])
    # A picture seen from azimuth a, in sector k, shows in its mirror what is seen from 180 - a
    for k in range(SECTORS):
        opposite = (SECTORS // 2 - k) % SECTORS
        assert error[1, opposite] == poses.error[1, k]
        expected = views(180 - azimuth[k])
        assert quaternion.angle_between(rotation[1, opposite], expected) < 0.1


def test_the_lesson_is_the_likeliest_pose_and_the_probabilities_of_the_sectors():
    error = torch.full((1, SECTORS), 1e6)
    error[:, 3], error[:, 15] = 0.0, 0.5  # half a turn apart, and hardly different
    logits = torch.zeros(1, SECTORS, requires_grad=True)
    rotation = views((torch.arange(SECTORS) + 0.4) * WIDTH)[None]
    lesson = teach(Said(logits), CODE, error, rotation)
    assert torch.equal(lesson.rotation, rotation[:, 3])
    turned = quaternion.squared_distance(*views(torch.tensor([0.0, 0.4 * WIDTH])))
    assert float(lesson.distance) == pytest.approx(float(turned), rel=1e-2)
    # Gradient of the cross entropy: softmax(logits) less what is taught
    lesson.entropy.sum().backward()
    likely = 1 / (1 + math.exp(-0.5 / TEMPERATURE))
    expected = torch.full((SECTORS,), 1 / SECTORS)
    expected[3] -= likely
    expected[15] -= 1 - likely
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0], expected, atol=1e-6)
    assert float(lesson.entropy.detach()) == pytest.approx(math.log(SECTORS), rel=1e-5)
