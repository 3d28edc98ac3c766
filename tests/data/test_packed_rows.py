"""Rows that are kept as bytes."""

import json
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from data.detections import Detection, Detections, Part
from data.packed_rows import PackedRows


def run_lengths(number: int) -> dict:
    return {"size": [30, 40], "counts": f"{number:020d}" * 6}


def detection(number: int) -> Detection:
    """Returns an object with seven parts, none of whose fields are shared."""
    box = (0.1 * number, 1.0, 2.5, 1 / 3)
    parts = tuple(Part(f"part{i}", 0.5, box, run_lengths(10 * number + i), i / 7) for i in range(7))
    path = f"datasets/x/images/{number}_\udce9.jpg"  # not every name is UTF-8
    return Detection(number, path, 30, 40, box, 0.25, run_lengths(number), parts)


def test_rows_are_those_that_were_packed():
    rows = [{"a": 1}, {"b": [2, 3]}, {}]
    packed = PackedRows(rows, lambda row: json.dumps(row).encode(), json.loads)
    assert list(packed) == rows
    assert (len(packed), packed[-1], packed[::-2]) == (3, {}, ({}, {"a": 1}))
    with pytest.raises(IndexError):
        packed[3]
    again = PackedRows(packed, lambda row: json.dumps(row).encode(), json.loads)
    assert again == packed
    assert hash(again) == hash(packed)
    assert again != PackedRows(rows[:2], lambda row: json.dumps(row).encode(), json.loads)


def test_objects_come_back_equal():
    items = [detection(number) for number in range(3)]
    assert list(Detections("x", "bird", items).items) == items


def test_packed_objects_take_less_than_half_of_the_memory():
    def memory(keep: Callable[[Iterator[Detection]], object]) -> int:
        tracemalloc.start()
        kept = keep(detection(number) for number in range(100))
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del kept
        return used

    def packed(items: Iterator[Detection]) -> Detections:
        return Detections("x", "bird", tuple(items))

    memory(packed)  # the first time, caches fill too
    assert memory(packed) < memory(list) / 2
