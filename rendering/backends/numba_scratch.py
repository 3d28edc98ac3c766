"""Buffers that the compiled loops of one thread work in."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Scratch(NamedTuple):
    """Buffers of one thread; `capacity` fragments (pairs of a face and a pixel near it)."""

    points: Array  # (V, 2) float32
    open: Array  # (size, words) uint64
    count: Array  # (size * size) uint8
    keep: Array  # (size * size) float32, product of (1 - p)
    column: Array  # (size * size) float32
    row: Array  # (size * size) float32
    factor: Array  # (size * size) float32
    pixel: Array  # (capacity) uint32
    fragments: Array  # (4, capacity) float32: offset x, y and weights of corners 1, 2
    starts: Array  # (F + 1) uint32, first fragment of each face
    depth: Array  # (size, size) float32


def make_scratch(num_vertices: int, num_faces: int, size: int, capacity: int) -> Scratch:
    """Allocates the buffers for meshes of (V, F) in images of size x size pixels."""
    pixels = size * size
    return Scratch(
        points=np.zeros((num_vertices, 2), np.float32),
        open=np.zeros((size, (size + 63) // 64), np.uint64),
        count=np.zeros(pixels, np.uint8),
        keep=np.zeros(pixels, np.float32),
        column=np.zeros(pixels, np.float32),
        row=np.zeros(pixels, np.float32),
        factor=np.zeros(pixels, np.float32),
        pixel=np.zeros(capacity, np.uint32),
        fragments=np.zeros((4, capacity), np.float32),
        starts=np.zeros(num_faces + 1, np.uint32),
        depth=np.zeros((size, size), np.float32),
    )
