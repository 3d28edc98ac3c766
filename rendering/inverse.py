"""Inverse rendering: from images to texture space."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from geometry.sphere_mesh import SphereMesh
from rendering import rasterizer
from rendering.rasterizer import rasterize


def unwrap(
    images: Tensor, screen_vertices: Tensor, template: SphereMesh, resolution: int
) -> tuple[Tensor, Tensor]:
    """Projects the pixels of images back onto textures.

    Every texel takes the color of the pixel onto which its surface point projects, occluded or not;
    multiply by `visibility` to keep what is seen.

    Args:
        images: (B, C, h, w).
        screen_vertices: (B, V, 3) screen space.
        template: topology and texture coordinates.
        resolution: height and width of the texture in texels.

    Returns:
        texture (B, C, resolution, resolution), zero outside the layout and the image, and coverage
        (B, 1, resolution, resolution), 1 where the texture layout has a face.
    """
    # Rasterize the texture layout instead of the screen, and interpolate screen positions on it
    layout = F.pad(2 * template.uvs - 1, (0, 1)).expand(len(images), -1, -1)
    raster = rasterize(
        layout,
        template.face_uvs,
        resolution,
        uvs=(screen_vertices[..., :2] + 1) / 2,
        face_uvs=template.faces,
        soft=False,
        cull=False,
    )
    assert raster.attributes is not None
    # Sample the images at these positions; rows of an image run downwards
    where = raster.attributes.movedim(1, -1) * 2 - 1  # (B, R, R, 2), y up
    where = where * where.new_tensor([1.0, -1.0])
    texture = F.grid_sample(images, where, align_corners=True)
    return texture * raster.coverage, raster.coverage


def surface_map(values: Tensor, template: SphereMesh, resolution: int) -> Tensor:
    """Spreads values at the vertices over texture space, exactly as renderings read textures.

    Texel centers lie at (i + 1/2) / width, but the first and last row on v = 1 and v = 0. Texels in the
    gaps between the triangles at the poles take the value of the nearest one on a triangle.

    Args:
        values: (B, V, C).
        template: topology and texture coordinates.
        resolution: R, height and width of the map in texels.

    Returns:
        (B, C, R, R).
    """
    # Rows are stretched so that the outer ones lie on the poles
    stretch = template.uvs.new_tensor([1.0, (resolution - 1) / resolution, 0.0])
    layout = F.pad(2 * template.uvs - 1, (0, 1)) * stretch
    # Every texture coordinate belongs to one vertex
    owner = torch.empty(len(template.uvs), dtype=torch.int64, device=values.device)
    owner[template.face_uvs.flatten()] = template.faces.flatten()
    raster = rasterize(
        layout.expand(len(values), -1, -1),
        template.face_uvs,
        resolution,
        attributes=values[:, owner],
        soft=False,
        cull=False,
    )
    assert raster.attributes is not None
    gaps = (raster.coverage[0, 0] == 0).cpu().numpy()
    nearest = distance_transform_edt(gaps, return_distances=False, return_indices=True)
    row, column = torch.from_numpy(np.asarray(nearest)).to(values.device)
    return raster.attributes[..., row, column]


def visibility(
    template: SphereMesh, screen_vertices: Tensor, texture_size: int, render_size: int
) -> Tensor:
    """Measures how much of each texel is visible in a rendering of the mesh.

    Args:
        template: topology and texture coordinates.
        screen_vertices: (B, V, 3) screen space.
        texture_size: height and width of the texture in texels.
        render_size: height and width of the rendering in pixels.

    Returns:
        (B, 1, texture_size, texture_size) bilinear weights of each texel, summed over the pixels; 0
        where it is occluded.
    """
    # Every visible pixel distributes a weight of 1 over the four texels that it interpolates
    raster = rasterize(
        screen_vertices.detach(),
        template.faces,
        render_size,
        uvs=template.uvs,
        face_uvs=template.face_uvs,
        soft=False,
    )
    assert raster.attributes is not None
    weights = rasterizer.call("texel_weights", raster.attributes, raster.coverage, texture_size)
    return weights[:, None]
