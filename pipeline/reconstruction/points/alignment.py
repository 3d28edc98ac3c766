"""The rotation between the frame of estimated points, which nothing determines, and that of the true shapes."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from geometry import quaternion

NEAR = 30.0  # degrees
_ROUNDS = 10


class Accuracy(NamedTuple):
    """How near rotations are to the true ones.

    Attributes:
        share: of the rotations, less than 30 degrees away.
        median: degrees.
    """

    share: float
    median: float


def common_rotation(estimated: Tensor, true: Tensor, upright: bool = False) -> Tensor:
    """Returns the rotation A (4,) under which most estimates are within 30 degrees of true * A.

    Of equally good ones, that with the smallest mean angle of those; then refined to their mean.

    Args:
        estimated: (N, 4) rotations from the points to the camera frame.
        true: (N, 4) from the true shapes to the camera frame.
        upright: whether both frames have the same vertical z, so that A turns about it.
    """
    estimated, true = estimated.double(), true.double()
    axes = estimated.new_tensor([1.0, 0.0, 0.0, 1.0] if upright else [1.0, 1.0, 1.0, 1.0])
    proposals = quaternion.multiply(quaternion.conjugate(true), estimated)
    # The nearest turns about the vertical lack the other two axes
    proposals = quaternion.normalize(proposals * axes)
    # Every image proposes the rotation that is right for itself
    degrees = quaternion.angle_between(
        estimated[None], quaternion.multiply(true[None], proposals[:, None])
    )
    near = degrees < NEAR
    mean = (degrees * near).sum(1) / near.sum(1).clamp(min=1)
    best = proposals[(near.sum(1) - mean / 180).argmax()]
    # The mean of the proposals near it, as long as that brings it nearer to more
    for _ in range(_ROUNDS):
        inliers = proposals[quaternion.angle_between(proposals, best) < NEAR]
        refined = quaternion.normalize((inliers * (inliers @ best).sign()[:, None]).sum(0))
        if accuracy(estimated, true, refined).share < accuracy(estimated, true, best).share:
            break
        best = refined
    return best


def accuracy(estimated: Tensor, true: Tensor, common: Tensor) -> Accuracy:
    """Compares estimated rotations (N, 4) with true ones (N, 4) turned by a common rotation (4,)."""
    turned = quaternion.multiply(true.double(), common.double())
    degrees = quaternion.angle_between(estimated.double(), turned)
    return Accuracy(float((degrees < NEAR).double().mean()), float(degrees.quantile(0.5)))


def chamfer(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the symmetric mean distance of two clouds (N, 3) and (M, 3), in percent of a unit."""
    there, back = KDTree(second).query(first)[0], KDTree(first).query(second)[0]
    return float(100 * (there.mean() + back.mean()) / 2)


def medoid(clouds: list[np.ndarray], points: int = 500) -> int:
    """Returns the number of the cloud that is nearest to all others, judged by their first points."""
    few = [cloud[:points] for cloud in clouds]
    table = torch.zeros(len(few), len(few))
    for i, first in enumerate(few):
        for j in range(i):
            table[i, j] = table[j, i] = chamfer(first, few[j])
    return int(table.sum(1).argmin())
