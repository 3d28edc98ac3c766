"""How well points cover masks, without rendering them."""

from torch import Tensor
from torch.nn import functional

from geometry.distances import hard_iou
from rendering.projection.chunks import in_chunks, memory_for
from rendering.projection.volume import check_points, occupancy, silhouette

_VOLUMES = 14  # of an object, that exist at the same time
_POINT_NUMBERS = 120  # of a point, likewise


def volume_loss(
    points: Tensor,
    targets: Tensor,
    target_index: Tensor,
    *,
    size: int,
    sigma: float,
    scale: Tensor | None = None,
    memory: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compares silhouettes of points in a grid with masks; several objects may share a mask.

    Args:
        points: (B, N, 3) screen space: x right, y up, z towards the viewer, within [-1, 1].
        targets: (M, h, h) masks in [0, 1], which are resized to the grid.
        target_index: (B,) int64, the mask that belongs to each object.
        size: G, cells along each edge of the grid.
        sigma: of the Gaussian, in cells.
        scale: (B,) factors on the occupancies; None for 1.
        memory: bytes that are used at a time, unless a single object needs more; None for
            `chunks.MEMORY` of the device.

    Returns:
        loss: (B,) mean squared error over the G x G pixels; once differentiable in points and scale.
        iou: (B,) intersection over union of silhouette > 0.5 and mask > 0.5; no gradient.

    Raises:
        ValueError: if shapes disagree.
        FloatingPointError: if points are not finite.
    """
    check_points(points)
    if len(points) == 0:
        return points.sum(dim=(1, 2)), points.new_zeros(0)
    masks = shrink(targets, size)
    factors = points.new_ones(len(points)) if scale is None else scale

    def compare(inputs: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        seen = silhouette(occupancy(inputs[0], size, sigma, inputs[1]))
        mask = masks[target_index[rows]]
        return (seen - mask).square().mean(dim=(1, 2)), hard_iou(seen.detach(), mask)

    limit = memory_for(points.device) if memory is None else memory
    chunk = objects_at_a_time(points.shape[1], size, limit)
    return in_chunks(compare, chunk, points, factors)


def objects_at_a_time(num_points: int, size: int, memory: int) -> int:
    """Returns how many clouds of N points fit into a number of bytes, in grids of edge G; at least 1."""
    each = 4 * (_VOLUMES * size**3 + _POINT_NUMBERS * num_points)
    return max(1, memory // each)


def shrink(masks: Tensor, size: int) -> Tensor:
    """Resizes masks (N, h, h), averaging over the pixels."""
    if masks.shape[-1] == size:
        return masks
    return functional.interpolate(
        masks[:, None], (size, size), mode="bilinear", antialias=True, align_corners=False
    )[:, 0]
