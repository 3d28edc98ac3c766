"""A photograph and its mesh in six pictures: as it is seen there, and turned."""

import torch
from torch import Tensor
from torch.nn import functional as F

from geometry import quaternion
from geometry.camera import Pose, project, select
from geometry.sphere_mesh import SphereMesh
from rendering.shading import render_shaded
from rendering.texture import render_textured
from utils.pictures import make_grid

SIZE = 256  # pixels of a picture
TURNS = (60.0, 120.0, 180.0)  # degrees about the vertical of the picture
_SUPERSAMPLING = 2
_REACH = 0.9  # screen units that a turned mesh may fill


def draw_panel(
    photograph: Tensor, template: SphereMesh, vertices: Tensor, texture: Tensor, pose: Pose
) -> Tensor:
    """Draws 2 x 3 pictures: photograph, mesh without and with texture; below, the mesh turned.

    Args:
        photograph: (3, SIZE, SIZE) crop in [-1, 1].
        template: topology of the mesh.
        vertices: (V, 3) object space.
        texture: (3, R, R) in [-1, 1].
        pose: of the photograph, members (1, ...).

    Returns:
        (3, 2 * SIZE, 3 * SIZE) in [-1, 1].
    """
    screen = project(vertices[None], pose)[0]
    # Pictures are drawn larger, for smooth edges
    shaded, coverage = render_shaded(screen, template.faces, _SUPERSAMPLING * SIZE)
    body = 2 * (shaded + 1 - coverage) - 1
    drawn = [body, _textured(template, screen, texture)]
    drawn += [_textured(template, turned(vertices, pose, angle), texture) for angle in TURNS]
    small = F.avg_pool2d(torch.stack(drawn), _SUPERSAMPLING)
    return make_grid(torch.cat([photograph[None].to(small), small]), 3, padding=0)


def turned(vertices: Tensor, pose: Pose, degrees: float) -> Tensor:
    """Turns a mesh (V, 3) about the vertical of the picture, its near side to the right: screen (V, 3).

    The mesh is moved to the middle, and is made smaller where it would leave the picture.
    """
    center = (vertices.amax(0) + vertices.amin(0)) / 2
    radius = (vertices - center).norm(dim=1).max()
    first = select(pose, slice(0, 1))
    down = vertices.new_tensor([0.0, 1.0, 0.0])
    turn = quaternion.from_axis_angle(down, vertices.new_tensor(-degrees))
    view = first._replace(
        scale=first.scale.clamp(max=_REACH / float(radius)),
        translation=torch.zeros_like(first.translation),
        rotation=quaternion.multiply(turn[None], first.rotation),
    )
    return project((vertices - center)[None], view, orthographic=True)[0]


def _textured(template: SphereMesh, screen: Tensor, texture: Tensor) -> Tensor:
    """Renders a mesh on white, (3, h, h) in [-1, 1]."""
    size = _SUPERSAMPLING * SIZE
    seen = render_textured(template, screen[None], texture[None], size, soft=False)
    return seen.colors[0] + (1 - seen.coverage[0])
