"""Reads structure arrays of MATLAB files in a separate process.

scipy's reader trusts its input: damaged files have crashed it or made it request all memory. Here a crash
is an ordinary error, and memory is limited.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from utils.cli import UserError
from utils.files import require_file

MAX_MEMORY = 16 * 2**30  # bytes, of the reading process; the annotations of CUB take two gigabytes


def read_structures(
    path: Path, variable: str, fields: Sequence[str], remedy: str
) -> list[dict[str, np.ndarray]]:
    """Reads some fields of every element of a structure array.

    Args:
        path: .mat file of version 5.
        variable: name of the structure array.
        fields: names of the fields, which hold numbers or text.
        remedy: last sentence of the errors.

    Raises:
        UserError: if the file is missing or damaged, or lacks the variable or a field.
    """
    require_file(path, remedy)
    arrays = _in_other_process(str(path), str(path), variable, *fields, remedy=remedy)
    return [{name: arrays[f"{name} {i}"] for name in fields} for i in range(int(arrays["count"]))]


def read_arrays(paths: Sequence[Path], variable: str, remedy: str) -> list[np.ndarray]:
    """Reads an array of numbers of many files, all of them in one other process.

    Args:
        paths: .mat files of version 5.
        variable: name of the array.
        remedy: last sentence of the errors.

    Raises:
        UserError: if a file is damaged, or lacks the variable.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", prefix="matlab_") as file:
        file.write("\n".join(str(path.resolve()) for path in paths))
        file.flush()
        where = f"{paths[0]} and {len(paths) - 1} others"
        arrays = _in_other_process(where, file.name, variable, remedy=remedy)
    return [arrays[str(i)] for i in range(len(paths))]


def _in_other_process(
    where: str, source: str, variable: str, *fields: str, remedy: str
) -> dict[str, np.ndarray]:
    """Returns the arrays that `_main` leaves; UserError about `where` if it fails."""
    with tempfile.TemporaryDirectory(prefix="matlab_") as folder:
        # The other process leaves plain arrays, which are safe to read
        plain = Path(folder) / "fields.npz"
        command = [sys.executable, "-m", __name__, source, str(plain), variable, *fields]
        root = Path(__file__).parents[__name__.count(".")]  # from which this module is imported
        environment = os.environ | {"PYTHONPATH": str(root)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200]
            raise UserError(f"{where}: cannot be read ({reason}). {remedy}")
        with np.load(plain, allow_pickle=False) as arrays:
            return dict(arrays)


def _main(source: str, target: str, variable: str, *fields: str) -> None:
    """Writes the fields of the elements, or the variable of all listed files, as arrays; runs there."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    # Only numbers and text leave this process
    if not fields:
        _list(source, target, variable)
        return
    content = loadmat(source, struct_as_record=False, squeeze_me=True, variable_names=[variable])
    rows = np.atleast_1d(content[variable])
    arrays = {f"{f} {i}": np.asarray(getattr(row, f)) for i, row in enumerate(rows) for f in fields}
    _save(target, {"count": np.asarray(len(rows)), **arrays})


def _list(source: str, target: str, variable: str) -> None:
    arrays = {}
    for number, path in enumerate(Path(source).read_text().splitlines()):
        try:
            arrays[str(number)] = np.asarray(loadmat(path, variable_names=[variable])[variable])
        except Exception as error:  # scipy raises errors of any type for damaged files
            raise ValueError(f"{path}: {error}") from error
    _save(target, arrays)


def _save(target: str, arrays: dict[str, np.ndarray]) -> None:
    if any(array.dtype.kind not in "biufU" for array in arrays.values()):
        raise ValueError("fields of structures or cells")
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    _main(*sys.argv[1:])
