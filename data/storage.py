"""Plain tensors and plain arrays on disk: written atomically, never pickled, stamped where rows matter."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from utils import checkpoint
from utils.cli import UserError
from utils.files import atomic_path, require_file


def save_tensors(path: Path, content: dict[str, Any], fingerprint: str) -> Path:
    """Writes tensors and plain values, stamped with the fingerprint of the detections they refer to."""
    plain = {
        key: value.detach().cpu().contiguous() if isinstance(value, Tensor) else value
        for key, value in content.items()
    }
    checkpoint.save(path, plain | {"fingerprint": fingerprint})
    return path


def load_tensors(
    path: Path, names: Sequence[str], fingerprint: str, command: str
) -> dict[str, Any]:
    """Reads what `save_tensors` wrote.

    Raises:
        UserError: if the file is missing, damaged, or refers to other detections; names the command
            that makes it.
    """
    content = checkpoint.load(path, remedy=f"Create it with: {command}")
    if not {*names, "fingerprint"} <= content.keys():
        raise UserError(f"{path}: expected the entries {', '.join(names)}. Make it with: {command}")
    if content["fingerprint"] != fingerprint:
        raise UserError(
            f"{path} was made from other detections than the present detections.json, so its rows "
            f"mean other images. Make it again with: {command}"
        )
    return {name: content[name] for name in names}


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes an uncompressed .npz file."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type] - names are given at run time
    return path


def load_arrays(path: Path, names: Sequence[str], remedy: str) -> dict[str, np.ndarray]:
    """Reads the named members of an .npz file and no others; pickled members are refused.

    Raises:
        UserError: if the file is missing, damaged, or lacks a member; ends with `remedy`.
    """
    require_file(path, remedy)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}). {remedy}") from error
