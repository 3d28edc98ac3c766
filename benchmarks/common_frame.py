"""The axes of a learned template, which nothing but chance decided, against those of the truth."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion

NEAR = 30.0  # degrees within which turns agree


class Frame(NamedTuple):
    """How the poses of a template are to be read.

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
    for flipped in (False, True):
        seen = quaternion.complementary(estimated) if flipped else estimated
        turns = quaternion.multiply(quaternion.conjugate(seen), true)
        agreeing = quaternion.angle_between(turns[:, None], turns) < NEAR
        votes, best = agreeing.sum(dim=1).max(dim=0)
        shared = turns[agreeing[best]].double()
        mean = torch.linalg.eigh(shared.T @ shared).eigenvectors[:, -1]
        frames.setdefault(int(votes), Frame(mean.to(estimated.dtype), flipped))
    return frames[max(frames)]
