"""CPU rasterizer: autograd around compiled loops; a pool of threads renders one image per task.

Images are rendered one by one, each serially, so that neither the number of threads nor the way
batches are cut changes a bit of the result. See `utils.threads` for the pool.
"""

import threading
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rendering.backends import (
    Options,
    numba_coverage,
    numba_interpolation,
    numba_soft,
    numba_texture,
)
from rendering.backends.numba_scratch import Scratch, make_scratch
from utils.numba_jit import Array
from utils.threads import map_chunks

DEVICE = "cpu"


def rasterize(
    vertices: Tensor,
    faces: Tensor,
    values: Tensor | None,
    corners: Tensor | None,
    options: Options,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """As `rendering.rasterizer.rasterize`; arguments are checked and on the CPU.

    Args:
        vertices: (B, V, 3) screen space.
        faces: (F, 3) int64.
        values: (B, N, C) values to interpolate, or None.
        corners: (F, 3) int64 indices into the values, or None.
        options: size, softness and so on.

    Returns:
        attributes, coverage, alpha, face_index: the members of a `Raster`.
    """
    vertices = vertices.float()
    alpha = coverage = face_index = attributes = None
    # The soft silhouette brings its own coverage, without a depth test
    if options.soft:
        alpha, coverage = _SoftSilhouette.apply(vertices, faces, options)
    # Attributes need the visible faces
    if values is not None or not options.soft:
        face_index = _visible_faces(vertices, faces, options)
        coverage = (face_index >= 0).unsqueeze(1).float()
    if values is not None and corners is not None:
        attributes = _Interpolation.apply(vertices, values.float(), faces, corners, face_index)
    return attributes, coverage, alpha, face_index


def silhouette_loss(
    vertices: Tensor, faces: Tensor, targets: Tensor, target_index: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """As `rendering.rasterizer.silhouette_loss`; arguments are checked and on the CPU."""
    return _SilhouetteLoss.apply(vertices.float(), faces, targets.float(), target_index, options)


def sample_texture(texture: Tensor, uv: Tensor, coverage: Tensor) -> Tensor:
    """As `rendering.texture.sample_texture`; arguments are checked and on the CPU."""
    return _Lookup.apply(texture.float(), uv.float(), coverage)


def texel_weights(uv: Tensor, coverage: Tensor, size: int) -> Tensor:
    """Returns the bilinear weights (B, size, size) of each texel, summed over the covered pixels."""
    result = torch.zeros((len(uv), size * size))
    where, covered, weights = (
        _array(uv.float().flatten(2)),
        _array(coverage.flatten(1)),
        _array(result),
    )

    def collect(begin: int, end: int) -> None:
        for b in range(begin, end):
            numba_texture.texel_weights(where[b], covered[b], size, size, weights[b])

    map_chunks(collect, len(uv))
    return result.unflatten(1, (size, size))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _indices(tensor: Tensor) -> Array:
    """Unsigned view: compiled loops then need no test for negative indices."""
    return _array(tensor).view(np.uintp)


@cache
def _local() -> threading.local:
    return threading.local()


def _scratch(num_vertices: int, num_faces: int, size: int, larger: bool = False) -> Scratch:
    """Returns the buffers of the calling thread, with twice the capacity if `larger`."""
    local = _local()
    key = (num_vertices, num_faces, size)
    # Buffers fit one kind of mesh and image; about 4 fragments per pixel suffice in most cases
    known = getattr(local, "key", None) == key
    if not known or larger:
        capacity = 2 * len(local.scratch.pixel) if known else 4 * size * size + 32768
        local.key, local.scratch = key, make_scratch(*key, capacity)
    return local.scratch


def _visible_faces(vertices: Tensor, faces: Tensor, options: Options) -> Tensor:
    """Returns the index (B, h, w) of the visible face, -1 for none."""
    size = options.size
    face_index = torch.zeros((len(vertices), size, size), dtype=torch.int64)
    meshes, triangles, result = _array(vertices), _indices(faces), face_index.flatten(1).numpy()

    def find(begin: int, end: int) -> None:
        scratch = _scratch(vertices.shape[1], len(faces), size)
        for b in range(begin, end):
            numba_coverage.visible_faces(
                meshes[b], triangles, size, options.cull, scratch.points, scratch.depth, result[b]
            )

    map_chunks(find, len(vertices))
    return face_index


class _SilhouetteLoss(torch.autograd.Function):
    """Loss whose gradient is computed in the forward pass; only that (B, V, 3) is stored."""

    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        faces: Tensor,
        targets: Tensor,
        target_index: Tensor,
        options: Options,
    ) -> tuple[Tensor, Tensor]:
        loss, iou = vertices.new_zeros(len(vertices)), vertices.new_zeros(len(vertices))
        gradient = torch.zeros_like(vertices, memory_format=torch.contiguous_format)
        sources = (_array(vertices), _indices(faces), _array(targets), _array(target_index))
        results = (loss.numpy(), iou.numpy(), gradient.numpy())
        settings = (options.sharpness, options.cull, options.box_length, options.max_faces)
        key = (vertices.shape[1], len(faces), options.size)

        def compare(begin: int, end: int) -> None:
            scratch = _scratch(*key)
            # The kernel stops at a mesh that needs larger buffers, and goes on with it
            while begin < end:
                begin = numba_soft.silhouette_losses(
                    *sources, begin, end, *settings, scratch, *results
                )
                if begin < end:
                    scratch = _scratch(*key, larger=True)

        map_chunks(compare, len(vertices))
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(iou)
        return loss, iou

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradients[0][:, None, None] * gradient, None, None, None, None


class _SoftSilhouette(torch.autograd.Function):
    """Alpha and coverage of meshes; stores which pixels each face meets, and computes the rest anew."""

    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, faces: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        shape = (len(vertices), 1, options.size, options.size)
        alpha, coverage = vertices.new_empty(shape), vertices.new_empty(shape)
        meshes, triangles = _array(vertices), _indices(faces)
        results = tuple(image.flatten(1).numpy() for image in (alpha, coverage))
        keep = ctx.needs_input_grad[0]
        fragments: list[Any] = [None] * len(vertices)
        key = (vertices.shape[1], len(faces), options.size)

        def render(begin: int, end: int) -> None:
            scratch = _scratch(*key)
            for b in range(begin, end):
                images = [image[b] for image in results]
                mesh = (meshes[b], triangles, options.size, options.sharpness, options.cull)
                limits = (options.box_length, options.max_faces)
                # Retry with larger buffers while there are too few
                while (n := numba_soft.soft_silhouette(*mesh, *limits, scratch, *images)) < 0:
                    scratch = _scratch(*key, larger=True)
                # Copy what the backward pass needs; the buffers belong to the thread
                if keep:
                    fragments[b] = (scratch.pixel[:n].copy(), scratch.starts.copy())

        map_chunks(render, len(vertices))
        ctx.fragments, ctx.options = fragments, options
        ctx.mark_non_differentiable(coverage)
        ctx.save_for_backward(vertices, faces, alpha)
        return alpha, coverage

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        vertices, faces, alpha = ctx.saved_tensors
        gradient = torch.zeros_like(vertices, memory_format=torch.contiguous_format)
        meshes, triangles, result = _array(vertices), _indices(faces), gradient.numpy()
        images = [_array(image.flatten(1)) for image in (alpha, gradients[0])]
        size, sharpness = ctx.options.size, ctx.options.sharpness

        def scatter(begin: int, end: int) -> None:
            scratch = _scratch(vertices.shape[1], len(faces), size)
            for b in range(begin, end):
                numba_coverage.to_pixels(meshes[b], size, scratch.points)
                mesh = (meshes[b], triangles, size, sharpness, scratch.points)
                numba_soft.soft_gradient(
                    *mesh, *ctx.fragments[b], *(image[b] for image in images), result[b]
                )

        map_chunks(scatter, len(vertices))
        return gradient, None, None


class _Interpolation(torch.autograd.Function):
    """Values interpolated over the visible faces; stores the arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        values: Tensor,
        faces: Tensor,
        corners: Tensor,
        face_index: Tensor,
    ) -> Tensor:
        batch, size = face_index.shape[:2]
        image = vertices.new_zeros((batch, values.shape[2], size, size))
        inputs = [_array(vertices), _indices(faces), _array(values), _indices(corners)]
        ctx.save_for_backward(vertices, values, faces, corners, face_index)
        index, result = face_index.numpy(), image.numpy()

        def interpolate(begin: int, end: int) -> None:
            for b in range(begin, end):
                mesh = _of_image(inputs, b)
                numba_interpolation.interpolate(*mesh, index[b], result[b])

        map_chunks(interpolate, batch)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        vertices, values, faces, corners, face_index = ctx.saved_tensors
        inputs = [_array(vertices), _indices(faces), _array(values), _indices(corners)]
        # Sums over many pixels, hence in double precision
        results = [torch.zeros(tensor.shape, dtype=torch.float64) for tensor in (vertices, values)]
        arrays, index = [result.numpy() for result in results], face_index.numpy()
        image, need_values = _array(gradients[0]), ctx.needs_input_grad[1]

        def scatter(begin: int, end: int) -> None:
            for b in range(begin, end):
                mesh, targets = _of_image(inputs, b), [array[b] for array in arrays]
                numba_interpolation.interpolation_gradient(
                    *mesh, index[b], image[b], *targets, need_values
                )

        map_chunks(scatter, len(vertices))
        return results[0].float(), results[1].float() if need_values else None, None, None, None


class _Lookup(torch.autograd.Function):
    """Texture lookup; stores the arguments."""

    @staticmethod
    def forward(ctx: Any, texture: Tensor, uv: Tensor, coverage: Tensor) -> Tensor:
        image = texture.new_zeros((len(uv), texture.shape[1], *uv.shape[2:]))
        ctx.save_for_backward(texture, uv, coverage)
        size = texture.shape[2:]
        colors, result = _array(texture.flatten(2)), image.flatten(2).numpy()
        where, covered = _array(uv.flatten(2)), _array(coverage.flatten(1))

        def look_up(begin: int, end: int) -> None:
            for b in range(begin, end):
                numba_texture.lookup(colors[b], *size, where[b], covered[b], result[b])

        map_chunks(look_up, len(uv))
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        texture, uv, coverage = ctx.saved_tensors
        wanted, size = ctx.needs_input_grad[0], texture.shape[2:]
        of_texture = torch.zeros(texture.shape if wanted else (len(uv), 0, 0, 0))
        of_uv = torch.zeros(uv.shape)
        colors, where, given, *results = (
            _array(tensor.flatten(2)) for tensor in (texture, uv, gradients[0], of_texture, of_uv)
        )
        covered = _array(coverage.flatten(1))

        def scatter(begin: int, end: int) -> None:
            for b in range(begin, end):
                targets = (result[b] for result in results)
                numba_texture.lookup_gradient(
                    colors[b], *size, where[b], covered[b], given[b], *targets
                )

        map_chunks(scatter, len(uv))
        return of_texture if wanted else None, of_uv, None


def _of_image(inputs: list[Array], b: int) -> tuple[Array, Array, Array, Array]:
    vertices, faces, values, corners = inputs
    return vertices[b], faces, values[b], corners
