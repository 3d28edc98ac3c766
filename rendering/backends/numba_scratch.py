"""Buffers that the compiled loops of one thread work in.

A fragment is a pair of a face and an open pixel near it, stored as the place of the pixel:
65536 * row + column. A face fills whole blocks of 8, so that one vector instruction handles a block; the
lanes it leaves unused are nowhere.
"""

from typing import NamedTuple

import numpy as np

from utils.numba_jit import Array

LANES = 8
NOWHERE = np.int32(-1)  # place of an unused lane


class Scratch(NamedTuple):
    """Buffers for one image at a time."""

    points: Array  # (V, 2) float32, vertices in pixels
    open: Array  # (size + 8, words + 1) uint64, bit masks; rows and words past the image are 0
    bands: Array  # (size / 8, words + 1) uint64, union of 8 rows of `open`
    met: Array  # (size * size) uint8, faces met by each pixel
    alpha: Array  # (size * size) float32
    given: Array  # (size * size) float32, gradient of alpha
    pixel: Array  # (capacity) int32, place of each fragment
    shade: Array  # (size * size + LANES) float32, p of the fragments of a face
    starts: Array  # (F + 1) uint32, first fragment of each face
    depth: Array  # (size * size) float32


def make_scratch(num_vertices: int, num_faces: int, size: int, capacity: int) -> Scratch:
    """Allocates the buffers for meshes of (V, F) in images of size x size pixels.

    Args:
        num_vertices: V.
        num_faces: F.
        size: pixels.
        capacity: number of fragments.
    """
    pixels, words = size * size, (size + 63) // 64 + 1
    return Scratch(
        points=np.zeros((num_vertices, 2), np.float32),
        open=np.zeros((size + 8, words), np.uint64),
        bands=np.zeros(((size + 7) // 8, words), np.uint64),
        met=np.zeros(pixels, np.uint8),
        alpha=np.zeros(pixels, np.float32),
        given=np.zeros(pixels, np.float32),
        pixel=np.zeros(capacity, np.int32),
        shade=np.zeros(pixels + LANES, np.float32),
        starts=np.zeros(num_faces + 1, np.uint32),
        depth=np.zeros(pixels, np.float32),
    )
