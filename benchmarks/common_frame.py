"""Alignment of the axes of a learned template, which are arbitrary, with those of the truth."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion

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
