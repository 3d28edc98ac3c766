"""What has been measured of the candidates of a collection, read from disk as it is needed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.poses.candidates import replace
from utils.row_files import Table


class _Layer(NamedTuple):
    """Measurements of all candidates, or of those at the positions `where` (N, R) alone."""

    table: Table
    where: Tensor | None


class Measurements:
    """Tables in the order in which they were measured; later ones hold what has changed since."""

    def __init__(self, count: int, layers: tuple[_Layer, ...] = ()) -> None:
        """Begins with no measurements of `count` images."""
        self.count = count
        self._layers = layers

    def add(self, table: Table, index: Tensor | None = None) -> "Measurements":
        """Returns measurements with a newer table of all candidates, or of those at `index` (N, R)."""
        return Measurements(self.count, (*self._layers, _Layer(table, index)))

    def read(self, name: str, rows: Sequence[int] | None = None) -> Tensor:
        """Returns a measurement (n, H, ...) of the candidates of n images, by default of all."""
        rows = range(self.count) if rows is None else rows
        # From the last complete table on
        layers = [layer for layer in self._layers if name in layer.table.columns]
        complete = max(i for i, layer in enumerate(layers) if layer.where is None)
        values = layers[complete].table.columns[name].read(rows)
        # What has moved since
        for table, where in layers[complete + 1 :]:
            assert where is not None
            values = replace(values, where[torch.as_tensor(rows)], table.columns[name].read(rows))
        return values
