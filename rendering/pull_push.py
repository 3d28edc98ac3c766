"""Pull-push: fills the gaps of a weighted map smoothly, from averages that grow with the gap.

Gortler et al. 1996, "The Lumigraph", section 3.6: on the way down, neighbors are averaged by their
weights; on the way up, what is unknown takes the color of the coarser level.
"""

from torch import Tensor
from torch.nn import functional as F

from geometry.uv_maps import circular_pad


def pull_push(values: Tensor, weights: Tensor, *, around: bool = False) -> Tensor:
    """Fills a map where its weights are below 1.

    Args:
        values: (B, C, H, W); ignored where the weight is 0.
        weights: (B, 1, H, W) in [0, 1], how far each value is to be kept.
        around: whether the map wraps around in its last axis.

    Returns:
        (B, C, H, W): the values where the weight is 1, their weighted means from further and further
        away elsewhere; 0 if no weight is positive.
    """
    if around:
        columns = max(1, values.shape[-1] // 2)
        wide = (circular_pad(x, columns) for x in (values, weights))
        return pull_push(*wide)[..., columns:-columns]
    return _fill(values * weights, weights)


def _fill(weighted: Tensor, weights: Tensor) -> Tensor:
    """The same of values (B, C, H, W) that are multiplied by their weights."""
    size = weights.shape[-2:]
    # Each level adds up 2 x 2 weights, up to 1
    kept = weights.clamp(max=1)
    scaled = weighted * (kept / weights.clamp(min=1e-12))
    if max(size) == 1:
        return scaled / kept.clamp(min=1e-12)
    pooled, mass = (4 * _halve(x) for x in (scaled, kept))
    coarse = _fill(pooled, mass)
    smooth = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return scaled + (1 - kept) * smooth


def _halve(x: Tensor) -> Tensor:
    """Means of 2 x 2 cells; an odd last row or column is added to zeros."""
    padded = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))
    return F.avg_pool2d(padded, 2)
