"""From an image to a cloud of points, to several candidates for its pose, and to the student's pose.

Insafutdinov and Dosovitskiy 2018, "Unsupervised Learning of Shape and Pose with Differentiable Point
Clouds", which the experiments of Zubic and Lio 2021 on ShapeNet follow.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geometry import quaternion

CHANNELS, CODE, POSE_FEATURES = 16, 1024, 128  # at width 1
SMALLEST = 4  # side of the last feature maps
START_RADIUS = 0.15  # standard deviation of the first points


class Code(NamedTuple):
    """What is known of B images: `shape` (B, C) for points, `pose` (B, C) for rotations."""

    shape: Tensor
    pose: Tensor


class Cloud(NamedTuple):
    """Points (B, N, 3) in (-1/2, 1/2)^3, and how full cells become that they fill (B,), in (0, 1)."""

    points: Tensor
    scale: Tensor


class PointCloudNetwork(nn.Module):
    """Encoder, decoder of points, and heads for rotations.

    Args:
        image_size: of the inputs, a multiple of 4 by a power of 2.
        num_points: N.
        num_candidates: K, heads that propose a rotation each.
        width: factor on the numbers of channels; 1 is the paper's size.
    """

    starts: Tensor

    def __init__(
        self, image_size: int, num_points: int, num_candidates: int, width: float = 1.0
    ) -> None:
        super().__init__()
        channels, code, features = (
            max(4, round(size * width)) for size in (CHANNELS, CODE, POSE_FEATURES)
        )
        self.convolutions = _convolutions(image_size, channels)
        area = channels * SMALLEST**2
        self.shape_code, self.pose_code = (_layers(area, code, code) for _ in range(2))
        self.points, self.scale = nn.Linear(code, num_points * 3), nn.Linear(code, 1)
        self.ensemble = _layers(code, features)
        self.candidates = nn.ModuleList(_head(features) for _ in range(num_candidates))
        self.student = nn.Sequential(_layers(code, features), _head(features))
        _spread(self.points)
        # Candidates begin level, evenly around the object, so that they stand for different sides
        azimuth = (torch.arange(num_candidates) + 0.5) * (360 / num_candidates)
        level = torch.zeros(num_candidates)
        views = quaternion.from_view(azimuth, level, level)
        self.register_buffer("starts", views, persistent=False)

    def encode(self, image: Tensor) -> Code:
        """Encodes images (B, 4, h, h): colors in [-1, 1] times the mask, then the mask."""
        features = self.convolutions(image).flatten(1)
        return Code(self.shape_code(features), self.pose_code(features))

    def decode(self, code: Code) -> Cloud:
        """Returns the points behind codes."""
        points = self.points(code.shape).unflatten(1, (-1, 3))
        return Cloud(points.tanh() / 2, self.scale(code.shape)[:, 0].sigmoid())

    def propose(self, code: Code) -> Tensor:
        """Returns the candidates (B, K, 4), unit quaternions from the points to the camera frame."""
        features = self.ensemble(code.pose)
        offsets = torch.stack([head(features) for head in self.candidates], dim=1)
        return quaternion.normalize(self.starts + offsets)

    def estimate_pose(self, code: Code) -> Tensor:
        """Returns the student's rotations (B, 4)."""
        return quaternion.normalize(self.student(code.pose))


def _convolutions(image_size: int, channels: int) -> nn.Sequential:
    """Returns convolutions that halve an image until its side is SMALLEST; ValueError if they cannot."""
    halvings = math.log2(image_size / SMALLEST)
    if halvings < 1 or halvings % 1:
        raise ValueError(f"image_size: expected 4 times a power of 2, got {image_size}.")
    layers: list[nn.Module] = [nn.Conv2d(4, channels, 5, 2, 2), nn.ReLU()]
    # Between two halvings a convolution that keeps the size
    for _ in range(int(halvings) - 1):
        layers += [nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU()]
        layers += [nn.Conv2d(channels, channels, 3, 2, 1), nn.ReLU()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(*layers)


def _layers(*sizes: int) -> nn.Sequential:
    """Returns linear layers of these sizes, each followed by a ReLU."""
    pairs = itertools.pairwise(sizes)
    return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))


def _head(features: int) -> nn.Sequential:
    return nn.Sequential(_layers(features, features, features), nn.Linear(features, 4))


@torch.no_grad()
def _spread(layer: nn.Linear) -> None:
    """Lets a layer begin with a round cloud that hardly depends on the code."""
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=0.1 / math.sqrt(layer.in_features))
    ball = torch.randn(layer.bias.shape) * START_RADIUS
    layer.bias.copy_((2 * ball.clamp(-0.45, 0.45)).atanh())
