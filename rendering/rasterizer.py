"""Differentiable rasterizer: hard coverage, soft silhouette (DIB-R) and interpolated attributes.

Screen space: x right, y up, the image spans [-1, 1]^2, z towards the viewer. Interpolation is
affine on the screen. Of the faces that cover a pixel center the one with the largest z wins, the
first one if several tie. Outside the silhouette, with d_f the distance to the outline of face f,

    alpha = 1 - prod_f (1 - exp(-sharpness * d_f^2))

over the first `max_faces` faces (in index order, seen from either side) whose bounding box, widened
by `box_length`, holds the pixel center (Chen et al. 2019, https://arxiv.org/abs/1908.01210).
"""

import importlib
import logging
import os
import shutil
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rendering.backends import BOX_LENGTH, MAX_FACES, SHARPNESS, Options
from utils.cli import UserError

BACKENDS = {  # name -> module of this package with rasterize(...) and silhouette_loss(...)
    "numba": ".backends.numba_cpu",
    "triton": ".backends.triton_cuda",
    "kaolin": ".backends.kaolin_cuda",
    "dense": ".backends.dense",
}
_GPU_BACKENDS = {  # name of package and backend -> where to get it
    "triton": "https://triton-lang.org",
    "kaolin": "https://kaolin.readthedocs.io",
}
_VARIABLE = "TMG_RASTERIZER"
_MAX_FACES_LIMIT = 255  # the count of a pixel is one byte
_LARGEST = 2**15 - 1  # pixels a side: row and column of a pixel share 4 bytes

logger = logging.getLogger(__name__)


class Raster(NamedTuple):
    """Images of B meshes; members that were not asked for are None.

    Attributes:
        attributes: (B, C, h, w) interpolated vertex attributes, or (B, 2, h, w) uv; 0 outside.
        coverage: (B, 1, h, w) 1 where a face covers the pixel center, else 0; no gradient.
        alpha: (B, 1, h, w) soft silhouette in [0, 1]; 1 where covered.
        face_index: (B, h, w) int64 visible face, -1 outside; None when only alpha was asked for.
    """

    attributes: Tensor | None
    coverage: Tensor
    alpha: Tensor | None
    face_index: Tensor | None


def rasterize(
    vertices: Tensor,
    faces: Tensor,
    size: int,
    *,
    attributes: Tensor | None = None,
    uvs: Tensor | None = None,
    face_uvs: Tensor | None = None,
    sharpness: float = SHARPNESS,
    soft: bool = True,
    cull: bool = True,
    box_length: float = BOX_LENGTH,
    max_faces: int = MAX_FACES,
    backend: str | None = None,
) -> Raster:
    """Renders a batch of meshes that share their faces.

    Gradients flow from alpha to vertices, and from attributes to vertices and vertex attributes
    (or uvs); neither reaches z. Without attributes and uvs only the silhouette is rendered, at a
    fraction of the cost.

    Args:
        vertices: (B, V, 3) float, screen space.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        size: height and width of the image in pixels.
        attributes: (B, V, C) values at the vertices.
        uvs: (U, 2) or (B, U, 2) texture coordinates, instead of attributes; needs `face_uvs`.
        face_uvs: (F, 3) int64 indices into `uvs`.
        sharpness: inverse softness of the silhouette, per squared screen unit.
        soft: whether to render alpha.
        cull: whether faces turned away from the viewer cover nothing.
        box_length: reach of a face beyond its bounding box in screen units.
        max_faces: number of faces that a pixel outside the silhouette takes into account.
        backend: name of a backend; by default the forced one or else the fastest that works.

    Returns:
        Images on the device of the vertices.

    Raises:
        ValueError: if shapes disagree, or the size is out of range.
        FloatingPointError: if vertices are not finite.
    """
    # Compiled loops trust their input, so everything is checked here
    _check_mesh(vertices, faces)
    values, corners = _corner_values(vertices, faces, attributes, uvs, face_uvs)
    options = _options(
        size,
        sharpness=sharpness,
        soft=soft,
        cull=cull,
        box_length=box_length,
        max_faces=max_faces,
    )
    # Tensors travel to the device of the backend, images back to that of the vertices
    module = _load(_choose(backend, vertices.device))
    device = _device(module, vertices)
    inputs = (_to(tensor, device) for tensor in (vertices, faces, values, corners))
    return Raster(*[_to(image, vertices.device) for image in module.rasterize(*inputs, options)])


