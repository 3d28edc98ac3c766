"""Trained runs: what they leave behind, compared, and their sudden end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.run_directory import RunDirectory

# Marks of a file of tests
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def assert_equal(first: object, second: object) -> None:
    """Compares nested dictionaries and sequences, tensors bit by bit."""
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first, second)
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    else:
        assert first == second


def left_behind(folder: Path) -> tuple[list[dict], dict[str, bytes], list[str]]:
    """Returns records without times, pictures and the names of checkpoints."""
    records = RunDirectory(folder).records()
    for record in records:
        record.pop("seconds_per_step", None)
    pictures = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    return records, pictures, sorted(path.name for path in folder.glob("*.pth"))


def assert_alike(first: Path, second: Path, tolerance: float) -> None:
    """Compares the recorded losses of two runs, relative to the first's, or to 1 where that is larger."""
    ours, theirs = left_behind(first)[0], left_behind(second)[0]
    assert ours
    for one, other in zip(ours, theirs, strict=True):
        assert other == pytest.approx(one, rel=tolerance, abs=tolerance)


def die_at(
    death: int, update: type, run: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trains as far as a step, in which the program ends without notice.

    Args:
        death: the step.
        update: class whose calls are steps.
        run: trains.
        monkeypatch: of the test.
    """
    call: Callable[..., Any] = update.__call__

    def killed(self: object, step: int, batch: object) -> Any:
        if step == death:
            raise SystemExit
        return call(self, step, batch)

    with monkeypatch.context() as patch:
        patch.setattr(update, "__call__", killed)
        with pytest.raises(SystemExit):
            run()
