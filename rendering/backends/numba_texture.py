"""Compiled texture lookup of one image, its gradients, and the weight that each texel has in it.

The lookup is bilinear. Texel centers lie at (i + 1/2) / width horizontally, where the map wraps
around; vertically the first and last row lie exactly on v = 1 and v = 0.
"""

import math
from typing import Any

import numpy as np

from rendering.backends.numba_jit import Array, compiled


@compiled
def _cell(u: float, v: float, height: int, width: int) -> Any:
    """Rows and columns of the four texels around (u, v), and the position between them in [0, 1)."""
    x = u * np.float32(width) - np.float32(0.5)
    y = (np.float32(1) - v) * np.float32(height - 1)
    left = min(max(np.int64(math.floor(x)), -1), width - 1)
    top = min(max(np.int64(math.floor(y)), 0), height - 1)
    right = left + 1 if left + 1 < width else 0
    bottom = min(top + 1, height - 1)
    s, t = x - np.float32(left), y - np.float32(top)
    return top, bottom, left if left >= 0 else width - 1, right, s, t


@compiled
def lookup(texture: Array, uv: Array, covered: Array, image: Array) -> None:
    """Writes the colors at the covered pixels.

    Args:
        texture: (C, height, width), row 0 at v = 1.
        uv: (2, h, w) in [0, 1].
        covered: (h, w), 0 where nothing is to be looked up.
        image: (C, h, w), zero at first.
    """
    height, width = texture.shape[1:]
    one = np.float32(1)
    for j in range(uv.shape[1]):
        for i in range(uv.shape[2]):
            if covered[j, i] == 0:
                continue
            top, bottom, left, right, s, t = _cell(uv[0, j, i], uv[1, j, i], height, width)
            for k in range(texture.shape[0]):
                above = (one - s) * texture[k, top, left] + s * texture[k, top, right]
                below = (one - s) * texture[k, bottom, left] + s * texture[k, bottom, right]
                image[k, j, i] = (one - t) * above + t * below


@compiled
def lookup_gradient(
    texture: Array,
    uv: Array,
    covered: Array,
    gradient: Array,
    texture_gradient: Array,
    uv_gradient: Array,
) -> None:
    """Adds the gradients of texture and uv.

    Args:
        texture: (C, height, width).
        uv: (2, h, w).
        covered: (h, w), 0 where nothing was looked up.
        gradient: (C, h, w) of the image.
        texture_gradient: (C, height, width), changed in place; empty if nobody asks for it.
        uv_gradient: (2, h, w), zero at first, written.
    """
    height, width = texture.shape[1:]
    one = np.float32(1)
    wanted = texture_gradient.size > 0
    for j in range(uv.shape[1]):
        for i in range(uv.shape[2]):
            if covered[j, i] == 0:
                continue
            top, bottom, left, right, s, t = _cell(uv[0, j, i], uv[1, j, i], height, width)
            along_u = along_v = np.float32(0)
            for k in range(texture.shape[0]):
                g = gradient[k, j, i]
                a, b = texture[k, top, left], texture[k, top, right]
                c, d = texture[k, bottom, left], texture[k, bottom, right]
                along_u += g * ((one - t) * (b - a) + t * (d - c))
                along_v += g * ((one - s) * (c - a) + s * (d - b))
                if wanted:
                    texture_gradient[k, top, left] += (one - s) * (one - t) * g
                    texture_gradient[k, top, right] += s * (one - t) * g
                    texture_gradient[k, bottom, left] += (one - s) * t * g
                    texture_gradient[k, bottom, right] += s * t * g
            uv_gradient[0, j, i] = np.float32(width) * along_u
            uv_gradient[1, j, i] = np.float32(1 - height) * along_v


@compiled
def texel_weights(uv: Array, covered: Array, weights: Array) -> None:
    """Adds the share that each texel has in the covered pixels to weights (height, width)."""
    height, width = weights.shape
    one = np.float32(1)
    for j in range(uv.shape[1]):
        for i in range(uv.shape[2]):
            if covered[j, i] == 0:
                continue
            top, bottom, left, right, s, t = _cell(uv[0, j, i], uv[1, j, i], height, width)
            weights[top, left] += (one - s) * (one - t)
            weights[top, right] += s * (one - t)
            weights[bottom, left] += (one - s) * t
            weights[bottom, right] += s * t
