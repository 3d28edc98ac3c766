"""Corrections of the poses of single images, learned along with the network.

Stage 2 fits its poses with a rigid template; once the meshes fit better than that, so may the poses.
Every image has seven numbers of its own, which only the steps that show it change: Adam (Kingma & Ba
2015, https://arxiv.org/abs/1412.6980) with separate moments and a separate count of steps per image.
Some of them may be held: offsets of translation and scale, or z0, are learned alone as in convmesh
(Pavllo et al. 2020, https://arxiv.org/abs/2006.07660), whose unseen images get the mean.
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
from pipeline.reconstruction.config import OptimizerOptions, ReconstructionConfig
from pipeline.reconstruction.dataset import Labels, ReconstructionData
from utils import distributed
from utils.cli import UserError

logger = logging.getLogger(__name__)

KEY = "pose_corrections"  # of the entry in checkpoints and model files
SIZE = 7  # numbers of a correction
USUAL_RATE = 1e-4  # of offsets and z0, as published
START_Z0 = 1.0  # of annotated cameras, which have no perspective, where z0 is learned
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


def free_numbers(options: OptimizerOptions) -> Tensor:
    """Returns which numbers (7,) of `correct` are learned: all, or those that options name."""
    if not (options.optimize_deltas or options.optimize_z0):
        return torch.ones(SIZE, dtype=torch.bool)
    deltas, z0 = options.optimize_deltas, options.optimize_z0
    return torch.tensor([False] * 3 + [deltas] * 3 + [z0])


def correction_rate(options: OptimizerOptions) -> float:
    """Returns the learning rate of corrections in the beginning; 0 without corrections."""
    named = options.optimize_deltas or options.optimize_z0
    return options.pose_rate or (USUAL_RATE if named else 0.0)


class PoseCorrections:
    """The corrections of all K images of a run, with the state of their optimizer.

    Attributes:
        free: (7,) bool, which numbers are learned.
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
        self.free = torch.ones(SIZE, dtype=torch.bool, device=self.poses.device)

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
        values = self.values[rows] - self.free * rate * mean / (square.sqrt() + _EPSILON)
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
        return {"poses": self.poses, "values": self.values, "free": self.free}

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


def make_corrections(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device, found: Any
) -> PoseCorrections | None:
    """Returns corrections that have learned nothing; None if neither options nor a checkpoint have any.

    Args:
        config: options of the run.
        data: whose poses are corrected.
        device: of the corrections.
        found: their entry in the checkpoint that the run continues from; None without.
    """
    options = config.optimizer
    rate = correction_rate(options)
    if not rate and found is None:
        return None
    corrections = PoseCorrections(data.labels.to(device).pose)
    # Without a rate they stay as they are, and so does what is known of them
    known = found.get("free") if isinstance(found, dict) and not rate else None
    corrections.free = (free_numbers(options) if known is None else known).to(device)
    if options.optimize_z0 and config.model.pose_source == "sfm":
        corrections.values[:, -1:] = START_Z0 - data.labels.pose.z0.to(device)
    return corrections


def same_poses(first: Tensor, second: Tensor) -> bool:
    """Returns whether pose vectors (K, 8) are the same ones."""
    return first.shape == second.shape and torch.equal(first.to(second), second)


def apply_stored(path: Path, state: Mapping[str, Any], data: ReconstructionData) -> None:
    """Corrects the poses of the data as a checkpoint or model file has learned to, if it has.

    Other poses than those that it was trained with, as of other photographs, get the mean correction
    if no rotations were learned; else all poses stay as they are.

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
    known, poses = stored["poses"], camera.to_vector(data.labels.pose)
    values = stored["values"]
    if not same_poses(known, poses):
        # Files from before there was a choice have learned all numbers
        if bool(torch.as_tensor(stored.get("free", True)).all()):
            logger.info("%s corrects other poses than those of %s, which stay", path, data.dataset)
            return
        rows = rows_of(known, poses)
        count = int((rows < 0).sum())
        logger.info("%d poses of %s get the mean correction of %s", count, data.dataset, path)
        values = torch.cat([values, values.mean(0, keepdim=True)])[rows]
    data.labels = data.labels._replace(pose=correct(data.labels.pose, values))


def rows_of(known: Tensor, poses: Tensor) -> Tensor:
    """Returns the row (N,) of each pose vector (N, 8) among known ones (K, 8), -1 where it is none of them."""
    row_of = {tuple(pose): row for row, pose in enumerate(known.tolist())}
    return torch.tensor([row_of.get(tuple(pose), -1) for pose in poses.tolist()])
