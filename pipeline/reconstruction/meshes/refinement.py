"""Shape, texture and camera of a single photograph, improved by the losses of the training.

The network keeps its say: what is optimized are changes of its mesh and texture, which cost the more, the
larger they are. A photograph shows the outline of one side, and says nothing about depth: the mesh
changes smoothly and symmetrically, so that what is seen takes along what is not. Its change is the
solution d of (I + k L) d = u with the graph Laplacian L, and u is what the optimizer moves (Nicolet et al.
2021, https://doi.org/10.1145/3478513.3480501, section 3).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.camera import Pose, project
from geometry.operators import flatness, half_space_penalty, stiffness_matrix
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import half_map, symmetric_extension
from pipeline.reconstruction import pose_corrections
from pipeline.reconstruction.pose_corrections import correct
from rendering.texture import render_textured

SHAPE_RATE, TEXTURE_RATE, POSE_RATE = 0.02, 0.02, 0.009  # of Adam
SILHOUETTE_WEIGHT, COLOR_WEIGHT = 4.0, 3.0
SHARPNESS = (6.0, 30.0)  # per squared pixel, first and last: soft silhouettes make meshes too small
STIFFNESS = 5.0  # k, by which changes of shape are smooth
SHAPE_COST = 10.0  # of the mean square change of the vertices
BENDING_COST = 10.0  # of that of its Laplacian
TEXTURE_COST = 0.02  # of the mean square of the offsets of the texture
FLATNESS = 1e-4


class Refined(NamedTuple):
    """A mesh and its camera.

    Attributes:
        vertices: (1, V, 3) object space.
        texture: (1, 3, r, r).
        pose: members (1, ...).
    """

    vertices: Tensor
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
    # Half of the mesh and half of the texture are free, the others follow by symmetry
    force = torch.zeros_like(start.vertices[:, template.nonnegative]).requires_grad_()
    spread = smoothing(template)
    colors = torch.zeros_like(half_map(start.texture)).requires_grad_()
    move = torch.zeros(1, pose_corrections.SIZE, device=image.device).requires_grad_()
    groups = [(force, SHAPE_RATE), (colors, TEXTURE_RATE), (move, POSE_RATE)]
    optimizer = torch.optim.Adam([{"params": [x], "lr": rate} for x, rate in groups])

    def result(change: Tensor) -> Refined:
        return Refined(
            start.vertices + change,
            start.texture + symmetric_extension(colors),
            correct(start.pose, move),
        )

    for step in range(steps):
        # Falls linearly, so that the end is settled
        for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * (1 - step / steps)
        # Sharpens by the same factor in each step, so that at first edges are felt from afar
        first, last = SHARPNESS
        change = template.complete(spread @ template.complete(force))
        loss = misfit(template, result(change), image, first * (last / first) ** (step / steps))
        loss = loss + change_cost(template, change) + TEXTURE_COST * colors.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    final = result(template.complete(spread @ template.complete(force)))
    return Refined(
        final.vertices.detach(),
        final.texture.detach().clamp(-1, 1),
        Pose(*(member.detach() for member in final.pose)),
    )


def smoothing(template: SphereMesh) -> Tensor:
    """Returns the matrix (N + Z, V) that turns what is optimized into smooth changes of half of the mesh."""
    count = len(template.vertices)
    stiff = stiffness_matrix(template.faces, count, STIFFNESS)
    return torch.linalg.inv(stiff)[template.nonnegative]


def change_cost(template: SphereMesh, change: Tensor) -> Tensor:
    """Returns what a change (1, V, 3) of the vertices costs, a scalar: its size, and how much it bends."""
    bent = template.laplacian(change)
    size, bending = (x.square().sum(-1).mean() for x in (change, bent))
    return SHAPE_COST * size + BENDING_COST * bending


def misfit(template: SphereMesh, mesh: Refined, image: Tensor, sharpness: float) -> Tensor:
    """Returns the loss of a mesh against its photograph, a scalar: silhouette, colors, smoothness.

    Args:
        template, mesh, image: as in `refine`.
        sharpness: inverse softness of the silhouette, per squared pixel.
    """
    screen = project(mesh.vertices, mesh.pose)
    size = image.shape[-1]
    seen = render_textured(
        template, screen, mesh.texture, size, sharpness=sharpness * (size / 2) ** 2
    )
    assert seen.alpha is not None
    loss = SILHOUETTE_WEIGHT * (seen.alpha - image[:, 3:]).square().mean()
    loss = loss + COLOR_WEIGHT * (seen.colors - image[:, :3]).square().mean()
    loss = loss + FLATNESS * flatness(mesh.vertices, template.faces, template.neighbors).mean()
    return loss + half_space_penalty(mesh.vertices, template.positive)
