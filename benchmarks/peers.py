"""Other rasterizers doing the same work, where they are installed: silhouette against a mask.

None of them computes the same function: PyTorch3D blends the nearest faces with a sigmoid,
nvdiffrast antialiases the outline; Kaolin's is the one that the rasterizer here follows.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from rendering.rasterizer import available_backends, rasterize

Function = Callable[[], Tensor]
SLOW = 2**19  # pixels of a batch beyond which PyTorch3D needs minutes on a CPU


def uses(
    vertices: Tensor, faces: Tensor, targets: Tensor, index: Tensor, size: int
) -> dict[str, Function]:
    """Returns, for every peer that can run, a function that returns the summed squared error."""
    wanted = targets[index]

    def error(alpha: Tensor) -> Tensor:
        return (alpha - wanted).square().mean((1, 2)).sum()

    # Peers on the CPU only where they take seconds
    found: dict[str, Function] = {}
    on_gpu = vertices.is_cuda
    if on_gpu and "kaolin" in available_backends():
        found["kaolin"] = lambda: error(_kaolin(vertices, faces, size))
    if find_spec("pytorch3d") and (on_gpu or len(vertices) * size**2 <= SLOW):
        found["pytorch3d"] = lambda: error(_pytorch3d(vertices, faces, size))
    if find_spec("nvdiffrast") and on_gpu:
        found["nvdiffrast"] = lambda: error(_nvdiffrast(vertices, faces, size))
    return found


def _kaolin(vertices: Tensor, faces: Tensor, size: int) -> Tensor:
    alpha = rasterize(vertices, faces, size, backend="kaolin").alpha
    assert alpha is not None
    return alpha[:, 0]


def _pytorch3d(vertices: Tensor, faces: Tensor, size: int) -> Tensor:
    from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend  # pyright: ignore
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes  # pyright: ignore
    from pytorch3d.structures import Meshes  # pyright: ignore

    # PyTorch3D: x left, z away from the camera and positive
    flipped = vertices * vertices.new_tensor([-1.0, 1.0, -1.0]) + vertices.new_tensor([0, 0, 5.0])
    meshes = Meshes(flipped, faces.expand(len(vertices), -1, -1))
    # Sharpness, reach and number of faces as in the rasterizer here
    index, _, barycentric, distance = rasterize_meshes(
        meshes, size, blur_radius=0.02**2, faces_per_pixel=30, perspective_correct=False
    )
    fragments = type("Fragments", (), {"pix_to_face": index, "dists": distance})
    colors = barycentric.new_ones((*index.shape, 3))
    return sigmoid_alpha_blend(colors, fragments, BlendParams(sigma=1 / 7000))[..., 3]


def _nvdiffrast(vertices: Tensor, faces: Tensor, size: int) -> Tensor:
    import nvdiffrast.torch as dr  # pyright: ignore

    context = _nvdiffrast_context()
    # OpenGL clip space: rows run downwards, z within [-1, 1]
    clip = torch.nn.functional.pad(vertices * vertices.new_tensor([1, -1, -0.5]), (0, 1), value=1.0)
    triangles = faces.int()
    # Hard coverage, whose antialiased edges carry the gradient
    raster, _ = dr.rasterize(context, clip.contiguous(), triangles, (size, size))
    coverage = (raster[..., 3:] > 0).float()
    return dr.antialias(coverage, raster, clip.contiguous(), triangles)[..., 0]


@cache
def _nvdiffrast_context() -> Any:
    import nvdiffrast.torch as dr  # pyright: ignore

    return dr.RasterizeCudaContext()
