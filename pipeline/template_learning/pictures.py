"""Pictures of templates: shaded, from the side, the front, above and obliquely, with the axes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from rendering.shading import render_shaded
from utils.pictures import draw_text, make_grid, to_uint8

TILE = 160  # pixels
SCALE = 0.75  # half the size of a template in screen units
VIEWS = {"side": (0.0, 0.0), "front": (90.0, 0.0), "above": (0.0, 89.0), "oblique": (40.0, 20.0)}
AXES = {"front -y": (0.0, -1.2, 0.0), "up z": (0.0, 0.0, 1.2)}
AXIS_COLORS = ((0.9, 0.2, 0.1), (0.1, 0.6, 0.1))
DOTS = 24  # an axis is drawn as so many dots
DOT = 0.012  # radius in screen units


def template_picture(templates: Tensor, titles: list[str]) -> NDArray[np.uint8]:
    """Returns a picture with a row of views for each of T templates (T, V, 3), and a title."""
    tiles = []
    # The title goes into the first cell of a row
    for vertices, title in zip(templates, titles, strict=True):
        for k, (name, (azimuth, elevation)) in enumerate(VIEWS.items()):
            tile = _draw(vertices, azimuth, elevation)
            text = f"{title}\n{name}" if k == 0 and title else name
            tiles.append(draw_text(to_uint8(tile), text))
    stacked = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return to_uint8(make_grid(stacked, len(VIEWS)))


def _draw(vertices: Tensor, azimuth: float, elevation: float) -> Tensor:
    """Draws a mesh (V, 3), lit from the upper left of the viewer, and its axes: (3, h, w)."""
    mesh = SphereMesh()
    # Oblique views without perspective, so that sizes compare
    angles = (torch.tensor([angle]) for angle in (azimuth, elevation, 0.0))
    pose = Pose(
        torch.full((1, 1), SCALE),
        torch.zeros(1, 2),
        quaternion.from_view(*angles),
        torch.zeros(1, 1),
    )
    screen = project(vertices[None].cpu(), pose, orthographic=True)
    colors, coverage = render_shaded(screen[0], mesh.faces, TILE)
    picture = colors + (1 - coverage)
    # The axes are drawn over the mesh, or it would hide them
    for end, color in zip(AXES.values(), AXIS_COLORS, strict=True):
        picture = _draw_axis(
            picture, project(torch.tensor([[end]]), pose, orthographic=True), color
        )
    return 2 * picture - 1


def _draw_axis(picture: Tensor, end: Tensor, color: tuple[float, float, float]) -> Tensor:
    """Dots from the middle of a picture (3, h, w) to a point on the screen (1, 1, 3)."""
    # Pixel centers in screen units, y up
    axis = (torch.arange(TILE) + 0.5) / TILE * 2 - 1
    x, y = axis[None, :], -axis[:, None]
    for share in torch.linspace(0, 1, DOTS):
        u, v = (share * end[0, 0, :2]).tolist()
        inside = (x - u).square() + (y - v).square() < DOT**2
        picture = torch.where(inside, torch.tensor(color)[:, None, None], picture)
    return picture
