"""Fixtures of all tests."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.sphere_mesh import SphereMesh

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Returns the folder of collections and oracles that lie outside the repository."""
    folder = Path(os.environ.get("TMG_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; TMG_SHARED names the folder of shared test data")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """Tests are too small to gain from threads, and often share a machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _close_log_files():
    """Takes away the log handlers that a test's run has left."""
    yield
    root = logging.getLogger()
    for handler in [h for h in root.handlers if (h.get_name() or "").startswith("run_")]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], dict[str, Tensor]]:
    """Returns a reader of the reference arrays by name."""

    def read(name: str) -> dict[str, Tensor]:
        with np.load(shared / "reference" / "golden" / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays}

    return read


@pytest.fixture(scope="session")
def template() -> SphereMesh:
    """Returns the sphere with 31 rings."""
    return SphereMesh()


@pytest.fixture
def random_rotations() -> Tensor:
    """Returns (64, 4) unit quaternions."""
    generator = torch.Generator().manual_seed(3)
    return quaternion.normalize(torch.randn(64, 4, generator=generator, dtype=torch.float64))
