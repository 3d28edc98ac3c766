"""Corrections of the poses of single images, learned along with the network.

Stage 2 fits its poses with a rigid template; once the meshes fit better than that, so may the poses.
Every image has seven numbers of its own, which only the steps that show it change: Adam (Kingma & Ba
2015, https://arxiv.org/abs/1412.6980) with separate moments and a separate count of steps per image.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.cache.storage import check_numbers
from geometry import camera, quaternion
from geometry.camera import Pose
from pipeline.reconstruction.dataset import Labels, ReconstructionData
from utils import distributed
from utils.cli import UserError

logger = logging.getLogger(__name__)

KEY = "pose_corrections"  # of the entry in checkpoints and model files
SIZE = 7  # numbers of a correction
MAX_TURN = 30.0  # degrees between a pose and the corrected one: none turns round
_DECAYS = (0.9, 0.999)  # of Adam's moments
_EPSILON = 1e-4  # slopes of an image's loss below it move nothing


def correct(pose: Pose, corrections: Tensor) -> Pose:
    """Applies corrections; zeros change nothing.

    Args:
        pose: members (B, ...).
        corrections: (B, 7) turn in the camera frame, the logarithm of a factor on the scale,
            translation in screen units, and an offset of z0. A turn v is the rotation about v by
            2 atan(|v| / 2) radians, which is smooth everywhere and close to |v|.
    """
    turn, growth, shift, offset = corrections.split((3, 1, 2, 1), dim=-1)
    half = torch.cat([torch.ones_like(growth), turn / 2], dim=-1)
    return Pose(
        scale=pose.scale * growth.exp(),
        translation=pose.translation + shift,
        rotation=quaternion.multiply(quaternion.normalize(half), pose.rotation),
        z0=pose.z0 + offset,
    )


class PoseCorrections:
    """The corrections of all K images of a run, with the state of their optimizer.

    Attributes:
        poses: (K, 8) what is corrected, as pose vectors.
        values: (K, 7) see `correct`; zero at first.
        mean: (K, 7) first moment of the gradients.
        square: (K, 7) second moment.
        steps: (K, 1) updates of each image.
    """

    def __init__(self, pose: Pose) -> None:
        """Begins with zeros, on the device of the poses (K, ...)."""
        self.poses = camera.to_vector(pose)
        self.values, self.mean, self.square = self.poses.new_zeros(3, len(self.poses), SIZE)
        self.steps = self.poses.new_zeros(len(self.poses), 1)

    def select(self, index: Tensor) -> Tensor:
        """Returns the corrections (B, 7) of some images, as a leaf that collects their gradients."""
        return self.values[index].requires_grad_()

    def step(self, index: Tensor, gradient: Tensor, rate: float) -> None:
        """Updates the images of a batch, those of all processes alike.

        Args:
            index: (B,) int64 rows, which may repeat.
            gradient: (B, 7) of the loss of this process, a mean over its batch.
            rate: largest change of a number in a step, in the units of `correct`.
        """
        # Sums over processes; the last column says which images were seen
        own = torch.cat([gradient, torch.ones_like(gradient[:, :1])], dim=1)
        sums = own.new_zeros(len(self.values), SIZE + 1).index_add_(0, index, own)
        sums = distributed.all_reduce_(sums)
        rows = sums[:, -1].nonzero()[:, 0]
        gradient = len(index) * sums[rows, :-1]  # of the image's own loss
        # Adam, whose moments are corrected for the steps of the image, not of the run
        first, second = _DECAYS
        self.steps[rows] += 1
        self.mean[rows] = torch.lerp(gradient, self.mean[rows], first)
        self.square[rows] = torch.lerp(gradient.square(), self.square[rows], second)
        mean = self.mean[rows] / (1 - first ** self.steps[rows])
        square = self.square[rows] / (1 - second ** self.steps[rows])
        values = self.values[rows] - rate * mean / (square.sqrt() + _EPSILON)
        # Turns stay inside their ball
        limit = 2 * math.tan(math.radians(MAX_TURN) / 2)
        length = values[:, :3].norm(dim=1, keepdim=True)
        values[:, :3] *= limit / length.clamp(min=limit)
        self.values[rows] = values

    def apply(self, labels: Labels, index: Tensor) -> Labels:
        """Returns the labels of the images `index` (B,) with corrected poses."""
        return labels._replace(pose=correct(labels.pose, self.values[index.to(self.values.device)]))

    def stored(self) -> dict[str, Tensor]:
        """Returns what a model file holds of them."""
        return {"poses": self.poses, "values": self.values}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what training continues with."""
        return {**self.stored(), "mean": self.mean, "square": self.square, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state.

        Raises:
            ValueError: if it belongs to other poses.
        """
        if not same_poses(state["poses"], self.poses):
            raise ValueError("its pose corrections belong to other poses")
        for name in ("values", "mean", "square", "steps"):
            getattr(self, name).copy_(state[name])


def same_poses(first: Tensor, second: Tensor) -> bool:
    """Returns whether pose vectors (K, 8) are the same ones."""
    return first.shape == second.shape and torch.equal(first.to(second), second)


def apply_stored(path: Path, state: Mapping[str, Any], data: ReconstructionData) -> None:
    """Corrects the poses of the data as a checkpoint or model file has learned to, if it has.

    Other poses than those that it was trained with, as of other photographs, stay as they are.

    Raises:
        UserError: if the file is damaged.
    """
    stored = state.get(KEY)
    if stored is None:
        return
    # One row for each image that the run has learned from
    shapes = {"poses": ("K", camera.VECTOR_SIZE), "values": ("K", SIZE)}
    remedy = "Replace it by an intact copy."
    if not isinstance(stored, dict) or not stored.keys() >= shapes.keys():
        raise UserError(f"{path}: its {KEY} lack {' or '.join(shapes)}. {remedy}")
    check_numbers(path, stored, shapes, remedy)
    if not same_poses(stored["poses"], camera.to_vector(data.labels.pose)):
        logger.info("%s corrects other poses than those of %s, which stay", path, data.dataset)
        return
    corrected = correct(data.labels.pose, stored["values"])
    data.labels = data.labels._replace(pose=corrected)
