from dataclasses import dataclass

import pytest

from utils import options


@dataclass(frozen=True)
class Piece:
    rate: float
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Whole:
    name: str
    piece: Piece


PARSED = {"name": "a", "rate": 0.5, "sizes": (1, 2), "only_for_the_script": True}


def test_a_record_is_built_from_the_options_that_its_fields_name():
    whole = options.build(Whole, PARSED)
    assert whole == Whole("a", Piece(0.5, (1, 2)))
    assert options.flatten(whole) == {"name": "a", "rate": 0.5, "sizes": (1, 2)}
    with pytest.raises(KeyError, match="rate"):
        options.build(Whole, {"name": "a", "sizes": ()})


def test_options_that_differ_from_stored_ones_are_named():
    now = options.flatten(options.build(Whole, PARSED))
    stored = {"name": "a", "rate": 0.25, "sizes": [1, 2], "unknown": 3}
    assert options.differences(now, stored) == {"rate": (0.25, 0.5)}
