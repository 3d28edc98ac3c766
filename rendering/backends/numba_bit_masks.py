"""Compiled bit masks of pixels: 64 columns a word, a set bit is a pixel that no face covers.

A mask has a spare word at the end of its rows and 8 spare rows, all zero, so that tiles of 8 x 8
pixels may reach beyond the image.
"""

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from utils.numba_jit import Array, Decorator, compiled

ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)

_intrinsic = cast(Decorator, intrinsic)


@_intrinsic
def lowest_bit(typingctx: Any, bits: Any) -> Any:
    """Index of the lowest set bit of a non-zero uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # The flag promises that the argument is not zero
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@compiled
def word_mask(word: int, first: int, last: int) -> Any:
    """Bits of columns [first, last] that lie in a word of 64 columns."""
    low = max(first - 64 * word, 0)
    high = min(last - 64 * word, 63)
    return (ALL_BITS << np.uint64(low)) & (ALL_BITS >> np.uint64(63 - high))


@compiled
def mark_open(open_pixels: Array, size: int, keep: Array) -> None:
    """Sets keep to 1 at open pixels and to 0 at covered ones, 8 columns at a time."""
    one, zero = np.float32(1), np.float32(0)
    for j in range(size):
        for byte in range((size + 7) >> 3):
            bits = open_pixels[j, byte >> 3] >> np.uint64(8 * (byte & 7))
            begin = np.uint64(j * size + 8 * byte)  # may run into the next row, which comes later
            # Written without branches, so that the lanes become one vector
            for lane in range(8):
                is_open = bits & np.uint64(1 << lane) != np.uint64(0)
                keep[begin + np.uint64(lane)] = one if is_open else zero


@compiled
def summarize(open_pixels: Array, size: int, bands: Array) -> None:
    """Merges the open pixels of every 8 rows, for the early exit of `any_open`."""
    for band in range((size + 7) >> 3):
        for word in range(open_pixels.shape[1]):
            bits = np.uint64(0)
            for j in range(8 * band, 8 * band + 8):
                bits |= open_pixels[j, word]
            bands[band, word] = bits


@compiled
def any_open(bands: Array, top: int, bottom: int, first: int, last: int) -> bool:
    """Whether the bands that a box touches have open pixels in its columns."""
    bits = np.uint64(0)
    for word in range(first >> 6, (last >> 6) + 1):
        mask = word_mask(word, first, last)
        for band in range(top >> 3, (bottom >> 3) + 1):
            bits |= bands[band, word] & mask
    return bits != np.uint64(0)


@compiled
def tile(open_pixels: Array, top: int, bottom: int, first: int, last: int) -> Any:
    """Open pixels of at most 8 x 8 pixels from (top, first) on; bit 8 * row + column."""
    # A row of a tile may straddle two words
    word, shift = first >> 6, np.uint64(first & 63)
    columns = np.uint64(0xFF) >> np.uint64(max(7 + first - last, 0))
    bits = np.uint64(0)
    for row in range(8):
        line = open_pixels[top + row, word] >> shift
        # Two shifts, because a shift by 64 bits is undefined
        line |= open_pixels[top + row, word + 1] << (np.uint64(63) - shift) << np.uint64(1)
        bits |= (line & columns) << np.uint64(8 * row)
    # Rows below the box do not count
    return bits & (ALL_BITS >> np.uint64(8 * max(7 + top - bottom, 0)))
