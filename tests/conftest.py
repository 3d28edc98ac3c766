"""Fixtures of all tests."""

import logging
import os
from pathlib import Path

import pytest
import torch

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
