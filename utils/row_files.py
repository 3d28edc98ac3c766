"""Tables on disk whose rows are computed one by one, so that a computation can be interrupted.

A table is a folder with one file per column. Each row is followed by its checksum: a row whose
checksum does not hold is not finished, be it torn, damaged or never written. All processes write to
the same files, each its own rows; nothing is kept in memory.
"""

import hashlib
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils import distributed
from utils.files import to_json

_CHUNK = 256  # rows read at a time


class Column(NamedTuple):
    """Shape and type of a row of a column."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


class RowFile:
    """One column: rows 0..N-1 of equal size, each followed by its checksum."""

    def __init__(self, path: Path, count: int, column: Column) -> None:
        """Names the file, which the main process makes where it is missing or of another size."""
        # A row and its checksum lie side by side, so that one write stores both
        example = torch.zeros(column.shape, dtype=column.dtype).numpy()
        self._shape, self._dtype = column.shape, example.dtype
        self._bytes = example.nbytes
        self._record = np.dtype([("data", np.uint8, (self._bytes,)), ("check", np.uint32)])
        size = count * self._record.itemsize
        # A new file is filled with zeros, which no checksum fits
        if distributed.is_main() and not (path.exists() and path.stat().st_size == size):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.truncate(size)
        distributed.barrier()
        self._path = path

    def write(self, rows: Sequence[int], values: Tensor) -> None:
        """Stores the values (n, ...) of n rows."""
        data = values.detach().cpu().contiguous().numpy().astype(self._dtype, copy=False)
        # Row by row, as rows of other processes may lie between them
        with open(self._path, "r+b") as file:
            for row, value in zip(rows, data, strict=True):
                content = value.tobytes()
                file.seek(row * self._record.itemsize)
                file.write(content + np.uint32(_checksum(content)).tobytes())

    def read(self, rows: Sequence[int]) -> Tensor:
        """Returns the values (n, ...) of finished rows."""
        data = np.ascontiguousarray(self._records(rows)["data"])
        return torch.from_numpy(data.view(self._dtype).reshape(len(rows), *self._shape))

    def finished(self, rows: Sequence[int]) -> list[bool]:
        """Returns for each of n rows whether it has been stored and is intact."""
        result = []
        for begin in range(0, len(rows), _CHUNK):
            records = self._records(rows[begin : begin + _CHUNK])
            result += [_checksum(r["data"].tobytes()) == r["check"] for r in records]
        return result

    def _records(self, rows: Sequence[int]) -> np.ndarray:
        if not len(rows):
            return np.empty(0, self._record)
        size = self._record.itemsize
        # One piece for each run of consecutive rows
        breaks = np.flatnonzero(np.diff(np.asarray(rows)) != 1) + 1
        runs = np.split(np.asarray(rows), breaks)
        pieces = []
        with open(self._path, "rb", buffering=0) as file:
            for run in runs:
                file.seek(int(run[0]) * size)
                pieces.append(file.read(len(run) * size))
        return np.frombuffer(bytearray(b"".join(pieces)), self._record)


class Table:
    """Columns with the same rows 0..N-1.

    Attributes:
        columns: files by name.
    """

    def __init__(self, folder: Path, count: int, columns: Mapping[str, Column]) -> None:
        """Opens the table, and makes it where there is none; to be called by all processes."""
        self.columns = {
            name: RowFile(folder / f"{name}.rows", count, column)
            for name, column in columns.items()
        }

    def unfinished(self, rows: Sequence[int]) -> list[int]:
        """Returns those of the rows that some column lacks."""
        found = [column.finished(rows) for column in self.columns.values()]
        return [row for row, *whole in zip(rows, *found, strict=True) if not all(whole)]

    def write(self, rows: Sequence[int], values: Mapping[str, Tensor]) -> None:
        """Stores the values (n, ...) of n rows of every column."""
        for name, column in self.columns.items():
            column.write(rows, values[name])

    def read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Returns the values (n, ...) of n rows of every column."""
        return {name: column.read(rows) for name, column in self.columns.items()}


def open_folder(folder: Path, settings: Mapping[str, Any], *, resume: bool = True) -> Path:
    """Returns the place for the tables of a computation; to be called by all processes.

    Args:
        folder: of all computations of that kind; those of other settings are removed.
        settings: everything that the rows depend on.
        resume: keeps the rows of an interrupted computation of the same settings.
    """
    # The name of the folder is a hash of all that the rows depend on
    place = folder / hashlib.sha256(to_json(settings).encode()).hexdigest()[:16]
    if distributed.is_main():
        for other in folder.glob("*"):
            if other != place or not resume:
                shutil.rmtree(other) if other.is_dir() else other.unlink()
        place.mkdir(parents=True, exist_ok=True)
    distributed.barrier()
    return place


def digest(*tensors: Tensor) -> str:
    """Returns a text that changes with the contents of tensors, for settings."""
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _checksum(content: bytes) -> int:
    # Zeros, the content of a row that was never written, must not pass
    return zlib.crc32(content, 1)
