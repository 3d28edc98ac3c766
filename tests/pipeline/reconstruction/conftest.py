"""The fixture of most tests of this stage."""

from pathlib import Path

import pytest
import torch

from tests.pipeline.reconstruction.toy import make_dataset


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a prepared dataset of five birds, four of them with a pose."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    make_dataset("toy", "bird", ("beak", "tail"))
    return tmp_path


def refuse(*args: object, **options: object) -> None:
    raise OSError("no network in tests")
