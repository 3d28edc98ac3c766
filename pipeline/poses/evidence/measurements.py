"""What has been measured of the candidates of a collection, read from disk as it is needed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from utils.row_files import Table


class _Layer(NamedTuple):
    """Measurements of all candidates there were, or of those that joined them."""

    table: Table
    complete: bool


class Measurements:
    """Tables in the order in which they were measured."""

    def __init__(self, count: int, layers: tuple[_Layer, ...] = ()) -> None:
        """Begins with no measurements of `count` images."""
        self.count = count
        self._layers = layers

    def add(self, table: Table) -> "Measurements":
        """Returns measurements with a table of all candidates, which replaces earlier ones."""
        return Measurements(self.count, (*self._layers, _Layer(table, True)))

    def extend(self, table: Table) -> "Measurements":
        """Returns measurements with a table of candidates that stand behind those known so far."""
        return Measurements(self.count, (*self._layers, _Layer(table, False)))

    def read(self, name: str, rows: Sequence[int] | None = None) -> Tensor:
        """Returns a measurement (n, H, ...) of the candidates of n images, by default of all."""
        rows = range(self.count) if rows is None else rows
        # From the last complete table on
        layers = [layer for layer in self._layers if name in layer.table.columns]
        first = max(i for i, layer in enumerate(layers) if layer.complete)
        return torch.cat([layer.table.columns[name].read(rows) for layer in layers[first:]], dim=1)
