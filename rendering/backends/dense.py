"""Naive rasterizer in double precision: every pixel against every face, gradients by autograd.

A transcription of the definition, for tests: memory grows with faces times pixels. Twice
differentiable, on any device.
"""

import torch
from torch import Tensor

from rendering.backends import Options, composed
from rendering.backends.composed import sample_texture, texel_weights

__all__ = ["rasterize", "sample_texture", "silhouette_loss", "texel_weights"]

_AREA_EPSILON = 1e-14  # added to twice the area, keeping its sign
_LENGTH_EPSILON = 1e-13  # added to squared lengths of edges
_OUTSIDE = 4.0  # squared distance of a line whose foot lies outside the edge


def rasterize(
    vertices: Tensor,
    faces: Tensor,
    values: Tensor | None,
    corners: Tensor | None,
    options: Options,
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """As `rendering.rasterizer.rasterize`; images are float64."""
    pixels = _pixel_centers(options.size, vertices.device)
    index, attributes, alpha = [], [], []
    for b in range(len(vertices)):
        # One mesh at a time, so that memory does not grow with the batch
        triangles = vertices[b].double()[faces]  # (F, 3, 3)
        face_index = _visible_faces(triangles, pixels, options.cull)
        index.append(face_index)
        if values is not None and corners is not None:
            shown = values[b].double()[corners]
            attributes.append(_interpolate(triangles, shown, pixels, face_index))
        if options.soft:
            alpha.append(_alpha(triangles, pixels, face_index, options))
    visible = _stack(index, 1, options.size).long()
    return (
        None if values is None else _stack(attributes, values.shape[2], options.size),
        (visible >= 0).double(),
        _stack(alpha, 1, options.size) if options.soft else None,
        None if values is None and options.soft else visible[:, 0],
    )


def silhouette_loss(
    vertices: Tensor, faces: Tensor, targets: Tensor, target_index: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """As `rendering.rasterizer.silhouette_loss`."""
    return composed.silhouette_loss(rasterize, vertices, faces, targets, target_index, options)


def _stack(images: list[Tensor], channels: int, size: int) -> Tensor:
    """Returns (B, channels, size, size), also for an empty list."""
    if not images:
        return torch.zeros((0, channels, size, size), dtype=torch.float64)
    return torch.stack(images).reshape(-1, channels, size, size)


def _pixel_centers(size: int, device: torch.device) -> Tensor:
    """Returns (P, 2) screen positions, row by row from the top."""
    steps = (2 * torch.arange(size, dtype=torch.float64, device=device) + 1 - size) / size
    y, x = torch.meshgrid(-steps, steps, indexing="ij")
    return torch.stack((x, y), -1).reshape(-1, 2)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _weights(corners: Tensor, pixels: Tensor) -> Tensor:
    """Barycentric coordinates (..., 3) of pixels (..., 2) in triangles (..., 3, 2)."""
    e = corners - pixels[..., None, :]
    w = torch.stack([_cross(e[..., (k + 1) % 3, :], e[..., (k + 2) % 3, :]) for k in range(3)], -1)
    total = w.sum(-1, keepdim=True)
    return w / (total + torch.copysign(torch.full_like(total, _AREA_EPSILON), total))


def _in_box(corners: Tensor, pixels: Tensor, margin: float) -> Tensor:
    """Whether pixels (P, 2) lie in the widened, half-open boxes of triangles (F, 3, 2): (F, P)."""
    low = corners.amin(1)[:, None] - margin
    high = corners.amax(1)[:, None] + margin
    return ((pixels >= low) & (pixels < high)).all(-1)


def _visible_faces(triangles: Tensor, pixels: Tensor, cull: bool) -> Tensor:
    """Returns the index (P,) of the nearest face, -1 for none."""
    triangles = triangles.detach()
    flat, z = triangles[..., :2], triangles[..., 2]
    area = _cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0])
    # A pixel is a candidate of every face in whose closed triangle its center lies
    usable = area > 0 if cull else area != 0
    w = _weights(flat[:, None], pixels[None])  # (F, P, 3)
    hit = usable[:, None] & _in_box(flat, pixels, 0.0) & (w >= 0).all(-1)
    # Depth is affine on the screen
    depth = z[:, None, 0] + w[..., 1] * (z[:, 1] - z[:, 0])[:, None]
    depth = (depth + w[..., 2] * (z[:, 2] - z[:, 0])[:, None]).float()  # ties in single precision
    depth = depth.masked_fill(~hit, -torch.inf)
    nearest = hit & (depth == depth.amax(0))
    # Of the nearest faces the one with the smallest index wins
    order = torch.arange(len(triangles), device=pixels.device)[:, None]
    first = torch.where(nearest, order, len(triangles)).amin(0)
    return first.masked_fill(first == len(triangles), -1)


def _interpolate(triangles: Tensor, shown: Tensor, pixels: Tensor, face_index: Tensor) -> Tensor:
    """Returns values (C, P) at the visible points, 0 where there are none."""
    covered = face_index >= 0
    visible = face_index[covered]
    w = _weights(triangles[visible, :, :2], pixels[covered])
    values = torch.einsum("pk,pkc->pc", w, shown[visible])
    image = torch.zeros((len(pixels), shown.shape[2]), dtype=torch.float64, device=pixels.device)
    return image.index_put((covered.nonzero()[:, 0],), values).T


def _alpha(triangles: Tensor, pixels: Tensor, face_index: Tensor, options: Options) -> Tensor:
    """Returns the soft silhouette (P,)."""
    corners = triangles[..., :2]
    # The first `max_faces` faces whose widened box holds the pixel, in index order
    near = _in_box(corners.detach(), pixels, options.box_length)
    near &= near.cumsum(0) <= options.max_faces
    # alpha = 1 - prod(1 - p); covered pixels are 1 and pass no gradient to the product
    p = torch.exp(-options.sharpness * _squared_distances(corners, pixels)) * near
    return torch.where(face_index >= 0, 1.0, 1 - (1 - p).prod(0))


def _squared_distances(corners: Tensor, pixels: Tensor) -> Tensor:
    """Squared distances (F, P) to the outlines: three lines, where their foot counts, and corners."""
    points = [corners[:, k, None] for k in range(3)]
    # Nearest of three edges and three corners; argmin chooses it, gather differentiates it
    lines = [_line(points[k], points[(k + 1) % 3], pixels[None]) for k in range(3)]
    ends = [(point - pixels).square().sum(-1) for point in points]
    candidates = torch.stack([*lines, *ends])
    return candidates.gather(0, candidates.detach().argmin(0, keepdim=True))[0]


def _line(a: Tensor, b: Tensor, pixel: Tensor) -> Tensor:
    direction = b - a
    length = direction.square().sum(-1) + _LENGTH_EPSILON
    t = ((pixel - a) * direction).sum(-1) / length
    squared = _cross(direction, pixel - a).square() / length
    return torch.where((t > 0) & (t < 1), squared, _OUTSIDE)
