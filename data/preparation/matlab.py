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
    with tempfile.TemporaryDirectory(prefix="matlab_") as folder:
        # The other process leaves plain arrays, which are safe to read
        plain = Path(folder) / "fields.npz"
        command = [
            sys.executable,
            "-m",
            "data.preparation.matlab",
            str(path),
            str(plain),
            variable,
            *fields,
        ]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200]
            raise UserError(f"{path}: cannot be read ({reason}). {remedy}")
        with np.load(plain, allow_pickle=False) as arrays:
            count = int(arrays["count"])
            return [{name: arrays[f"{name} {i}"] for name in fields} for i in range(count)]


def _main(source: str, target: str, variable: str, *fields: str) -> None:
    """Writes the fields of the elements as arrays; runs in the other process."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    # Only numbers and text leave this process
    content = loadmat(source, struct_as_record=False, squeeze_me=True, variable_names=[variable])
    rows = np.atleast_1d(content[variable])
    arrays = {f"{f} {i}": np.asarray(getattr(row, f)) for i, row in enumerate(rows) for f in fields}
    if any(array.dtype.kind not in "biufU" for array in arrays.values()):
        raise ValueError("fields of structures or cells")
    np.savez_compressed(target, count=np.asarray(len(rows)), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    _main(*sys.argv[1:])
