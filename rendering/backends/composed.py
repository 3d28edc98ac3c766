"""Operations composed of PyTorch's, for backends without their own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rendering.backends import Options


def silhouette_loss(
    rasterize: Callable[..., Any],
    vertices: Tensor,
    faces: Tensor,
    targets: Tensor,
    target_index: Tensor,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """As `rendering.rasterizer.silhouette_loss`, from the images of `rasterize`."""
    alpha = rasterize(vertices, faces, None, None, options)[2][:, 0]
    wanted = targets.to(alpha.dtype)[target_index]
    inside, expected = alpha.detach() > 0.5, wanted > 0.5
    # Intersection over union at the threshold 0.5, without gradient
    both = (inside & expected).sum((1, 2))
    either = (inside | expected).sum((1, 2))
    loss = (alpha - wanted).square().mean((1, 2))
    return loss.to(vertices.dtype), (both / (either + 1e-6)).to(vertices.dtype)


def sample_texture(texture: Tensor, uv: Tensor, coverage: Tensor) -> Tensor:
    """As `rendering.texture.sample_texture`."""
    # Repeat a column of the other end on both sides, so that `grid_sample` wraps around in u
    width = texture.shape[-1]
    u = (uv[:, 0] * width + 0.5) / (width + 1)  # of the map with a column more on both sides
    where = torch.stack([2 * u - 1, 1 - 2 * uv[:, 1]], dim=-1).to(texture.dtype)
    padded = torch.cat([texture[..., -1:], texture, texture[..., :1]], dim=-1)
    return functional.grid_sample(padded, where, align_corners=True) * coverage


@torch.no_grad()
def texel_weights(uv: Tensor, coverage: Tensor, size: int) -> Tensor:
    """Returns the bilinear weights (B, size, size) of each texel, summed over the covered pixels."""
    # Continuous texel coordinates: texel centers in u, first and last row exactly at v = 1 and 0
    x, y = uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * (size - 1)
    left, top = x.floor(), y.floor().clamp(0, size - 1)
    s, t = x - left, y - top
    # Scatter the four weights of every pixel; columns wrap around, rows are clamped
    image = torch.arange(len(uv), device=uv.device)[:, None, None].expand_as(x)
    result = uv.new_zeros((len(uv), size, size))
    for columns, share_x in ((left, 1 - s), (left + 1, s)):
        for rows, share_y in ((top, 1 - t), ((top + 1).clamp(max=size - 1), t)):
            index = (image, rows.long(), columns.long() % size)
            result.index_put_(index, share_x * share_y * coverage[:, 0], accumulate=True)
    return result
