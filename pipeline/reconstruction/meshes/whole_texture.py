"""The whole texture of a photographed object: what the photograph shows, completed without seams.

A texel takes, in this order, the color of the pixel onto which it projects, the color of its mirror
image, and the color that the network predicts. Where one source ends, it fades into the next one,
whose colors have been shifted smoothly to meet it. The background never gets in: near the outline of
the object, the photograph is painted over from inside.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt, maximum_filter
from torch import Tensor

from geometry.operators import vertex_normals
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import mirror_map
from rendering.inverse import surface_map
from rendering.pull_push import pull_push
from rendering.rasterizer import rasterize
from rendering.texture import sample_texture

DEPTH_SIZE = 512  # pixels of the rendering that tells what hides what
DEPTH_TOLERANCE = 0.02  # screen units behind the nearest surface that count as visible
GRAZING, FACING = 0.1, 0.45  # cosines of the viewing angles: nothing is taken, all of it
FADE = 1 / 40  # of the texture, from the border of what is visible to its full weight
FRINGE = 0.006  # of the crop, the width of an outline that the background may color
LEAST_FRINGE = 1.5  # pixels
SHIFT_CELLS = 64  # across the texture, in which differences of color are averaged


def whole_texture(
    template: SphereMesh, crop: Tensor, screen: Tensor, predicted: Tensor, resolution: int
) -> Tensor:
    """Returns the texture (3, R, R) in [-1, 1] of an object.

    Args:
        template: topology and texture coordinates.
        crop: (4, h, h) RGB and mask in [0, 1]; the background keeps its colors.
        screen: (V, 3) vertices under the camera of the crop.
        predicted: (3, r, r) the network's texture in [-1, 1], symmetric.
        resolution: R.
    """
    seen, weight = observe(template, crop, screen, resolution)
    fallback = resample(predicted[None], resolution)
    texture = complete(seen, weight, fallback)
    # All texels of an outer row are the same point
    poles = texture[..., [0, -1], :].mean(-1, keepdim=True).expand(-1, -1, -1, resolution)
    return torch.cat([poles[..., :1, :], texture[..., 1:-1, :], poles[..., 1:, :]], -2)[0]


def observe(
    template: SphereMesh, crop: Tensor, screen: Tensor, resolution: int
) -> tuple[Tensor, Tensor]:
    """Projects a photograph onto its mesh.

    Args:
        template, crop, screen, resolution: as in `whole_texture`.

    Returns:
        colors (1, 3, R, R) in [-1, 1], and how far to trust them (1, 1, R, R) in [0, 1]: 0 where the
        surface is hidden or outside the mask, rising with the distance from there and as the surface
        turns to the viewer.
    """
    # Place, depth and viewing angle of every texel
    normals = vertex_normals(screen, template.faces)
    attributes = torch.cat([screen, normals[:, 2:]], dim=1)[None]
    surface = surface_map(attributes, template, resolution)
    where = surface[:, :2].movedim(1, -1) * surface.new_tensor([1.0, -1.0])  # rows run downwards
    depth, cosine = surface[:, 2:3], surface[:, 3:4]
    # What is not hidden, faces the viewer and lies on the object
    colors, inside = _inner_colors(crop)
    nearest = _sample(_depth(template, screen), where, "nearest")
    seen = ((depth > nearest - DEPTH_TOLERANCE) & (cosine > GRAZING)).to(colors)
    trust = _sample(inside, where, "bilinear") * _smoothstep(cosine, GRAZING, FACING)
    border = _distance_around(seen * (trust > 0))
    weight = seen * trust * _smoothstep(border, 0.0, FADE * resolution)
    return _sample(2 * colors - 1, where, "bilinear"), weight


def complete(seen: Tensor, weight: Tensor, fallback: Tensor) -> Tensor:
    """Completes what is seen by its mirror image, and both by a fallback.

    Args:
        seen: (B, 3, R, R) colors.
        weight: (B, 1, R, R) in [0, 1], how far each is to be trusted.
        fallback: (B, 3, R, R).

    Returns:
        (B, 3, R, R), continuous where weights are.
    """
    mirrored, mirrored_weight = mirror_map(seen), mirror_map(weight)
    # The mirror image meets what is seen where both are known
    mirrored = mirrored + _shift(seen - mirrored, weight * mirrored_weight)
    both = weight + (1 - weight) * mirrored_weight
    known = weight * seen + (1 - weight) * mirrored_weight * mirrored
    # The fallback meets the two
    fallback = fallback + _shift(known / both.clamp(min=1e-6) - fallback, both)
    return (known + (1 - both) * fallback).clamp(-1, 1)


def resample(texture: Tensor, resolution: int) -> Tensor:
    """Resizes textures (B, C, r, r) to (B, C, R, R), row 0 on v = 1 in both."""
    u = (torch.arange(resolution, dtype=texture.dtype, device=texture.device) + 0.5) / resolution
    v = torch.linspace(1, 0, resolution, dtype=texture.dtype, device=texture.device)
    uv = torch.stack([u.expand(resolution, -1), v[:, None].expand(-1, resolution)])
    return sample_texture(texture, uv.expand(len(texture), -1, -1, -1))


def _shift(difference: Tensor, weight: Tensor) -> Tensor:
    """Smooth field (B, C, R, R) that follows differences where they are known, by their weights."""
    size = weight.shape[-1]
    cells = min(SHIFT_CELLS, size)
    mass = F.adaptive_avg_pool2d(weight, cells)
    means = F.adaptive_avg_pool2d(difference * weight, cells) / mass.clamp(min=1e-6)
    # Cells that are known a little count fully: there is nothing better
    filled = pull_push(means, (8 * mass).clamp(max=1), around=True)
    padded = torch.cat([filled[..., -1:], filled, filled[..., :1]], dim=-1)
    wide = round(size * (cells + 2) / cells)
    smooth = F.interpolate(padded, (size, wide), mode="bilinear", align_corners=False)
    start = (wide - size) // 2
    return smooth[..., start : start + size]


def _inner_colors(crop: Tensor) -> tuple[Tensor, Tensor]:
    """Returns colors (1, 3, h, h) without background, and the trust in them (1, 1, h, h).

    Colors within the fringe of the outline, and outside, are those from further inside.
    """
    padded = np.pad((crop[3] > 0.5).cpu().numpy(), 1)  # the crop ends where the photograph does
    distance = np.asarray(distance_transform_edt(padded))[1:-1, 1:-1]
    fringe = max(LEAST_FRINGE, FRINGE * crop.shape[-1])
    # Thin parts have nothing further inside: their middle counts
    middle = (distance >= 2) & (distance == maximum_filter(distance, 3))
    kept = torch.from_numpy((distance > fringe) | middle)[None, None].to(crop)
    trust = torch.from_numpy((distance / (2 * fringe)).clip(0, 1))[None, None].to(crop)
    return pull_push(crop[None, :3], kept), trust


def _depth(template: SphereMesh, screen: Tensor) -> Tensor:
    """Depth of the nearest surface (1, 1, h, h); far behind everything outside."""
    raster = rasterize(
        screen[None], template.faces, DEPTH_SIZE, attributes=screen[None, :, 2:], soft=False
    )
    assert raster.attributes is not None
    return torch.where(raster.coverage > 0, raster.attributes, -torch.inf)


def _sample(image: Tensor, where: Tensor, mode: str) -> Tensor:
    """Looks up images (1, C, h, w) at positions (1, R, R, 2), x right and y down in [-1, 1]."""
    return F.grid_sample(image, where, mode=mode, padding_mode="border", align_corners=False)


def _distance_around(seen: Tensor) -> Tensor:
    """Distance in texels of each texel (1, 1, R, R) to the nearest unseen one, around the sphere."""
    size = seen.shape[-1]
    flags = seen[0, 0].bool().cpu().numpy()
    if flags.all():
        return torch.full_like(seen, size)
    distance = distance_transform_edt(np.pad(flags, ((0, 0), (size // 2, size // 2)), mode="wrap"))
    middle = np.asarray(distance)[:, size // 2 : size // 2 + size]
    return torch.from_numpy(np.ascontiguousarray(middle))[None, None].to(seen)


def _smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """Rises from 0 at `low` to 1 at `high`, with slopes of 0 at both."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
