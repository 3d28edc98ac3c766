"""The camera of a single photograph, found by the outline of the object and the colors of the network.

The network estimates shape and texture without knowing the camera. The contour search of stage 1 then
moves the outline of that shape onto the outline of the mask. Outlines leave several poses open, among
them the complementary ones with the opposite depth; the colors decide between them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from data.definitions import ViewPrior
from geometry import camera, quaternion
from geometry.camera import Pose, project
from geometry.distances import hard_iou
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.candidates import Candidates
from pipeline.poses.contour_search import ContourSearch
from pipeline.poses.view_prior import log_prior
from rendering.texture import render_textured

SIZE = 96  # pixels of the renderings that are compared
COLOR_WEIGHT = 1.0  # of the color error, beside the overlap
PRIOR_WEIGHT = 0.01  # of the logarithm of the prior


class Camera(NamedTuple):
    """A camera, and how well the estimated mesh fits the photograph under it.

    Attributes:
        pose: members (1, ...).
        iou: overlap of silhouette and mask.
        color_error: mean absolute difference inside the mask, in 0-1.
    """

    pose: Pose
    iou: float
    color_error: float


def search_camera(
    template: SphereMesh, vertices: Tensor, texture: Tensor, image: Tensor, prior: ViewPrior
) -> Camera:
    """Finds the camera of a photograph.

    Args:
        template: topology of the mesh.
        vertices: (V, 3) of the estimated mesh, object space.
        texture: (3, r, r) that the network predicts.
        image: (4, h, h) crop as networks see it.
        prior: of the views of the category.
    """
    mask = image[3:].cpu()
    search = ContourSearch(vertices[None], template.faces, prior)
    modes = search.find(mask)
    # Poses with the opposite depth, moved on since perspective sets their outlines apart
    opposite = modes.pose._replace(rotation=quaternion.complementary(modes.pose.rotation))
    found = modes.extend(search.improve(mask, Candidates(opposite, modes.choice)))
    pose = camera.to_device(camera.select(found.pose, 0), vertices.device)
    return choose_camera(template, vertices, texture, image, pose, prior)


def choose_camera(
    template: SphereMesh,
    vertices: Tensor,
    texture: Tensor,
    image: Tensor,
    pose: Pose,
    prior: ViewPrior,
) -> Camera:
    """Chooses among candidate poses (K, ...) by overlap, colors and prior; the rest as above."""
    overlap, error = compare(template, vertices, texture, image, pose)
    score = overlap - COLOR_WEIGHT * error + PRIOR_WEIGHT * log_prior(pose.rotation, prior)
    best = int(score.argmax())
    chosen = camera.select(pose, slice(best, best + 1))
    return Camera(chosen, float(overlap[best]), float(error[best]))


def compare(
    template: SphereMesh, vertices: Tensor, texture: Tensor, image: Tensor, pose: Pose
) -> tuple[Tensor, Tensor]:
    """Returns overlaps and color errors (K,) of a mesh under poses (K, ...); the rest as above."""
    count = len(pose.scale)
    small = torch.nn.functional.interpolate(
        image[None], (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False
    )
    screen = project(vertices.expand(count, -1, -1), pose)
    seen = render_textured(template, screen, texture.expand(count, -1, -1, -1), SIZE, soft=False)
    mask = small[:, 3:].expand(count, -1, -1, -1)
    overlap = hard_iou(seen.coverage, mask)[:, 0]
    # Colors in [-1, 1] differ by 2 at most; what the mesh does not cover counts as grey
    difference = (seen.colors - small[:, :3]).abs().mean(1, keepdim=True) / 2
    error = (difference * mask).flatten(1).sum(1) / mask[0].sum().clamp(min=1e-6)
    return overlap, error
