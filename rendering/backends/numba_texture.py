"""Compiled texture lookup of one image, its gradients, and the total weight of each texel in it.

The lookup is bilinear. Texel centers lie at (i + 1/2) / width horizontally, where the map wraps
around; vertically the first and last row lie exactly on v = 1 and v = 0.
"""

from typing import Any

import numpy as np

from utils.numba_jit import Array, compiled


@compiled
def _cell(u: float, v: float, height: int, width: int) -> Any:
    """Flat indices of the four texels around (u, v), and the position between them in [0, 1]."""
    # Continuous texel coordinates, clamped to the map
    x = u * np.float32(width) + np.float32(0.5)  # of the map with a column more on the left
    y = (np.float32(1) - v) * np.float32(height - 1)
    left = min(max(np.int32(x), np.int32(0)), np.int32(width))  # conversion cuts off the fraction
    top = min(max(np.int32(y), np.int32(0)), np.int32(height - 1))
    s, t = x - np.float32(left), y - np.float32(top)
    # Columns wrap around, rows do not
    first = left - 1 if left > 0 else width - 1
    second = left if left < width else 0
    above, below = top * width, min(top + 1, height - 1) * width
    return (
        np.uintp(above + first),
        np.uintp(above + second),
        np.uintp(below + first),
        np.uintp(below + second),
        s,
        t,
    )


@compiled
def lookup(
    texture: Array, height: int, width: int, uv: Array, covered: Array, image: Array
) -> None:
    """Writes the colors at the covered pixels.

    Args:
        texture: (C, height * width), row 0 at v = 1.
        height: of the texture.
        width: of the texture.
        uv: (2, P) in [0, 1].
        covered: (P,), 0 where the lookup is skipped.
        image: (C, P), zero at first.
    """
    one = np.float32(1)
    for p in range(np.uintp(uv.shape[1])):
        if covered[p] == 0:
            continue
        a, b, c, d, s, t = _cell(uv[0, p], uv[1, p], height, width)
        for k in range(np.uintp(texture.shape[0])):
            # Linear along u in both rows, then linear along v
            above = texture[k, a] + s * (texture[k, b] - texture[k, a])
            below = texture[k, c] + s * (texture[k, d] - texture[k, c])
            image[k, p] = (one - t) * above + t * below


@compiled
def lookup_gradient(
    texture: Array,
    height: int,
    width: int,
    uv: Array,
    covered: Array,
    gradient: Array,
    texture_gradient: Array,
    uv_gradient: Array,
) -> None:
    """Adds the gradients of texture and uv.

    Args:
        texture: (C, height * width).
        height: of the texture.
        width: of the texture.
        uv: (2, P).
        covered: (P,), 0 where the lookup was skipped.
        gradient: (C, P) of the image.
        texture_gradient: (C, height * width), changed in place; empty if it is not needed.
        uv_gradient: (2, P), zero at first, written.
    """
    one = np.float32(1)
    wanted = texture_gradient.size > 0
    for p in range(np.uintp(uv.shape[1])):
        if covered[p] == 0:
            continue
        a, b, c, d, s, t = _cell(uv[0, p], uv[1, p], height, width)
        along_u = along_v = np.float32(0)
        for k in range(np.uintp(texture.shape[0])):
            g = gradient[k, p]
            # Derivatives of the bilinear value by its position in the cell
            above, below = texture[k, b] - texture[k, a], texture[k, d] - texture[k, c]
            along_u += g * (above + t * (below - above))
            along_v += g * (texture[k, c] + s * below - texture[k, a] - s * above)
            # The transpose of the lookup: four texels get their bilinear weights
            if wanted:
                upper, lower = (one - t) * g, t * g
                texture_gradient[k, a] += upper - s * upper
                texture_gradient[k, b] += s * upper
                texture_gradient[k, c] += lower - s * lower
                texture_gradient[k, d] += s * lower
        # Chain rule from texels to texture coordinates; v points up
        uv_gradient[0, p] = np.float32(width) * along_u
        uv_gradient[1, p] = np.float32(1 - height) * along_v


@compiled
def texel_weights(uv: Array, covered: Array, height: int, width: int, weights: Array) -> None:
    """Adds the bilinear weights of each texel over the covered pixels to weights (height * width)."""
    one = np.float32(1)
    for p in range(np.uintp(uv.shape[1])):
        if covered[p] == 0:
            continue
        a, b, c, d, s, t = _cell(uv[0, p], uv[1, p], height, width)
        weights[a] += (one - s) * (one - t)
        weights[b] += s * (one - t)
        weights[c] += (one - s) * t
        weights[d] += s * t