def silhouette_loss(
    vertices: Tensor,
    faces: Tensor,
    targets: Tensor,
    target_index: Tensor,
    *,
    sharpness: float = SHARPNESS,
    cull: bool = True,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Compares soft silhouettes with masks; several meshes may share a mask.

    The CPU backend computes loss and gradient in one pass and stores no images.

    Args:
        vertices: (B, V, 3) float, screen space.
        faces: (F, 3) int64.
        targets: (N, h, h) masks in [0, 1].
        target_index: (B,) int64, the mask that belongs to each mesh.
        sharpness: inverse softness of the silhouette, per squared screen unit.
        cull: whether faces turned away from the viewer cover nothing.
        backend: name of a backend; by default the forced one or else the fastest that works.

    Returns:
        loss: (B,) mean squared error over the pixels; differentiable in vertices.
        iou: (B,) intersection over union of alpha > 0.5 and mask > 0.5; no gradient.

    Raises:
        ValueError: if shapes disagree, or an index or the size is out of range.
        FloatingPointError: if vertices are not finite.
    """
    # As in `rasterize`, but without images: a loss and an IoU per mesh
    _check_mesh(vertices, faces)
    _check_targets(vertices, targets, target_index)
    options = _options(targets.shape[1], sharpness=sharpness, cull=cull)
    module = _load(_choose(backend, vertices.device))
    device = _device(module, vertices)
    inputs = (tensor.to(device) for tensor in (vertices, faces, targets, target_index))
    loss, iou = module.silhouette_loss(*inputs, options)
    return loss.to(vertices.device), iou.to(vertices.device)


def call(operation: str, images: Tensor, *arguments: Any) -> Tensor:
    """Calls an operation on images in the backend that renders on their device.

    Args:
        operation: name of a function that every backend has.
        images: first argument.
        *arguments: the other ones; tensors among them are moved with the images.
    """
    module = _load(_choose(None, images.device))
    device = _device(module, images)
    moved = (x.to(device) if isinstance(x, Tensor) else x for x in arguments)
    return getattr(module, operation)(images.to(device), *moved).to(images.device)


def available_backends() -> list[str]:
    """Names of the backends whose requirements this machine meets."""
    return [name for name in BACKENDS if not _missing(name)]


def _missing(name: str) -> str:
    """Describes the first requirement of a backend that this machine lacks; empty if none."""
    if name not in _GPU_BACKENDS:
        return ""
    if find_spec(name) is None:
        return f"the package {name}; see {_GPU_BACKENDS[name]}"
    # The interpreter needs neither GPU nor compiler
    if name == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if not torch.cuda.is_available():
        return "a CUDA device"
    if name == "triton" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "a C compiler, with which Triton starts its kernels; install gcc"
    return ""


def set_backend(name: str) -> None:
    """Forces a backend in this process and its children; "auto" restores the fastest.

    Raises:
        UserError: if the name is unknown, or this machine lacks what the backend needs.
    """
    _check_backend(name)
    os.environ[_VARIABLE] = name


def _check_backend(name: str) -> None:
    if name != "auto" and name not in BACKENDS:
        raise UserError(
            f"rasterizer {name!r} is not known; available: auto, {', '.join(BACKENDS)}."
        )
    if missing := _missing(name):
        raise UserError(f"rasterizer {name!r} lacks {missing}. Use --rasterizer auto.")


def _choose(backend: str | None, device: torch.device) -> str:
    name = backend or os.environ.get(_VARIABLE, "auto")
    _check_backend(name)
    return _fastest(device.type) if name == "auto" else name


@cache
def _fastest(device: str) -> str:
    """Name of the fastest backend for tensors on a kind of device."""
    # On a GPU, its own kernels come first; without them images are rendered on the CPU
    if device != "cuda":
        return "numba"
    name = next((name for name in ("triton", "kaolin") if not _missing(name)), "numba")
    if name == "numba":
        logger.warning("rendering on the CPU: the rasterizer for GPUs lacks %s", _missing("triton"))
    return name


def _load(name: str) -> ModuleType:
    return importlib.import_module(BACKENDS[name], __package__)


def _device(module: ModuleType, vertices: Tensor) -> torch.device:
    """The device of the vertices if the backend supports it, else the only one it supports."""
    # Backends without DEVICE run anywhere
    only = getattr(module, "DEVICE", None)
    return vertices.device if only is None or only == vertices.device.type else torch.device(only)


def _to(tensor: Tensor | None, device: torch.device) -> Any:
    return None if tensor is None else tensor.to(device)


def _options(size: int, **settings: Any) -> Options:
    options = Options(size, **settings)
    if not 1 <= size <= _LARGEST:
        raise ValueError(f"size: expected 1 to {_LARGEST} pixels, got {size}.")
    if not 1 <= options.max_faces <= _MAX_FACES_LIMIT:
        raise ValueError(f"max_faces: expected 1 to {_MAX_FACES_LIMIT}, got {options.max_faces}.")
    # Compiled loops are made once for every combination of types
    return options._replace(
        sharpness=float(options.sharpness), box_length=float(options.box_length)
    )


def _check_mesh(vertices: Tensor, faces: Tensor) -> None:
    if vertices.dim() != 3 or vertices.shape[2] != 3:
        raise ValueError(f"vertices: expected shape (B, V, 3), got {tuple(vertices.shape)}.")
    _check_indices("faces", faces, vertices.shape[1])
    # One sum instead of a mask over all coordinates: NaN and infinity survive it
    if not torch.isfinite(vertices.detach().sum()):
        raise FloatingPointError("vertices: expected finite coordinates, got NaN or infinity.")


def _check_indices(name: str, indices: Tensor, limit: int) -> None:
    """Compiled loops do not check their indices, so wrong ones must not get there."""
    if indices.dim() != 2 or indices.shape[1] != 3:
        raise ValueError(f"{name}: expected shape (F, 3), got {tuple(indices.shape)}.")
    if indices.dtype != torch.int64:
        raise ValueError(f"{name}: expected int64, got {indices.dtype}.")
    if indices.numel() and not (int(indices.min()) >= 0 and int(indices.max()) < limit):
        raise ValueError(f"{name}: expected indices in [0, {limit}), got others.")


def _check_targets(vertices: Tensor, targets: Tensor, target_index: Tensor) -> None:
    if targets.dim() != 3 or targets.shape[1] != targets.shape[2]:
        raise ValueError(f"targets: expected shape (N, h, h), got {tuple(targets.shape)}.")
    if target_index.shape != vertices.shape[:1] or target_index.dtype != torch.int64:
        raise ValueError(
            f"target_index: expected int64 of shape ({len(vertices)},), got "
            f"{target_index.dtype} of shape {tuple(target_index.shape)}."
        )
    if len(vertices) and not (
        int(target_index.min()) >= 0 and int(target_index.max()) < len(targets)
    ):
        raise ValueError(f"target_index: expected indices in [0, {len(targets)}), got others.")


def _corner_values(
    vertices: Tensor,
    faces: Tensor,
    attributes: Tensor | None,
    uvs: Tensor | None,
    face_uvs: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Values (B, N, C) to interpolate, and the indices (F, 3) of those at the corners of faces."""
    if (uvs is None) != (face_uvs is None) or (uvs is not None and attributes is not None):
        raise ValueError("expected either attributes, or uvs with face_uvs, or neither.")
    # Vertex attributes share the indices of the faces
    if attributes is not None:
        if attributes.dim() != 3 or attributes.shape[:2] != vertices.shape[:2]:
            raise ValueError(
                f"attributes: expected shape {(*vertices.shape[:2], 'C')}, "
                f"got {tuple(attributes.shape)}."
            )
        return attributes, faces
    if uvs is None or face_uvs is None:
        return None, None
    # Texture coordinates have indices of their own, so that seams and poles can have several
    batched = uvs.expand(len(vertices), -1, -1) if uvs.dim() == 2 else uvs
    if batched.dim() != 3 or batched.shape[0] != len(vertices) or batched.shape[2] != 2:
        raise ValueError(f"uvs: expected shape (U, 2) or (B, U, 2), got {tuple(uvs.shape)}.")
    _check_indices("face_uvs", face_uvs, uvs.shape[-2])
    if face_uvs.shape != faces.shape:
        raise ValueError(
            f"face_uvs: expected shape {tuple(faces.shape)}, got {tuple(face_uvs.shape)}."
        )
    return batched, face_uvs
