"""Reference arrays and small poses for the tests of rendering."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rendering import quaternion
from rendering.camera import Pose
from rendering.mesh_template import MeshTemplate


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], dict[str, Tensor]]:
    """Returns a reader of the reference arrays by name."""

    def read(name: str) -> dict[str, Tensor]:
        with np.load(shared / "reference" / "golden" / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays}

    return read


@pytest.fixture(scope="session")
def template() -> MeshTemplate:
    """Returns the sphere with 31 rings."""
    return MeshTemplate()


@pytest.fixture
def random_rotations() -> Tensor:
    """Returns (64, 4) unit quaternions."""
    generator = torch.Generator().manual_seed(3)
    return quaternion.normalize(torch.randn(64, 4, generator=generator, dtype=torch.float64))


def wave(function: Callable, factor: float, *shape: int) -> Tensor:
    """Returns function(factor * k) for the flat index k, computed in double precision."""
    index = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy(function(factor * index).reshape(shape).astype(np.float32))


def golden_pose(arrays: dict[str, Tensor]) -> Pose:
    """Returns the cameras of the reference renderings."""
    return Pose(arrays["s"], arrays["t"][:, :2], arrays["q"], arrays["z0"][:, :, 0])
