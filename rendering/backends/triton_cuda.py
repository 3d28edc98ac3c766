"""GPU rasterizer: autograd around Triton kernels (`triton_kernels`).

Faces are sorted into tiles of 16 x 16 pixels, in index order within a tile; a program renders a
tile. Gradients are collected face by face and then vertex by vertex, without atomics, so that they
are the same bits in every run and for every split of a batch. With TRITON_INTERPRET=1 the kernels
run on the CPU, slowly, for tests.
"""

# pyright: reportCallIssue=false, reportArgumentType=false

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rendering.backends import Options
from rendering.backends import triton_kernels as kernels
from rendering.backends.composed import sample_texture, texel_weights

__all__ = ["rasterize", "sample_texture", "silhouette_loss", "texel_weights"]

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
_TILE = 16  # pixels
_BLOCK = 128  # pixels that a program handles at once where it walks a box
_CHUNK = 1 << 24  # pixels of the images that exist at once while losses are computed
_FAR = 1e8  # pixels; keeps products of coordinates finite in single precision


def rasterize(
    vertices: Tensor,
    faces: Tensor,
    values: Tensor | None,
    corners: Tensor | None,
    options: Options,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """As `rendering.rasterizer.rasterize`; arguments are checked and on one device."""
    with _on(vertices.device):
        points, small = _to_pixels(vertices.float(), options.size), faces.int().contiguous()
        alpha, face_index = _Silhouette.apply(points, small, options)
        coverage = (face_index >= 0).unsqueeze(1).float()
        attributes = None
        if values is not None and corners is not None:
            indices = corners.int().contiguous()
            attributes = _Interpolation.apply(points, values.float(), small, indices, face_index)
    if not options.soft:
        alpha = None
    return (
        attributes,
        coverage,
        alpha,
        None if values is None and options.soft else face_index.long(),
    )


def silhouette_loss(
    vertices: Tensor, faces: Tensor, targets: Tensor, target_index: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """As `rendering.rasterizer.silhouette_loss`; arguments are checked."""
    with _on(vertices.device):
        points = _to_pixels(vertices.float(), options.size)
        masks = targets.float().flatten(1).contiguous()
        return _SilhouetteLoss.apply(
            points, faces.int().contiguous(), masks, target_index.int(), options
        )


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a GPU the current one, where kernels are launched."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _to_pixels(vertices: Tensor, size: int) -> Tensor:
    """Moves vertices (B, V, 3) to pixels from the middle of the image, y down; z stays."""
    scale = vertices.new_tensor([size / 2, -size / 2, 1.0])
    points = vertices * scale
    far = vertices.new_tensor([_FAR, _FAR, torch.inf])
    return torch.minimum(torch.maximum(points, -far), far).contiguous()


def _margin(options: Options) -> float:
    return options.box_length * options.size / 2


def _bin(points: Tensor, faces: Tensor, options: Options, tiles: int) -> tuple[Tensor, Tensor]:
    """Sorts the faces of B meshes into the tiles that their widened boxes touch.

    Returns:
        order: (P,) int32 face indices, tile by tile, increasing within a tile.
        starts: (B * tiles^2 + 1,) int32 first entry of each tile.
    """
    # Tiles that each face touches, with a pixel of reserve against rounding
    corners = points[:, faces.long(), :2]  # (B, F, 3, 2)
    reach = (_margin(options) if options.soft else 0.0) + 1.0
    middle = (options.size - 1) / 2
    low = ((corners.amin(2) - reach + middle) / _TILE).floor().clamp(0, tiles)
    high = ((corners.amax(2) + reach + middle) / _TILE).floor().clamp(-1, tiles - 1)
    extent = (high - low + 1).clamp(min=0).long()  # (B, F, 2) tiles
    counts = extent.prod(2).flatten()
    total = int(counts.sum())
    # One entry for every pair of a face and a tile
    pair = torch.arange(len(counts), device=points.device)
    owner = pair.repeat_interleave(counts, output_size=total)
    nth = torch.arange(total, device=points.device) - (counts.cumsum(0) - counts)[owner]
    width = extent[..., 0].flatten()[owner]
    column = low[..., 0].flatten().long()[owner] + nth % width
    row = low[..., 1].flatten().long()[owner] + nth // width
    tile = (owner // len(faces) * tiles + row) * tiles + column
    # A stable sort keeps the faces of a tile in index order
    tile, order = tile.sort(stable=True)
    edges = torch.arange(len(points) * tiles * tiles + 1, device=points.device)
    starts = torch.searchsorted(tile, edges)
    return (owner[order] % len(faces)).int(), starts.int()


def _render(
    points: Tensor, faces: Tensor, options: Options, masks: Tensor | None, index: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Launches `render_tiles`: face_index, keep, cutoff (B, h, w) and sums (B, tiles^2, 3)."""
    batch, size = len(points), options.size
    tiles = -(-size // _TILE)
    shape = (batch, size, size)
    face_index = torch.full(shape, -1, dtype=torch.int32, device=points.device)
    soft_shape = shape if options.soft else (0,)
    keep = points.new_ones(soft_shape)
    cutoff = torch.zeros(soft_shape, dtype=torch.int32, device=points.device)
    sums = points.new_zeros((batch, tiles * tiles, 3 if masks is not None else 0))
    if batch:
        order, starts = _bin(points, faces, options, tiles)
        kernels.render_tiles[(batch * tiles * tiles,)](
            *(points, faces, order, starts, face_index, keep, cutoff),
            *(points if masks is None else masks, faces if index is None else index, sums),
            *(points.shape[1], size, tiles),
            *(options.sharpness * 4 / size**2, _margin(options), options.max_faces),
            CULL=options.cull,
            SOFT=options.soft,
            COMPARE=masks is not None,
            TILE=_TILE,
            enable_fp_fusion=False,  # the faces of an edge must compute it alike
        )
    return face_index, keep, cutoff, sums


def _soft_gradient(
    points: Tensor, faces: Tensor, weight: Tensor, cutoff: Tensor, options: Options
) -> Tensor:
    """Gradient (B, V, 3) of the soft silhouette in `points`; weight is (B, h, w)."""
    batch, size = len(points), options.size
    corners = points.new_zeros((batch, 3 * len(faces), 2))
    if corners.numel():
        kernels.soft_gradient[(len(faces), batch)](
            *(points, faces, weight.contiguous(), cutoff, corners),
            *(points.shape[1], len(faces), size),
            *(options.sharpness * 4 / size**2, _margin(options)),
            BLOCK=_BLOCK,
            num_warps=1,
        )
    return torch.nn.functional.pad(_gather(corners, faces, points.shape[1]), (0, 1))


def _gather(corners: Tensor, faces: Tensor, count: int) -> Tensor:
    """Sums values of corners (B, 3 F, C) at the `count` vertices they share: (B, count, C)."""
    batch, _, channels = corners.shape
    result = corners.new_zeros((batch, count, channels))
    if result.numel():
        # Corners sorted by vertex, each vertex a contiguous range
        vertex, order = faces.flatten().sort(stable=True)
        starts = torch.searchsorted(vertex, torch.arange(count + 1, device=faces.device).int())
        kernels.gather_corners[(count, batch)](
            *(corners.contiguous(), order.int(), starts.int(), result),
            *(corners.shape[1], count, channels),
            CHANNELS=max(2, 1 << (channels - 1).bit_length()),
            num_warps=1,
        )
    return result


class _Silhouette(torch.autograd.Function):
    """Alpha and visible faces; stores a float and an integer for every pixel."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, faces: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        face_index, keep, cutoff, _ = _render(points, faces, options, None, None)
        ctx.save_for_backward(points, faces, keep, cutoff)
        ctx.options = options
        ctx.mark_non_differentiable(face_index)
        return (1 - keep).unsqueeze(1), face_index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        points, faces, keep, cutoff = ctx.saved_tensors
        if not ctx.options.soft:
            return None, None, None
        weight = gradients[0][:, 0] * keep
        return _soft_gradient(points, faces, weight, cutoff, ctx.options), None, None


class _SilhouetteLoss(torch.autograd.Function):
    """Loss whose gradient (B, V, 3) is computed in the forward pass, some images at a time."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, faces: Tensor, masks: Tensor, index: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        pixels = options.size**2
        gradient = torch.zeros_like(points)
        sums = points.new_zeros((len(points), 3))
        # Images exist only for a chunk of the batch
        step = max(1, _CHUNK // pixels)
        for begin in range(0, len(points), step):
            some = slice(begin, begin + step)
            part = points[some]
            _, weight, cutoff, tiles = _render(
                part, faces, options, masks, index[some].contiguous()
            )
            sums[some] = tiles.sum(1)
            gradient[some] = _soft_gradient(part, faces, weight, cutoff, options) * (2 / pixels)
        ctx.save_for_backward(gradient)
        error, both, either = sums.unbind(1)
        iou = both / (either + 1e-6)
        ctx.mark_non_differentiable(iou)
        return error / pixels, iou

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradients[0][:, None, None] * gradient, None, None, None, None


class _Interpolation(torch.autograd.Function):
    """Values interpolated over the visible faces; stores the arguments."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, values: Tensor, faces: Tensor, corners: Tensor, face_index: Tensor
    ) -> Tensor:
        values = values.contiguous()
        batch, size = face_index.shape[:2]
        image = points.new_zeros((batch, values.shape[2], size, size))
        if image.numel() and len(faces):
            kernels.interpolate[(-(-size * size // _BLOCK), batch)](
                *(points, faces, values, corners, face_index, image),
                *(points.shape[1], values.shape[1], values.shape[2], size),
                BLOCK=_BLOCK,
            )
        ctx.save_for_backward(points, values, faces, corners, face_index)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        points, values, faces, corners, face_index = ctx.saved_tensors
        sums = _corner_sums(points, faces, face_index, gradients[0].contiguous())
        moved = _vertex_gradient(points, values, faces, corners, sums)
        shaded = _gather(sums.flatten(1, 2), corners, values.shape[1])
        return moved, shaded, None, None, None


def _corner_sums(points: Tensor, faces: Tensor, face_index: Tensor, gradient: Tensor) -> Tensor:
    """Sums (B, F, 3, C) of barycentric weight times gradient (B, C, h, w) over visible pixels."""
    batch, channels, size = gradient.shape[:3]
    sums = points.new_zeros((batch, len(faces), 3, channels))
    if sums.numel():
        kernels.corner_sums[(len(faces), batch)](
            *(points, faces, face_index, gradient, sums),
            *(points.shape[1], len(faces), channels, size),
            BLOCK=_BLOCK,
            num_warps=1,
        )
    return sums


def _vertex_gradient(
    points: Tensor, values: Tensor, faces: Tensor, corners: Tensor, sums: Tensor
) -> Tensor:
    """Gradient (B, V, 3) of the interpolated image in `points`.

    The value is linear on a face, and moving the surface to the right is equivalent to moving the
    pixel to the left: corner i gets minus its weight times the slope of the value.
    """
    # Slopes of the barycentric weights on each face, in double precision for slivers
    xy = points[:, faces.long(), :2].double()  # (B, F, 3, 2)
    u, v = (xy[:, :, 1:] - xy[:, :, :1]).unbind(2)
    area = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    inverse = torch.stack([v[..., 1], -v[..., 0], -u[..., 1], u[..., 0]], dim=-1)
    planes = (inverse / area[..., None]).unflatten(-1, (2, 2))  # slopes of weights 1 and 2
    planes = torch.where(area[..., None, None] == 0, 0.0, planes)
    # Slopes of the values, then the share of each corner
    value = values[:, corners.long()].double()  # (B, F, 3, C)
    steps = value[:, :, 1:] - value[:, :, :1]
    slopes = torch.einsum("bfkc,bfkd->bfcd", steps, planes)
    corner = -torch.einsum("bfic,bfcd->bfid", sums.double(), slopes).float()
    gathered = _gather(corner.flatten(1, 2), faces, points.shape[1])
    return torch.nn.functional.pad(gathered, (0, 1))
