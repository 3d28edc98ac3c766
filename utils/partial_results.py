"""Finished rows of a long computation, kept in a hidden folder so that it can be interrupted."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils import checkpoint, distributed
from utils.files import to_json

Rows = dict[int, dict[str, Tensor]]


class PartialResults:
    """Named tensors for rows 0..N-1, written in small files as they are finished.

    Files of other settings are removed when the object is made. Each process adds rows of its own
    shard only, so that no two write the same.

    Attributes:
        folder: where the files are.
        rows: finished rows of this process's shard, each with its named tensors.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], shard: Iterable[int]) -> None:
        """Reads what an earlier run with the same settings has finished of a shard of the rows."""
        self.folder = folder
        self._key = hashlib.sha256(to_json(settings).encode()).hexdigest()[:16]
        if distributed.is_main():
            for path in self._files("*"):
                if not path.name.startswith(f"rows_{self._key}_"):
                    path.unlink()
        distributed.barrier()
        mine = set(shard)
        self.rows: Rows = {}
        for path in self._files(self._key):
            state = checkpoint.load(path)
            numbers = state.pop("rows").tolist()
            self.rows |= {
                row: {name: value[i] for name, value in state.items()}
                for i, row in enumerate(numbers)
                if row in mine
            }
        # A process that reads late must not meet the files of one that has begun
        distributed.barrier()

    def add(self, rows: list[int], values: dict[str, Tensor]) -> None:
        """Stores the tensors (len(rows), ...) of finished rows."""
        values = {name: value.cpu() for name, value in values.items()}
        path = self.folder / f"rows_{self._key}_{rows[0]:07d}.pth"
        checkpoint.save(path, {"rows": torch.tensor(rows), **values})
        for i, row in enumerate(rows):
            self.rows[row] = {name: value[i] for name, value in values.items()}

    def gather(self) -> dict[str, Tensor]:
        """Returns the tensors (N, ...) of the rows of all processes, in order, on each of them."""
        everything: Rows = {}
        for rows in distributed.gather(self.rows):
            everything |= rows
        assert sorted(everything) == list(range(len(everything))), "unfinished rows"
        names = everything[0].keys()
        return {
            name: torch.stack([everything[row][name] for row in range(len(everything))])
            for name in names
        }

    def remove(self) -> None:
        """Removes the folder; called by one process after the final file is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self, key: str) -> list[Path]:
        return sorted(self.folder.glob(f"rows_{key}_*.pth"))
