"""Compiled bit masks of pixels: 64 columns a word, a set bit is a pixel that no face covers.

A mask has a spare word at the end of its rows and 8 spare rows, all zero, so that 8 columns or rows
may reach beyond the image.
"""

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import gep_inbounds
from numba.extending import intrinsic

from utils.numba_jit import Array, Decorator, compiled

ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
# Of every byte: the positions of its set bits, lowest first, 3 bits each, and from bit 28 on their number
_BITS = [[bit for bit in range(8) if byte >> bit & 1] for byte in range(256)]
POSITIONS = np.array(
    [sum(bit << 3 * k for k, bit in enumerate(bits)) | len(bits) << 28 for bits in _BITS], np.uint32
)

_intrinsic = cast(Decorator, intrinsic)


@_intrinsic
def write_positions(typingctx: Any, target: Any, begin: Any, first: Any, positions: Any) -> Any:
    """Writes first + each of the 8 positions of an entry of POSITIONS to an int32 array from begin on."""
    vector = ir.VectorType(ir.IntType(32), 8)

    def spread(builder: Any, value: Any) -> Any:
        lane = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
        return builder.shuffle_vector(lane, lane, ir.Constant(vector, [0] * 8))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, begin, first, positions = args
        # One vector, which the compiler does not make of a loop
        shifts = ir.Constant(vector, [3 * lane for lane in range(8)])
        lanes = builder.lshr(spread(builder, positions), shifts)
        lanes = builder.and_(lanes, ir.Constant(vector, [7] * 8))
        lanes = builder.add(lanes, spread(builder, first))
        data = context.make_array(signature.args[0])(context, builder, array).data
        place = builder.bitcast(gep_inbounds(builder, data, begin), vector.as_pointer())
        builder.store(lanes, place, align=4)
        return context.get_dummy_value()

    return types.void(target, types.uint64, types.int32, types.uint32), codegen


@compiled
def word_mask(word: int, first: int, last: int) -> Any:
    """Bits of columns [first, last] that lie in a word of 64 columns."""
    low = max(first - 64 * word, 0)
    high = min(last - 64 * word, 63)
    return (ALL_BITS << np.uint64(low)) & (ALL_BITS >> np.uint64(63 - high))


@compiled
def show_covered(open_pixels: Array, size: int, image: Array) -> None:
    """Sets an image to 0 at open pixels and to 1 at covered ones, 8 columns at a time."""
    one, zero = np.float32(1), np.float32(0)
    for j in range(size):
        for byte in range(size >> 3):
            bits = open_pixels[j, byte >> 3] >> np.uint64(8 * (byte & 7))
            begin = np.uint64(j * size + 8 * byte)
            # Written without branches, so that the lanes become one vector
            for lane in range(8):
                is_open = bits & np.uint64(1 << lane) != np.uint64(0)
                image[begin + np.uint64(lane)] = zero if is_open else one
        # The columns past the last 8
        for i in range(size & ~7, size):
            bits = open_pixels[j, i >> 6] >> np.uint64(i & 63)
            image[j * size + i] = zero if bits & np.uint64(1) else one


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
            bits |= bands[np.uint64(band), np.uint64(word)] & mask
    return bits != np.uint64(0)


@compiled
def eight_columns(open_pixels: Array, row: int, first: int) -> Any:
    """Open pixels of 8 columns of a row, the first one in the lowest bit."""
    # They may straddle two words; two shifts, because a shift by 64 bits is undefined
    word, shift = np.uint64(first >> 6), np.uint64(first & 63)
    line = open_pixels[row, word] >> shift
    line |= open_pixels[row, word + np.uint64(1)] << (np.uint64(63) - shift) << np.uint64(1)
    return line & np.uint64(0xFF)
