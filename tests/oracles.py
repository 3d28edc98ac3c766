"""Deterministic inputs of the reference arrays."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from geometry.camera import Pose


def wave(function: Callable, factor: float, *shape: int) -> Tensor:
    """Returns function(factor * k) for the flat index k, computed in double precision."""
    index = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy(function(factor * index).reshape(shape).astype(np.float32))


def golden_pose(arrays: dict[str, Tensor]) -> Pose:
    """Returns the cameras of the reference renderings."""
    return Pose(arrays["s"], arrays["t"][:, :2], arrays["q"], arrays["z0"][:, :, 0])
