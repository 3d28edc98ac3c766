"""Texture flow: a texture as the positions at which a photograph shows its texels.

As in the rest of the network, half of a map is predicted, and its mirror image is the other half. A texel
and its mirror image therefore have one position, and one color. That position is where the photograph
shows either of the two: which side of the object it shows is part of what is predicted.

Terms of the loss: Kanazawa et al. 2018 (https://arxiv.org/abs/1803.07549), Li et al. 2020
(https://arxiv.org/abs/2003.06473).
"""

import torch
from torch import Tensor

from geometry.camera import project
from geometry.distances import signed_distance
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import half_map, mirror_map
from models.losses import masked_mean
from pipeline.reconstruction.dataset import Labels
from rendering.inverse import surface_map, visibility
from rendering.texture import sample_image

BARRIER_SLOPE = 50.0  # per height of the image
LEAST_MASK = 0.05  # share of the object in a lookup, below which its color fades to gray
BORDER = 0.95  # of the crop, where flow begins at most


def flow_texture(image: Tensor, flow: Tensor) -> Tensor:
    """Returns the colors (B, 3, R, R) in [-1, 1] that photographs show at positions.

    Pixels outside the mask have no say: next to the outline, the color is that of the object.

    Args:
        image: (B, 4, h, h) colors in [-1, 1] times the mask, then the mask.
        flow: (B, 2, R, R) positions, x right and y up in [-1, 1].
    """
    colors, mask = sample_image(image, flow).split((3, 1), dim=1)
    return colors / mask.clamp(min=LEAST_MASK)


def mirror_flow(flow: Tensor, flip: Tensor) -> Tensor:
    """Returns the positions (B, 2, R, R) of images in their mirror images, for those with `flip` (B,)."""
    sign = 1 - 2 * flip.to(flow)
    return flow * torch.stack([sign, torch.ones_like(sign)], dim=1)[..., None, None]


def flow_start(
    sphere: SphereMesh, shapes: Tensor, labels: Labels, num_categories: int, resolution: int
) -> Tensor:
    """Returns where flow begins: where the shapes of photographs show their texels on average.

    Each photograph counts as often as its mirror image, so that the mean has x = 0.

    Args:
        sphere: topology of the meshes.
        shapes: (T, V, 3) templates.
        labels: of K images.
        num_categories: C.
        resolution: R.

    Returns:
        (C, 2, R, R/2) hyperbolic arctangents of the positions of half maps.
    """
    heights = []
    for category in range(num_categories):
        own = labels.select(torch.nonzero(labels.category == category)[:, 0])
        heights.append(project(shapes[own.template], own.pose)[..., 1].mean(0))
    y = surface_map(torch.stack(heights)[..., None], sphere, resolution)
    y = half_map(y + mirror_map(y)) / 2
    return torch.cat([torch.zeros_like(y), y], dim=1).clamp(-BORDER, BORDER).atanh()


def barrier(masks: Tensor) -> Tensor:
    """Returns what positions cost: 0 inside masks (B, 1, h, w), 1 outside, steep at the outline."""
    return torch.sigmoid(BARRIER_SLOPE / masks.shape[-2] * signed_distance(masks))


def mask_term(flow: Tensor, masks: Tensor) -> Tensor:
    """Returns the mean barrier of masks (B, 1, h, w) at the positions (B, 2, R, R), a scalar."""
    return sample_image(barrier(masks), flow).mean()


def cycle_term(flow: Tensor, screen: Tensor, sphere: SphereMesh, size: int) -> Tensor:
    """Returns how far flow leads from where visible texels are, in squared screen units; a mean over images.

    Each texel counts with the number of pixels that show it or its mirror image; if both are seen, it
    may lead to either, and the nearer one is taken.

    Args:
        flow: (B, 2, R, R) symmetric maps of positions.
        screen: (B, V, 3) vertices on the screen, which get no gradient.
        sphere: topology of the meshes.
        size: of the renderings that tell what is visible, in pixels.
    """
    resolution = flow.shape[-1]
    # Every texel, where the mesh is, and as how many pixels
    with torch.no_grad():
        position = surface_map(screen[..., :2].detach(), sphere, resolution)
        pixels = visibility(sphere, screen, resolution, size)
    distance = (flow - position).square().sum(1, keepdim=True)
    distance = torch.where(pixels > 0, distance, torch.inf)
    # A half of the map stands for both
    distance = half_map(torch.minimum(distance, mirror_map(distance)))
    weight = half_map(pixels + mirror_map(pixels))
    return masked_mean(torch.where(weight > 0, distance, 0), weight)
