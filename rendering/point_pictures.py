"""Points to look at: small discs, the nearest ones in front, colored by height and darker with distance."""

import torch
from torch import Tensor

LOW, HIGH = (0.15, 0.25, 0.65), (0.95, 0.75, 0.25)  # colors of the lowest and the highest points
DARKEST = 0.35  # of the farthest points
RADIUS = 0.018  # of a disc, in screen units


def draw_points(points: Tensor, screen: Tensor, size: int) -> Tensor:
    """Draws clouds on white.

    Args:
        points: (B, N, 3), whose z gives the color.
        screen: (B, N, 3) the same in screen space: x right, y up in [-1, 1], z towards the viewer.
        size: side of the pictures.

    Returns:
        (B, 3, size, size) in [-1, 1].
    """
    return torch.stack([_draw(p, s, size) for p, s in zip(points, screen, strict=True)])


def _draw(points: Tensor, screen: Tensor, size: int) -> Tensor:
    # The pixels of a disc around each point
    reach = max(0, int(RADIUS * size / 2))
    steps = torch.arange(-reach, reach + 1, device=points.device)
    dy, dx = torch.meshgrid(steps, steps, indexing="ij")
    round_ = dx**2 + dy**2 <= reach**2
    column = ((screen[:, :1] + 1) * size / 2).long() + dx[round_]
    row = ((1 - screen[:, 1:2]) * size / 2).long() + dy[round_]
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    # Painted from back to front: of equal pixels the last write is the nearest point's
    order = screen[:, 2].argsort(stable=True)
    rank = torch.arange(1, len(order) + 1, device=points.device)
    pixel = (row * size + column)[order]
    value = torch.where(inside[order], rank[:, None], 0)
    canvas = points.new_zeros(size * size, dtype=torch.int64)
    canvas.scatter_reduce_(0, pixel.clamp(0, size * size - 1).flatten(), value.flatten(), "amax")
    # Colors of the points, those of the background behind them
    colors = torch.cat([points.new_ones(1, 3), _colors(points, screen)[order]])
    return (2 * colors[canvas] - 1).T.reshape(3, size, size)


def _colors(points: Tensor, screen: Tensor) -> Tensor:
    """Returns the color (N, 3) of each point in [0, 1]."""
    height, near = _share(points[:, 2:]), _share(screen[:, 2:])
    low, high = points.new_tensor(LOW), points.new_tensor(HIGH)
    return (low + (high - low) * height) * (DARKEST + (1 - DARKEST) * near)


def _share(values: Tensor) -> Tensor:
    """Returns where values (N, 1) lie between their extremes, in [0, 1]."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-6)
