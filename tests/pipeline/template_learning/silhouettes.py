"""Silhouettes of a body with a closed form, seen from around."""

import torch
from torch import Tensor

from data.definitions import ViewPrior
from geometry.camera import Pose
from pipeline.poses.candidates import Candidates
from pipeline.template_learning.views import Views
from tests.pipeline.poses import pose_world

PRIOR = ViewPrior(10.0, 10.0, 6.0, 0.0, 0.0)


def seen_from_around(count: int, size: int = 64, seed: int = 0) -> tuple[Tensor, Pose]:
    """Returns masks (count, size, size) of the body, and their true poses."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = (torch.arange(count) + torch.rand(count, generator=generator)) * 360 / count
    elevation = 10 + 10 * torch.randn(count, generator=generator)
    pose = pose_world.poses(azimuth.tolist(), elevation.tolist())
    return pose_world.draw(pose, size)[0], pose


def as_views(pose: Pose) -> Views:
    """Returns views with one mode, whose score is perfect."""
    one = torch.ones(len(pose.scale), 1)
    known = Pose(*(member[:, None] for member in pose))
    return Views(Candidates(known, torch.zeros_like(one).long()), one, one, 0 * one, one[:, 0])
