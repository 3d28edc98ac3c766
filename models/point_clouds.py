"""From an image to a cloud of points, to several candidates for its pose, and to the student's pose.

`PointCloudNetwork` is that of Insafutdinov and Dosovitskiy 2018, "Unsupervised Learning of Shape and Pose with
Differentiable Point Clouds", which the experiments of Zubic and Lio 2021 on ShapeNet follow.
`UprightNetwork` knows that cameras stand upright, and that objects are their own mirror images.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geometry import quaternion

CHANNELS, CODE, POSE_FEATURES = 16, 1024, 128  # at width 1
SMALLEST = 4  # side of the last feature maps
MOST_CHANNELS, GROUPS, FEATURES = 128, 4, 256  # of an upright network at width 1
SECTORS = 24  # of the azimuth, each with a pose
MIDDLE, REACH = 10.0, 30.0  # degrees of elevation: at first, and per unit of what a head says
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

    def forward(self, image: Tensor) -> tuple[Cloud, Tensor]:
        """Returns the points in images and the student's rotations (B, 4)."""
        code = self.encode(image)
        return self.decode(code), self.estimate_pose(code)


class UprightNetwork(nn.Module):
    """Encoder, decoder of a cloud and its mirror image, and a student with a pose for each azimuth.

    Args:
        image_size: of the inputs, a multiple of 4 by a power of 2.
        num_points: N, an even number; the second half are the mirror images of the first.
        width: factor on the numbers of channels.
    """

    def __init__(self, image_size: int, num_points: int, width: float = 1.0) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*_normalized_convolutions(image_size, width))
        code, features = (max(4, round(size * width)) for size in (CODE, FEATURES))
        area = _channels(MOST_CHANNELS, width) * SMALLEST**2
        self.shape_code, self.pose_code = _layers(area, code, code), _layers(area, features)
        self.points, self.scale = nn.Linear(code, num_points // 2 * 3), nn.Linear(code, 1)
        self.student = nn.Linear(features, SECTORS * 3)
        _spread(self.points)

    @torch.no_grad()
    def start_from(self, points: Tensor) -> None:
        """Lets all objects begin as points (P, 3) and their mirror images; those that lack are copies."""
        bias = self.points.bias.view(-1, 3)
        copies = points[torch.arange(len(bias), device=points.device) % len(points)]
        bias.copy_((2 * copies.to(bias)).clamp(-0.99, 0.99).atanh())

    def encode(self, image: Tensor) -> Code:
        """Encodes images (B, 4, h, h): colors in [-1, 1] times the mask, then the mask."""
        features = self.convolutions(image).flatten(1)
        return Code(self.shape_code(features), self.pose_code(features))

    def decode(self, code: Code) -> Cloud:
        """Returns the points behind codes, then their mirror images."""
        points = self.points(code.shape).unflatten(1, (-1, 3)).tanh() / 2
        return Cloud(with_mirror_images(points), self.scale(code.shape)[:, 0].sigmoid())

    def poses(self, code: Code) -> tuple[Tensor, Tensor]:
        """Returns the logits (B, SECTORS) of the azimuths, and the rotation of each (B, SECTORS, 4)."""
        logits, turn, tilt = self.student(code.pose).unflatten(1, (SECTORS, 3)).unbind(2)
        width = 360 / SECTORS
        azimuth = (torch.arange(SECTORS, device=turn.device) + turn) * width
        elevation = MIDDLE + REACH * tilt
        return logits, quaternion.from_view(azimuth, elevation, torch.zeros_like(tilt))

    def estimate_pose(self, code: Code, mirrored: Code) -> Tensor:
        """Returns the likeliest rotations (B, 4), given the codes of images and of their mirror images.

        What is said of both is averaged, so that a mirrored image gets the mirrored pose.
        """
        logits, rotation = self.poses(code)
        others, flipped = self.poses(mirrored)
        order = mirrored_sectors(logits.device)
        best = (logits + others[:, order]).argmax(dim=1)
        rows = torch.arange(len(best))
        first, second = rotation[rows, best], quaternion.mirror(flipped[rows, order[best]])
        # Opposite quaternions are the same rotation
        sign = (first * second).sum(-1, keepdim=True).sign()
        return quaternion.normalize(first + sign * second)

    def forward(self, image: Tensor) -> tuple[Cloud, Tensor]:
        """Returns the points in images and the student's rotations (B, 4)."""
        code = self.encode(image)
        return self.decode(code), self.estimate_pose(code, self.encode(image.flip(-1)))


def mirrored_sectors(device: torch.device) -> Tensor:
    """Returns the sector (SECTORS,) that the mirror image of each shows: azimuth a becomes 180 - a."""
    return (SECTORS // 2 - torch.arange(SECTORS, device=device)) % SECTORS


def with_mirror_images(points: Tensor) -> Tensor:
    """Returns points (..., P, 3), then their mirror images in x = 0: (..., 2 P, 3)."""
    return torch.cat([points, points * points.new_tensor([-1.0, 1.0, 1.0])], dim=-2)


def _channels(number: int, width: float) -> int:
    """Returns a number of channels that the groups divide."""
    return GROUPS * max(1, round(number * width / GROUPS))


def _normalized_convolutions(image_size: int, width: float) -> list[nn.Module]:
    """Returns convolutions with twice the channels after each halving; ValueError as `_convolutions`."""
    layers: list[nn.Module] = []
    before, halvings = 4, _halvings(image_size)
    for left in reversed(range(halvings)):
        after = _channels(MOST_CHANNELS >> min(left, 3), width)
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(GROUPS, after)]
        layers.append(nn.ReLU())
        before = after
    return layers


def _halvings(image_size: int) -> int:
    """Returns how often an image is halved until its side is SMALLEST; ValueError if it cannot be."""
    halvings = math.log2(image_size / SMALLEST)
    if halvings < 1 or halvings % 1:
        raise ValueError(f"image_size: expected 4 times a power of 2, got {image_size}.")
    return int(halvings)


def _convolutions(image_size: int, channels: int) -> nn.Sequential:
    """Returns convolutions that halve an image until its side is SMALLEST; ValueError if they cannot."""
    halvings = _halvings(image_size)
    layers: list[nn.Module] = [nn.Conv2d(4, channels, 5, 2, 2), nn.ReLU()]
    # Between two halvings a convolution that keeps the size
    for _ in range(halvings - 1):
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
