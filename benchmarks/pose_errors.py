"""What estimated rotations are compared with: true poses, labeled viewing directions, or one view."""

from typing import NamedTuple

import torch
from torch import Tensor

from data import view_labels
from data.detections import Detections
from data.ground_truth import load_ground_truth
from data.view_labels import azimuth_error, load_view_labels
from geometry import quaternion
from geometry.common_frame import Frame, common_frame
from utils.cli import UserError

VIEWS = {"right": 0.0, "towards": 90.0, "left": 180.0, "away": 270.0}  # where the front points
NEAR = 30.0  # degrees of a rotation that counts as right
OTHER_END = (0.0, 0.0, 0.0, 1.0)  # half a turn about the up axis of the object


class Truth(NamedTuple):
    """What is known of the views of N images.

    Attributes:
        known: (N,) bool.
        near: degrees up to which a rotation counts as right.
        rotation: (N, 4) true rotations; None where only azimuths are known.
        azimuth: (N,) degrees, the middles of labeled sectors; None where rotations are known.
        sure: (N,) bool, labels that leave no doubt; None where rotations are known.
    """

    known: Tensor
    near: float
    rotation: Tensor | None = None
    azimuth: Tensor | None = None
    sure: Tensor | None = None

    def errors(self, rotation: Tensor, rows: Tensor) -> Tensor:
        """Returns the errors (K, ...) in degrees of rotations (K, ..., 4) of the rows (K,)."""
        inner = (1,) * (rotation.ndim - 2)
        if self.azimuth is not None:
            return azimuth_error(rotation, self.azimuth[rows].reshape(-1, *inner))
        assert self.rotation is not None, "a truth has rotations or azimuths"
        return quaternion.angle_between(rotation, self.rotation[rows].reshape(-1, *inner, 4))

    def errors_of_either_end(self, rotation: Tensor, rows: Tensor) -> Tensor:
        """Returns the errors (K,) of rotations (K, 4) if front and back count as the same."""
        turned = quaternion.multiply(rotation, rotation.new_tensor(OTHER_END).expand_as(rotation))
        return torch.minimum(self.errors(rotation, rows), self.errors(turned, rows))

    def align(self, rotation: Tensor) -> Frame:
        """Returns the frame in which rotations (N, 4) of the N images agree best with the truth."""
        true = self.rotation
        if true is None:
            assert self.azimuth is not None, "a truth has rotations or azimuths"
            true = quaternion.from_view(self.azimuth, *torch.zeros(2))
        return common_frame(rotation[self.known], true[self.known])


def load_truth(detections: Detections, view: str | None = None) -> Truth:
    """Returns what is known of a collection.

    Args:
        detections: its N images.
        view: one of `VIEWS` that all photographs show, level; None for what the collection's
            ground_truth.npz, or else its views.json, states.

    Raises:
        UserError: if there is nothing to compare with.
    """
    count = len(detections)
    if view is not None:
        level = quaternion.from_view(*torch.tensor([VIEWS[view], 0.0, 0.0]))
        return Truth(torch.ones(count, dtype=torch.bool), NEAR, level.expand(count, 4))
    # Full rotations say more than labeled sectors
    poses = load_ground_truth(detections)
    if poses is not None:
        return Truth(poses.known, NEAR, poses.rotation)
    labels = load_view_labels(detections)
    if labels is not None:
        return Truth(labels.known, view_labels.NEAR, azimuth=labels.azimuth, sure=labels.sure)
    raise UserError(
        f"datasets/{detections.dataset}/ has neither ground_truth.npz nor views.json to compare "
        "with. If all photographs show the same side, name it: --view left"
    )
