"""Rows of a large table in little memory: each is kept as bytes, and built anew when it is read."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar, overload

Row = TypeVar("Row")


class PackedRows(Sequence[Row], Generic[Row]):
    """A sequence that keeps its rows as bytes.

    Objects of Python take several times the memory of what they hold, and processes that are forked
    copy them as they read them.

    Args:
        rows: the rows, packed one by one.
        pack: turns a row into bytes.
        unpack: turns them into an equal row.
    """

    def __init__(
        self, rows: Iterable[Row], pack: Callable[[Row], bytes], unpack: Callable[[bytes], Row]
    ) -> None:
        self._rows, self._unpack = [pack(row) for row in rows], unpack

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "tuple[Row, ...]": ...
    def __getitem__(self, index: int | slice) -> "Row | tuple[Row, ...]":
        if isinstance(index, slice):
            return tuple(map(self._unpack, self._rows[index]))
        return self._unpack(self._rows[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedRows) and self._rows == other._rows

    def __hash__(self) -> int:
        return hash(tuple(self._rows))
