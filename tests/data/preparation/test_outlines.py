"""Outlines of every spelling are the same mask; damaged ones are refused before anything large is made."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from data.image_files import turn_as_photograph
from data.preparation.outlines import MALFORMED, NoOutlineError, decode_outline
from data.run_lengths import encode_mask

SIZE = H, W = (60, 90)
MASK = np.zeros(SIZE, bool)
MASK[20:50, 10:80] = True
FLAT = [10, 20, 80, 20, 80, 50, 10, 50]
POINTS = [[10, 20], [80, 20], [80, 50], [10, 50]]
RUNS = np.diff(np.flatnonzero(np.diff(MASK.T.ravel(), prepend=True, append=2)))
RLE = encode_mask(MASK)


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


SPELLINGS: dict[str, Any] = {
    "polygon": [FLAT],
    "flat": FLAT,
    "nested deeply": [[[FLAT]]],
    "points": POINTS,
    "list of points": [POINTS],
    "points with names": [{"x": x, "y": y} for x, y in POINTS],
    "floating point": [[float(x) for x in FLAT]],
    "two halves": [[10, 20, 40, 20, 40, 50, 10, 50], [40, 20, 80, 20, 80, 50, 40, 50]],
    "with a stray line": [FLAT, [1, 2, 3, 4]],
    "run lengths": {"size": [H, W], "counts": RUNS.tolist()},
    "run lengths as floating point": {"size": [60.0, 90.0], "counts": [float(x) for x in RUNS]},
    "compressed": RLE,
    "compressed bytes": RLE | {"counts": RLE["counts"].encode()},
    "without size": {"counts": RLE["counts"]},
    "bare text": RLE["counts"],
    "rows": MASK.astype(int).tolist(),
    "rows of truth": MASK.tolist(),
    "picture": {"png": png(MASK[20:50, 10:80]), "corner": [10, 20]},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("size", [SIZE, None])
def test_every_spelling_is_the_same_mask(spelling: str, size: tuple | None) -> None:
    assert np.array_equal(decode_outline(SPELLINGS[spelling], size, SIZE), MASK)


def test_the_oracle_of_run_lengths() -> None:
    rle: Any = coco_mask.frPyObjects({"size": [H, W], "counts": RUNS.tolist()}, H, W)
    assert np.array_equal(coco_mask.decode(rle) > 0, MASK)


@pytest.mark.parametrize("outline", [None, [], {}, "", [[1, 2, 3, 4]], [[5, 5]], [[[]]], [[], []]])
def test_no_outline_is_said(outline: Any) -> None:
    with pytest.raises(NoOutlineError):
        decode_outline(outline, SIZE, SIZE)


HUGE = 4611686018427387904


@pytest.mark.parametrize(
    "outline",
    [
        [["a"] * 6],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[0, 0, 1e9, 0, 0, 1e9]],
        [[1e15, 0, 1e15 + 4, 0, 1e15, 4]],
        [[float("nan")] * 6],
        [[float("inf")] * 6],
        [None],
        [FLAT, None],
        7,
        {"size": [9, 9], "counts": [1, 2]},
        {"size": [H, W], "counts": [-1, 5401]},
        {"size": [96, 96], "counts": [HUGE, HUGE, HUGE, HUGE, 9216]},
        {"size": [96, 96], "counts": [HUGE * 4, 1]},
        {"size": [H, W], "counts": [10**30]},
        {"size": [H, W], "counts": [0.5, 5399.5]},
        {"size": [H, W], "counts": []},
        {"size": [H, W], "counts": None},
        {"size": [H, W], "counts": "aaaaaaaaaaaaaaaaaaaaaa"},
        {"size": [H, W], "counts": RLE["counts"][:-2]},
        {"size": [10**6, 10**6], "counts": "0"},
        {"size": [-1, 5], "counts": "0"},
        {"size": None, "counts": 3},
        {"size": [H]},
        {"png": "AAAA", "corner": [0, 0]},
        {"png": png(MASK), "corner": [1e9, 0]},
        {"png": png(MASK), "corner": [40, 40]},
    ],
)
def test_damaged_outlines_are_refused(outline: Any) -> None:
    with pytest.raises(MALFORMED):
        decode_outline(outline, SIZE, SIZE)


def test_lists_in_lists_without_end_are_refused() -> None:
    deep: Any = [1, 2, 3, 4, 5, 6]
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested more than"):
        decode_outline(deep, SIZE, SIZE)


@pytest.mark.parametrize("factor", [2, 3, 0.5])
@pytest.mark.parametrize("spelling", ["polygon", "compressed", "rows"])
def test_annotations_of_resized_copies_are_rescaled(factor: float, spelling: str) -> None:
    photograph = (round(H * factor), round(W * factor))
    expected = np.zeros(photograph, bool)
    expected[round(20 * factor) : round(50 * factor), round(10 * factor) : round(80 * factor)] = 1
    found = decode_outline(SPELLINGS[spelling], SIZE, photograph)
    both, either = (found & expected).sum(), (found | expected).sum()
    assert both / either > 0.97


def test_copies_may_be_a_pixel_off_but_not_of_another_shape() -> None:
    assert decode_outline([FLAT], SIZE, (30, 46)).shape == (30, 46)
    for size in [(W, H), (H, W - 20), (H + 10, W)]:
        with pytest.raises(ValueError, match="drawn on a picture of"):
            decode_outline([FLAT], size, SIZE)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("spelling", ["polygon", "compressed"])
def test_annotations_of_the_stored_picture_are_turned(orientation: int, spelling: str) -> None:
    found = decode_outline(SPELLINGS[spelling], SIZE, (W, H), orientation)
    assert np.array_equal(found, turn_as_photograph(MASK, orientation))


def test_outlines_beyond_a_photograph_of_unknown_size_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond the photograph"):
        decode_outline([FLAT], None, (30, 45))
    turned = decode_outline([FLAT], None, (W, H), orientation=6)
    assert np.array_equal(turned, turn_as_photograph(MASK, 6))
