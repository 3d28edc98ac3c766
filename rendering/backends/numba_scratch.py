"""Buffers that the compiled loops of one thread work in.

A fragment is a pair of a face and an open pixel near it. Fragments lie in blocks of 8, so that one
vector instruction handles a block: 8 offsets x, 8 offsets y, 8 weights of corner 1, 8 of corner 2,
8 factors 1 - p. A face starts a new block; the lanes it leaves unused name the pixel one past the
image.
"""

from typing import NamedTuple

import numpy as np

from utils.numba_jit import Array

LANES = 8
BLOCK_ROWS = 5


class Scratch(NamedTuple):
    """Buffers for one image at a time."""

    points: Array  # (V, 2) float32, vertices in pixels
    open: Array  # (size + 8, words + 1) uint64, bit masks; rows and words past the image are 0
    bands: Array  # (size / 8, words + 1) uint64, union of 8 rows of `open`
    met: Array  # (size * size) uint8, faces met by each pixel
    keep: Array  # (size * size + LANES) float32, product of (1 - p)
    pixel: Array  # (capacity) uint32, flat pixel index of each fragment
    blocks: Array  # (capacity * BLOCK_ROWS) float32
    starts: Array  # (F + 1) uint32, first block of each face
    depth: Array  # (size * size) float32


def make_scratch(num_vertices: int, num_faces: int, size: int, capacity: int) -> Scratch:
    """Allocates the buffers for meshes of (V, F) in images of size x size pixels.

    Args:
        num_vertices: V.
        num_faces: F.
        size: pixels.
        capacity: number of fragments, a multiple of LANES.
    """
    pixels, words = size * size, (size + 63) // 64 + 1
    return Scratch(
        points=np.zeros((num_vertices, 2), np.float32),
        open=np.zeros((size + 8, words), np.uint64),
        bands=np.zeros(((size + 7) // 8, words), np.uint64),
        met=np.zeros(pixels, np.uint8),
        keep=np.zeros(pixels + LANES, np.float32),
        pixel=np.zeros(capacity, np.uint32),
        blocks=np.zeros(capacity * BLOCK_ROWS, np.float32),
        starts=np.zeros(num_faces + 1, np.uint32),
        depth=np.zeros(pixels, np.float32),
    )
