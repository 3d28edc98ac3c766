"""Random warps and color changes, under which part maps must be equivariant.

A warp is a map of positions from the warped image to the original: warped(p) = image(map(p)).
Positions are x right, y down, the image being [-1, 1]^2.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.part_discovery import pixel_grid

CONTROL_POINTS = 5  # in a row
BEND = 0.05  # standard deviation of the control points' displacement
ROTATION = math.radians(40)
SHIFT = 0.1
SCALE = (0.8, 1.4)  # of the positions; large ones shrink the object
GAIN, CONTRAST, SATURATION = 0.3, 0.3, 0.3


class Warp(NamedTuple):
    """B warps: a thin-plate spline after a similarity.

    Attributes:
        linear: (B, 2, 2) rotation, scale and mirror image.
        shift: (B, 2).
        bend: (B, C + 3, 2) coefficients of the spline's kernels, and of its constant, x and y.
    """

    linear: Tensor
    shift: Tensor
    bend: Tensor

    def to(self, device: torch.device) -> "Warp":
        """Returns the warps on a device."""
        return Warp(*(member.to(device) for member in self))

    def positions(self, points: Tensor) -> Tensor:
        """Maps points (B, N, 2) of the warped images to those of the originals."""
        # A similarity, then the displacement of the spline
        similar = points @ self.linear.mT + self.shift[:, None]
        return similar + _basis(similar) @ self.bend

    def images(self, images: Tensor) -> Tensor:
        """Warps images (B, C, h, h); what lies outside is 0."""
        grid = pixel_grid(images.shape[-1], images.device)
        grid = self.positions(grid.flatten(0, 1).expand(len(images), -1, -1))
        grid = grid.unflatten(1, images.shape[-2:])
        return F.grid_sample(images, grid, align_corners=False)


def control_points() -> Tensor:
    """Returns the positions (C, 2) at which the spline is bent."""
    steps = torch.linspace(-1, 1, CONTROL_POINTS)
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)


def fit_spline(offsets: Tensor) -> Tensor:
    """Returns coefficients (B, C + 3, 2) of the splines that move the control points by (B, C, 2)."""
    # Interpolation at the control points, with kernel coefficients orthogonal to affine functions
    points = control_points()
    kernels = _basis(points[None])[0].double()  # (C, C + 3)
    affine = kernels[:, len(points) :].T
    system = torch.cat([kernels, F.pad(affine, (0, 3))])
    values = F.pad(offsets.double(), (0, 0, 0, 3))
    return torch.linalg.solve(system, values).float()


def random_warp(count: int, generator: torch.Generator) -> Warp:
    """Draws similarities, half of them with mirror images, and splines."""

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator) - 1

    # Log-uniform scale, uniform angle and shift, mirrored with probability 1/2
    angle = ROTATION * uniform(count)
    low, high = (math.log(x) for x in SCALE)
    scale = torch.exp((low + high) / 2 + (high - low) / 2 * uniform(count))
    mirror = uniform(count).sign()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([cos * mirror, -sin, sin * mirror, cos], dim=-1).unflatten(-1, (2, 2))
    # Gaussian displacement of the control points
    offsets = BEND * torch.randn(count, CONTROL_POINTS**2, 2, generator=generator)
    return Warp(linear, SHIFT * uniform(count, 2), fit_spline(offsets))


def jitter_colors(images: Tensor, generator: torch.Generator) -> Tensor:
    """Changes brightness, contrast and saturation of premultiplied crops (B, 4, h, w)."""
    return recolor(images, torch.rand(3, len(images), generator=generator).T)


def recolor(images: Tensor, numbers: Tensor) -> Tensor:
    """The same by given numbers (B, 3) in [0, 1); 1/2 changes nothing."""
    factors = 2 * numbers.to(images.device) - 1
    gain, contrast, saturation = factors.T[:, :, None, None, None]
    # Premultiplied colors: constants are multiplied by the mask, too
    colors, mask = images.split((3, 1), dim=1)
    area = mask.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    gray = colors.mean(dim=1, keepdim=True)
    colors = gray + (1 + SATURATION * saturation) * (colors - gray)
    mean = colors.sum(dim=(2, 3), keepdim=True) / area * mask
    colors = mean + (1 + CONTRAST * contrast) * (colors - mean) + GAIN * gain * mask
    return torch.cat([colors, mask], dim=1)


def _basis(points: Tensor) -> Tensor:
    """Values (B, N, C + 3) of the spline's kernels r^2 log r^2, and 1, x, y, at points (B, N, 2)."""
    offset = points[:, :, None] - control_points().to(points)
    square = offset.square().sum(dim=-1)
    kernels = square * square.clamp(min=1e-12).log()
    return torch.cat([kernels, torch.ones_like(points[..., :1]), points], dim=-1)
