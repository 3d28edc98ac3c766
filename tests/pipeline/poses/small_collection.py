"""A collection of 24 painted animals with known poses, unlike each other and unlike the template."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose, mirror, project
from geometry.sphere_mesh import SphereMesh
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world

COUNT = 24
SIZE = 96  # pixels of the photographs


class Collection(NamedTuple):
    """Photographs and what is true of them.

    Attributes:
        pose: COUNT poses.
        colors: (COUNT, 3, SIZE, SIZE) in [0, 1].
        masks: (COUNT, SIZE, SIZE).
        parts: (COUNT, 3, SIZE, SIZE) body, head, tail.
    """

    pose: Pose
    colors: Tensor
    masks: Tensor
    parts: Tensor

    def write(self, name: str) -> None:
        """Writes the data set and prepares it."""
        pose_world.write_photographs(*self, name)

    def select(self, index: Tensor) -> "Collection":
        """Returns the photographs in another order."""
        pose = Pose(*(member[index] for member in self.pose))
        return Collection(pose, *(member[index] for member in self[1:]))

    def mirrored(self) -> "Collection":
        """Returns the photographs flipped left to right."""
        return Collection(mirror(self.pose), *(member.flip(-1) for member in self[1:]))


def make_collection() -> Collection:
    """Draws animals from all sides, at eye level or from a little above."""
    generator = torch.Generator().manual_seed(4)
    azimuth = (torch.arange(COUNT) * 360.0 / COUNT + 7).tolist()
    elevation = (5 + 8 * torch.randn(COUNT, generator=generator)).tolist()
    pose = pose_world.poses(azimuth, elevation)
    # Longer or shorter, thinner or thicker than the template
    stretch = 1 + 0.1 * torch.randn(COUNT, 1, 3, generator=generator)
    mesh, labels = SphereMesh(), torch.nn.functional.one_hot(pose_world.part_labels(), 3).float()
    screen = project(pose_world.body() * stretch, pose._replace(scale=0.9 * pose.scale))
    # A face of one color, a rump of another, a light belly, and a tint of each animal's own
    _, y, z = mesh.vertices.unbind(-1)
    paint = torch.stack([(y < -0.3).float(), (y > 0.3).float(), (z < -0.2).float()], dim=1)
    tint = 0.1 * torch.randn(COUNT, 1, 3, generator=generator)
    paint = (0.2 + 0.6 * paint + tint).clamp(0, 1)
    attributes = torch.cat([paint, labels.expand(COUNT, -1, -1)], dim=2)
    raster = rasterize(screen, mesh.faces, SIZE, attributes=attributes, soft=False)
    assert raster.attributes is not None
    return Collection(
        pose, raster.attributes[:, :3], raster.coverage[:, 0], raster.attributes[:, 3:]
    )


def errors(pose: Pose, truth: Pose) -> Tensor:
    """Returns the rotation errors (COUNT,) in degrees."""
    return quaternion.angle_between(pose.rotation, truth.rotation)
