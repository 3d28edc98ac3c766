"""Shape, texture and camera of a single photograph, improved by the losses of the training.

The network keeps its say: what is optimized are offsets to its displacement map and texture, which cost
the more, the larger they are.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.camera import Pose, project
from geometry.operators import flatness, half_space_penalty
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import half_map, symmetric_extension
from pipeline.reconstruction import pose_corrections
from pipeline.reconstruction.pose_corrections import correct
from rendering.texture import render_textured

SHAPE_RATE, TEXTURE_RATE, POSE_RATE = 0.006, 0.02, 0.009  # of Adam
SILHOUETTE_WEIGHT, COLOR_WEIGHT = 4.0, 3.0
SHARPNESS = (6.0, 30.0)  # per squared pixel, first and last: soft silhouettes make meshes too small
SHAPE_COST = 2.0  # of the mean square of the offsets of the displacement map
TEXTURE_COST = 0.02  # of the mean square of those of the texture
FLATNESS = 1e-4


class Refined(NamedTuple):
    """A mesh and its camera.

    Attributes:
        displacement_map: (1, 3, 32, 32).
        texture: (1, 3, r, r).
        pose: members (1, ...).
    """

    displacement_map: Tensor
    texture: Tensor
    pose: Pose


@torch.enable_grad()
def refine(template: SphereMesh, start: Refined, image: Tensor, steps: int) -> Refined:
    """Fits a mesh and its camera to a photograph.

    Args:
        template: topology of the mesh.
        start: what the network predicts, and the camera that was found.
        image: (1, 4, h, h) crop as networks see it.
        steps: of the optimizer; 0 changes nothing.
    """
    # Half of each map is free, the other follows by symmetry
    shape = torch.zeros_like(half_map(start.displacement_map)).requires_grad_()
    colors = torch.zeros_like(half_map(start.texture)).requires_grad_()
    move = torch.zeros(1, pose_corrections.SIZE, device=image.device).requires_grad_()
    groups = [(shape, SHAPE_RATE), (colors, TEXTURE_RATE), (move, POSE_RATE)]
    optimizer = torch.optim.Adam([{"params": [x], "lr": rate} for x, rate in groups])

    def result() -> Refined:
        return Refined(
            start.displacement_map + symmetric_extension(shape),
            start.texture + symmetric_extension(colors),
            correct(start.pose, move),
        )

    for step in range(steps):
        # Falls linearly, so that the end is settled
        for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * (1 - step / steps)
        # Sharpens by the same factor in each step, so that at first edges are felt from afar
        first, last = SHARPNESS
        loss = misfit(template, result(), image, first * (last / first) ** (step / steps))
        loss = loss + SHAPE_COST * shape.square().mean() + TEXTURE_COST * colors.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    final = result()
    return Refined(
        final.displacement_map.detach(),
        final.texture.detach().clamp(-1, 1),
        Pose(*(member.detach() for member in final.pose)),
    )


def misfit(template: SphereMesh, mesh: Refined, image: Tensor, sharpness: float) -> Tensor:
    """Returns the loss of a mesh against its photograph, a scalar: silhouette, colors, smoothness.

    Args:
        template, mesh, image: as in `refine`.
        sharpness: inverse softness of the silhouette, per squared pixel.
    """
    vertices = template.deform(mesh.displacement_map)
    screen = project(vertices, mesh.pose)
    size = image.shape[-1]
    seen = render_textured(
        template, screen, mesh.texture, size, sharpness=sharpness * (size / 2) ** 2
    )
    assert seen.alpha is not None
    loss = SILHOUETTE_WEIGHT * (seen.alpha - image[:, 3:]).square().mean()
    loss = loss + COLOR_WEIGHT * (seen.colors - image[:, :3]).square().mean()
    loss = loss + FLATNESS * flatness(vertices, template.faces, template.neighbors).mean()
    return loss + half_space_penalty(vertices, template.positive)
