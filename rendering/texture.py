"""Texture lookup, and renderings of meshes with textures or vertex colors.

A map has row 0 at v = 1 (north pole) and wraps around in u. Texel centers lie at (i + 1/2) / width
horizontally, but the first and last row lie exactly on v = 1 and v = 0.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.sphere_mesh import SphereMesh
from rendering import rasterizer
from rendering.backends import SHARPNESS
from rendering.rasterizer import rasterize


class Rendering(NamedTuple):
    """Images of a batch of meshes.

    Attributes:
        colors: (B, C, h, w), zero outside.
        coverage: (B, 1, h, w) hard silhouette, 0 or 1.
        alpha: (B, 1, h, w) soft silhouette in [0, 1], or None if it was not asked for.
    """

    colors: Tensor
    coverage: Tensor
    alpha: Tensor | None


def sample_texture(texture: Tensor, uv: Tensor, coverage: Tensor | None = None) -> Tensor:
    """Samples textures, bilinear and wrapping around in u.

    Args:
        texture: (B, C, R, R) map, row 0 at v = 1.
        uv: (B, 2, h, w) coordinates in [0, 1].
        coverage: (B, 1, h, w) 1 where to sample, 0 elsewhere; all ones by default.

    Returns:
        (B, C, h, w) colors, 0 where coverage is 0; gradients reach texture and uv.
    """
    # Without coverage every pixel is looked up
    if coverage is None:
        coverage = torch.ones_like(uv[:, :1])
    return rasterizer.call("sample_texture", texture, uv, coverage.detach())


def sample_image(image: Tensor, positions: Tensor) -> Tensor:
    """Looks up images at positions on the screen, bilinear; beyond the image, its border continues.

    Args:
        image: (B, C, h, w).
        positions: (B, 2, H, W) x right and y up in [-1, 1].

    Returns:
        (B, C, H, W); gradients reach images and positions.
    """
    # Rows of an image run downwards
    where = positions.movedim(1, -1) * positions.new_tensor([1.0, -1.0])
    return F.grid_sample(image, where, padding_mode="border", align_corners=False)


def render_textured(
    template: SphereMesh,
    screen_vertices: Tensor,
    texture: Tensor,
    size: int,
    *,
    sharpness: float = SHARPNESS,
    soft: bool = True,
) -> Rendering:
    """Renders meshes with the topology of the sphere, each with its own texture.

    Args:
        template: topology and texture coordinates.
        screen_vertices: (B, V, 3) screen space.
        texture: (B, C, R, R), any number of channels.
        size: image height and width in pixels.
        sharpness: inverse softness of the silhouette.
        soft: whether to render the soft silhouette.

    Returns:
        The rendering; gradients reach vertices and texture.
    """
    # Deferred shading: first the texture coordinates of every pixel, then one lookup
    raster = rasterize(
        screen_vertices,
        template.faces,
        size,
        uvs=template.uvs,
        face_uvs=template.face_uvs,
        sharpness=sharpness,
        soft=soft,
    )
    assert raster.attributes is not None
    colors = sample_texture(texture, raster.attributes, raster.coverage)
    return Rendering(colors, raster.coverage, raster.alpha)


def render_vertex_colors(
    template: SphereMesh,
    screen_vertices: Tensor,
    vertex_colors: Tensor,
    size: int,
    *,
    sharpness: float = SHARPNESS,
    soft: bool = True,
) -> Rendering:
    """Renders meshes with interpolated vertex colors (B, V, C); the rest as in `render_textured`."""
    # Vertex colors need no lookup
    raster = rasterize(
        screen_vertices,
        template.faces,
        size,
        attributes=vertex_colors,
        sharpness=sharpness,
        soft=soft,
    )
    assert raster.attributes is not None
    return Rendering(raster.attributes, raster.coverage, raster.alpha)
