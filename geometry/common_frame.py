"""Alignment of the object space of a template, which is arbitrary where it is learned, with the true one."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose

NEAR = 30.0  # degrees within which turns agree


class Frame(NamedTuple):
    """The object space of a template relative to the true one.

    Attributes:
        turn: (4,) rotation from the true object space to that of the template.
        reversed: whether all depths are reversed, which the silhouettes do not show.
    """

    turn: Tensor
    reversed: bool

    def apply(self, rotation: Tensor) -> Tensor:
        """Returns rotations (..., 4) of the template as rotations of the true object."""
        seen = quaternion.complementary(rotation) if self.reversed else rotation
        return quaternion.multiply(seen, self.turn.expand_as(seen))


def common_frame(estimated: Tensor, true: Tensor) -> Frame:
    """Returns the frame in which most rotations agree with the true ones.

    Each image proposes the turn that makes its own rotation right; the proposal that most images share
    is averaged over these (largest eigenvector of the sum of q q^T).

    Args:
        estimated: (N, 4) unit quaternions.
        true: (N, 4) unit quaternions.
    """
    frames: dict[int, Frame] = {}
    # Silhouettes do not show the sign of the depth, so that both are tried
    for flipped in (False, True):
        seen = quaternion.complementary(estimated) if flipped else estimated
        # The turn that would make each image right, and how many others agree with it
        turns = quaternion.multiply(quaternion.conjugate(seen), true)
        agreeing = quaternion.angle_between(turns[:, None], turns) < NEAR
        votes, best = agreeing.sum(dim=1).max(dim=0)
        # The mean of unit quaternions of arbitrary sign
        shared = turns[agreeing[best]].double()
        mean = torch.linalg.eigh(shared.T @ shared).eigenvectors[:, -1]
        frames.setdefault(int(votes), Frame(mean.to(estimated.dtype), flipped))
    return frames[max(frames)]


class Similarity(NamedTuple):
    """A map from the object space of a template to the true one.

    Attributes:
        frame: the axes.
        scale: () true units per unit of the template.
        offset: (3,) where the origin of the template lies, true units.
    """

    frame: Frame
    scale: Tensor
    offset: Tensor

    def apply(self, vertices: Tensor) -> Tensor:
        """Moves vertices (..., V, 3) of a mesh that is symmetric about x = 0.

        A frame of reversed depths mirrors the mesh as well, which such a mesh does not show.
        """
        back = quaternion.conjugate(self.frame.turn)
        return self.scale * quaternion.rotate(back, vertices) + self.offset


def common_similarity(
    pose: Pose, rotation: Tensor, scale: Tensor, translation: Tensor
) -> Similarity:
    """Returns the map with which most estimated poses agree with the true ones.

    Scale and offset are those of the images whose rotations agree: the median of the ratios of both
    scales, and the least-squares solution of s R o = t_estimated - t_true in the plane of the image.

    Args:
        pose: N estimated poses.
        rotation: (N, 4) true unit quaternions.
        scale: (N, 1) true scales, screen units per true unit.
        translation: (N, 2) true translations in screen units, x right and y down.
    """
    frame = common_frame(pose.rotation, rotation)
    near = quaternion.angle_between(frame.apply(pose.rotation), rotation) < NEAR
    # The origin moves by its offset as each image shows it
    rows = (scale[near, None] * quaternion.to_matrix(rotation[near]))[:, :2].flatten(0, 1)
    shift = (pose.translation - translation)[near].flatten()
    offset = torch.linalg.lstsq(rows.double(), shift.double()[:, None]).solution[:, 0]
    return Similarity(frame, (pose.scale / scale)[near].median(), offset.to(pose.translation.dtype))
