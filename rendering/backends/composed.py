"""The silhouette loss put together from images, for backends without a fused one."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rendering.backends import Options


def silhouette_loss(
    rasterize: Callable[..., Any],
    vertices: Tensor,
    faces: Tensor,
    targets: Tensor,
    target_index: Tensor,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """Compares as `rendering.rasterizer.silhouette_loss`, with the images of `rasterize`."""
    alpha = rasterize(vertices, faces, None, None, options)[2][:, 0]
    wanted = targets.to(alpha.dtype)[target_index]
    inside, expected = alpha.detach() > 0.5, wanted > 0.5
    both = (inside & expected).sum((1, 2))
    either = (inside | expected).sum((1, 2))
    loss = (alpha - wanted).square().mean((1, 2))
    return loss.to(vertices.dtype), (both / (either + 1e-6)).to(vertices.dtype)
