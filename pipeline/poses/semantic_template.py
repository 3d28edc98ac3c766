"""Templates whose vertices know their part: rendered in poses, and made from part maps."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from rendering.rasterizer import Raster, rasterize

SMOOTHING = 1e-6  # pixels of every part on every vertex, also on those that no image shows


class SemanticModel(NamedTuple):
    """Meshes with part probabilities on their vertices.

    Attributes:
        templates: (T, V, 3) object space.
        probabilities: (T, V, K + 1), channel 0 = object without part.
        faces: (F, 3).
    """

    templates: Tensor
    probabilities: Tensor
    faces: Tensor

    def render(self, pose: Pose, choice: Tensor, size: int) -> Raster:
        """Renders part probabilities (B, K + 1, size, size) of template choice (B,) in B poses."""
        screen = project(self.templates[choice], pose)
        parts = self.probabilities[choice]
        return rasterize(screen, self.faces, size, attributes=parts, soft=False)


def splat(screen: Tensor, faces: Tensor, maps: Tensor) -> Tensor:
    """Collects maps on the vertices under them: the adjoint of rendering vertex attributes.

    Args:
        screen: (B, V, 3) screen space.
        faces: (F, 3).
        maps: (B, C, h, w), such as part maps.

    Returns:
        (B, V, C) sums over the pixels of barycentric weight times map.
    """
    attributes = screen.new_zeros(*screen.shape[:2], maps.shape[1], requires_grad=True)
    raster = rasterize(screen, faces, maps.shape[-1], attributes=attributes, soft=False)
    assert raster.attributes is not None
    # The gradient of a linear function is its adjoint
    (gradient,) = torch.autograd.grad((raster.attributes * maps).sum(), attributes)
    return gradient


def normalize_parts(sums: Tensor, mesh: SphereMesh, symmetric: bool = True) -> Tensor:
    """Turns sums per vertex (T, V, K) into probabilities; mirrored vertices get their mean."""
    probabilities = (sums + SMOOTHING) / (sums + SMOOTHING).sum(dim=-1, keepdim=True)
    if symmetric:
        mean = (probabilities[:, mesh.negative] + probabilities[:, mesh.positive]) / 2
        probabilities[:, mesh.negative] = mean
        probabilities[:, mesh.positive] = mean
    return probabilities
