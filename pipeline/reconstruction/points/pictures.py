"""Pictures of clouds: points from three sides, and a training run's images with what explains them."""

import numpy as np
import torch
from torch import Tensor

from geometry import quaternion
from models.point_clouds import PointCloudNetwork
from pipeline.reconstruction.points.dataset import PointData
from pipeline.reconstruction.points.projection import to_screen
from rendering.point_pictures import draw_points
from rendering.projection.schedule import SIGMA
from rendering.projection.volume import occupancy, silhouette
from utils.pictures import labeled_rows

COLUMNS = 8
SIDES = ((30.0, 15.0), (150.0, 15.0), (90.0, 60.0))  # azimuths and elevations, degrees


@torch.no_grad()
def draw(
    network: PointCloudNetwork, data: PointData, grid: int, device: torch.device, step: int
) -> np.ndarray:
    """Returns images, silhouettes and points from the estimated side and three others, (H, W, 3) uint8.

    Args:
        network: is left in evaluation mode.
        data: the images; those that are shown are spread evenly over them.
        grid: side of the silhouettes.
        device: where to compute.
        step: number of steps made, for the title.
    """
    rows = torch.linspace(0, len(data.images) - 1, min(COLUMNS, len(data.images))).long()
    image = data.select(rows).to(device)
    code = network.eval().encode(image)
    cloud, rotation = network.decode(code), network.estimate_pose(code)
    size = image.shape[-1]
    volume = occupancy(to_screen(cloud.points, rotation), grid, SIGMA[1], cloud.scale)
    shadow = torch.nn.functional.interpolate(silhouette(volume)[:, None], (size, size))
    seen = {
        "images": image[:, :3],
        "masks": 2 * image[:, 3:].expand(-1, 3, -1, -1) - 1,
        "silhouettes by the student": 2 * shadow.expand(-1, 3, -1, -1) - 1,
        "points": draw_points(cloud.points, to_screen(cloud.points, rotation), size),
    }
    return labeled_rows(seen | from_sides(cloud.points, size), f"step {step}")


def from_sides(points: Tensor, size: int) -> dict[str, Tensor]:
    """Returns pictures (B, 3, size, size) of points (B, N, 3) from three sides, by their names."""
    pictures = {}
    for azimuth, elevation in SIDES:
        view = quaternion.from_view(*(torch.tensor(x) for x in (azimuth, elevation, 0.0)))
        screen = to_screen(points, view.to(points).expand(len(points), 4))
        pictures[f"from {azimuth:.0f} and {elevation:.0f} degrees"] = draw_points(
            points, screen, size
        )
    return pictures
