"""Where cameras stand upright and objects are their own mirror images (--camera_prior upright): known views.

What all objects have in common says how well each sector k of the azimuth explains a view, which leaves half turns
open where silhouettes hardly tell front from rear. The student learns what is left open from all views:

    p_k ~ exp(-e_k / T),    L = 1/2 sum of squared errors + student_weight * (1 - <q, q'>^2) - sum_k p_k log p'_k,

where p' and q' are the student's, and q is the rotation of the likeliest sector.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geometry import quaternion
from models.point_clouds import SECTORS, Code, UprightNetwork, mirrored_sectors
from pipeline.reconstruction.points import common_shape
from pipeline.reconstruction.points.dataset import PointData
from rendering.projection.losses import shrink

TEMPERATURE = 1.0  # T, in pixels


class Poses(nn.Module):
    """How well each sector explains each of M views; belongs to a checkpoint.

    Attributes:
        error: (M, SECTORS) half the squared errors of the best pose of each.
        rotation: (M, SECTORS, 4) that pose.
    """

    error: Tensor
    rotation: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("error", torch.zeros(count, SECTORS))
        self.register_buffer("rotation", torch.zeros(count, SECTORS, 4))

    def forward(self, row: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Returns errors and rotations (..., SECTORS) of views (...), of their mirror images where `mirrored`."""
        order = mirrored_sectors(self.error.device)
        error, rotation = self.error[row], self.rotation[row]
        flipped = quaternion.mirror(rotation[..., order, :])
        return (
            torch.where(mirrored[..., None], error[..., order], error),
            torch.where(mirrored[..., None, None], flipped, rotation),
        )

    def initialize(self, network: UprightNetwork, data: PointData, seed: int) -> None:
        """Finds what all objects have in common, from which the points of the network begin."""
        masks = data.images[:, 3].to(self.error.device).float() / 255
        found = common_shape.find(shrink(masks, common_shape.FINE.grid), seed)
        self.error.copy_(found.error)
        self.rotation.copy_(found.rotation)
        network.start_from(found.points)


class Lesson(NamedTuple):
    """What the student is taught about B views.

    Attributes:
        rotation: (B, 4) the poses of the likeliest sectors.
        distance: (B,) 1 - <q, q'>^2 of these and what the student says of the sectors.
        entropy: (B,) cross entropies of the sectors.
    """

    rotation: Tensor
    distance: Tensor
    entropy: Tensor


def teach(network: UprightNetwork, code: Code, error: Tensor, rotation: Tensor) -> Lesson:
    """Compares the student with errors (B, SECTORS) and rotations (B, SECTORS, 4) of views."""
    logits, said = network.poses(code)
    target = (-error / TEMPERATURE).softmax(dim=1)
    rows, likeliest = torch.arange(len(error)), error.argmin(dim=1)
    chosen = rotation[rows, likeliest]
    distance = quaternion.squared_distance(said[rows, likeliest], chosen)
    return Lesson(chosen, distance, F.cross_entropy(logits, target, reduction="none"))
