"""Pictures of clouds: points from three sides, and a training run's images with what explains them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geometry import quaternion
from geometry.mesh_files import Mesh
from pipeline.reconstruction.points.dataset import PointData
from pipeline.reconstruction.points.model_file import PointNetwork
from pipeline.reconstruction.points.projection import to_screen
from rendering.point_pictures import draw_points
from rendering.projection.schedule import SIGMA
from rendering.projection.volume import occupancy, silhouette
from rendering.shading import render_shaded
from utils.pictures import labeled_rows

COLUMNS = 8
SIDES = ((30.0, 15.0), (150.0, 15.0), (90.0, 60.0))  # azimuths and elevations, degrees


@torch.no_grad()
def draw(
    network: PointNetwork, data: PointData, grid: int, device: torch.device, step: int
) -> np.ndarray:
    """Returns images, masks, silhouettes and points in rows, (H, W, 3) uint8.

    Args:
        network: is left in evaluation mode.
        data: the images; those that are shown are spread evenly over them.
        grid: side of the silhouettes.
        device: where to compute.
        step: number of steps made, for the title.
    """
    rows = torch.linspace(0, len(data.images) - 1, min(COLUMNS, len(data.images))).long()
    image = data.select(rows).to(device)
    cloud, rotation = network.eval()(image)
    size = image.shape[-1]
    volume = occupancy(to_screen(cloud.points, rotation), grid, SIGMA[1], cloud.scale)
    shadow = F.interpolate(silhouette(volume)[:, None], (size, size))
    seen = {
        "images": image[:, :3],
        "masks": 2 * image[:, 3:].expand(-1, 3, -1, -1) - 1,
        "silhouettes by the student": 2 * shadow.expand(-1, 3, -1, -1) - 1,
        "points": draw_points(cloud.points, to_screen(cloud.points, rotation), size),
        "points, all from one side": _from_the_first(cloud.points, size),
    }
    return labeled_rows(seen, f"step {step}")


def _from_the_first(points: Tensor, size: int) -> Tensor:
    view = quaternion.from_view(*(torch.tensor(x) for x in (*SIDES[0], 0.0)))
    return draw_points(points, to_screen(points, view.to(points).expand(len(points), 4)), size)


def from_sides(points: Tensor, meshes: Sequence[Mesh | None], size: int) -> dict[str, Tensor]:
    """Draws clouds and the meshes through them from three sides.

    Args:
        points: (B, N, 3).
        meshes: of each cloud; None where there is none.
        size: of the pictures.

    Returns:
        (B, 3, size, size) in [-1, 1] by the names of the rows.
    """
    rows = {}
    for azimuth, elevation in SIDES:
        view = quaternion.from_view(*(torch.tensor(x) for x in (azimuth, elevation, 0.0)))
        screen = to_screen(points, view.to(points).expand(len(points), 4))
        name = f"from {azimuth:.0f} and {elevation:.0f} degrees"
        rows[name] = draw_points(points, screen, size)
        drawn = torch.stack([_draw_mesh(mesh, view, size) for mesh in meshes])
        rows[f"rebuilt, {name}"] = drawn
    return rows


def _draw_mesh(mesh: Mesh | None, view: Tensor, size: int) -> Tensor:
    """Renders a mesh on white, (3, size, size) in [-1, 1]; only white for None."""
    if mesh is None:
        return torch.ones(3, size, size)
    vertices, faces = torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces)
    screen = to_screen(vertices[None], view[None])[0]
    # Drawn larger, for smooth edges
    colors, coverage = render_shaded(screen, faces, 2 * size)
    return 2 * F.avg_pool2d(colors + 1 - coverage, 2) - 1
