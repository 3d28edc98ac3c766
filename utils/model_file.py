"""A model in one file: `model.pth` in the folder of a run, all that is needed to use the model.

It holds weights, options, what inputs and outputs stand for, and where the model comes from; no state
of the training, and nothing that lies in cache/ or datasets/ is needed beside it. Complete
checkpoints have the same entries beside their own. Published checkpoints have weights and options.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils import checkpoint
from utils.cli import UserError
from utils.run_directory import RunDirectory, environment

NAME = "model.pth"
PRETRAINED = "pretrained_"  # begins the names of runs that one can also copy
FORMAT = 1  # grows when files can no longer be read as before


def header(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries that every model has: format, options of the run, commit and versions."""
    return {"format": FORMAT, "args": dict(options), "environment": environment()}


def resolve(folder: str | Path, which: str, remedy: str) -> Path:
    """Returns the file that --which_epoch names: "latest" or the step of a complete checkpoint.

    "latest" is model.pth; in folders without, such as published ones, the newest checkpoint.

    Raises:
        UserError: if there is no such file.
    """
    # A run that was trained with this version has the file
    path = Path(folder) / NAME
    if which != "latest":
        return checkpoint.resolve(folder, which, remedy)
    if path.exists():
        return path
    if path.parent.name.startswith(PRETRAINED):
        source = f"{path.parent.parent}/ of the repository or an archive that SETUP.md names"
        remedy = f"Copy it there from {source}. {remedy}"
    checkpoint.resolve(folder, which, remedy)  # an error where there is none
    newest = RunDirectory(folder).newest_checkpoint()
    assert newest is not None
    return newest[0]


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a model file or a checkpoint; nothing in it is executed. Half precision becomes single.

    Raises:
        UserError: if it is missing, damaged, or of a later format.
    """
    state = checkpoint.load(path, device)
    # Files without a format are published ones, or earlier ones of ours
    version = state.get("format", FORMAT)
    if not isinstance(version, int) or version > FORMAT:
        raise UserError(
            f"{path} has format {version}, this version of the program reads {FORMAT}. Update it."
        )
    return single(state)


def single(value: Any) -> Any:
    """Returns nested values with tensors of half precision, those of shipped files, in single."""
    if isinstance(value, Mapping):
        return {key: single(member) for key, member in value.items()}
    halved = isinstance(value, Tensor) and value.dtype == torch.float16
    return value.float() if halved else value


def step_of(path: Path, state: Mapping[str, Any]) -> int | None:
    """Returns the number of steps that a model was trained for; None if unknown."""
    step = state.get("iteration")
    if step is not None and (not isinstance(step, int) or step < 0):
        raise UserError(f"{path} is damaged: it was saved after {step!r} steps.")
    return step
