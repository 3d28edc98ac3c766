"""The camera of a single photograph, found by the outline of the object and the colors of the network.

The network estimates shape and texture without knowing the camera. The contour search of stage 1 then
moves the outline of that shape onto the outline of the mask. Outlines leave several poses open, among
them the complementary ones with the opposite depth; the colors decide between them. Shapes that are only
nearly right fit best when turned, so that poses that a network has seen are also moved part of the way.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

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
COLOR_WEIGHT = 1.0  # of the correlation of the colors, beside the overlap
PRIOR_WEIGHT = 0.03  # of the logarithm of the prior
PROPOSAL_WEIGHT = 0.3  # of the logarithm of their density
PROPOSAL_SPREAD = 20.0  # degrees by which proposals are wrong
WAY = (1 / 3, 2 / 3, 1.0)  # from a proposal to where the outline moves it
LEAST_SUPPORT = 0.01  # of the density: proposals may be wrong altogether


class Fit(NamedTuple):
    """How well a mesh fits a photograph under K poses.

    Attributes:
        iou: (K,) overlap of silhouette and mask.
        color_error: (K,) mean absolute difference inside the mask, in 0-1.
        correlation: (K,) of the colors where both are, in -1 to 1: their level and contrast, which
            light and a blurred prediction change, make no difference.
    """

    iou: Tensor
    color_error: Tensor
    correlation: Tensor


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


class Proposals(NamedTuple):
    """Poses that a network has seen in the photograph.

    Attributes:
        pose: members (K, ...).
        probability: (K,) of each.
    """

    pose: Pose
    probability: Tensor


class Appearance(NamedTuple):
    """A mesh and a photograph that are compared.

    Attributes:
        template: topology of the mesh.
        vertices: (V, 3) object space.
        texture: (3, r, r) that the network predicts.
        image: (4, h, h) crop as networks see it.
    """

    template: SphereMesh
    vertices: Tensor
    texture: Tensor
    image: Tensor


def search_camera(seen: Appearance, prior: ViewPrior, proposals: Proposals | None = None) -> Camera:
    """Finds the camera of a photograph.

    Args:
        seen: estimated mesh and photograph.
        prior: of the views of the category.
        proposals: poses that are compared as well, on the way from there onto the outline.
    """
    mask = seen.image[3:].cpu()
    search = ContourSearch(seen.vertices[None], seen.template.faces, prior)
    modes = search.find(mask)
    # Poses with the opposite depth, moved on since perspective sets their outlines apart
    opposite = modes.pose._replace(rotation=quaternion.complementary(modes.pose.rotation))
    found = modes.extend(search.improve(mask, Candidates(opposite, modes.choice)))
    poses = [camera.select(found.pose, 0)]
    if proposals is not None:
        pose = Pose(*(member[None].cpu() for member in proposals.pose))
        starts = Candidates(pose, torch.zeros_like(pose.scale[..., 0], dtype=torch.int64))
        moved = search.improve(mask, starts).pose
        poses += [camera.select(camera.between(pose, moved, share), 0) for share in WAY]
    pose = camera.to_device(camera.concatenate(poses), seen.vertices.device)
    return choose_camera(seen, pose, prior, proposals)


def choose_camera(
    seen: Appearance, pose: Pose, prior: ViewPrior, proposals: Proposals | None = None
) -> Camera:
    """Chooses among candidate poses (K, ...) by overlap, colors, prior and proposals."""
    fit = compare(seen, pose)
    score = fit.iou + COLOR_WEIGHT * fit.correlation
    score = score + PRIOR_WEIGHT * log_prior(pose.rotation, prior)
    if proposals is not None:
        score = score + PROPOSAL_WEIGHT * log_support(pose, proposals)
    best = int(score.argmax())
    return judge(seen, camera.select(pose, slice(best, best + 1)))


def judge(seen: Appearance, pose: Pose) -> Camera:
    """Returns a camera (1, ...) and how well the mesh fits under it."""
    fit = compare(seen, pose)
    return Camera(pose, float(fit.iou[0]), float(fit.color_error[0]))


def log_support(pose: Pose, proposals: Proposals) -> Tensor:
    """Returns the logarithm of the density (K,) of rotations around proposals, 0 at the most."""
    angle = quaternion.angle_between(pose.rotation[:, None], proposals.pose.rotation[None])
    near = torch.exp(-(angle / PROPOSAL_SPREAD).square() / 2)
    return ((near * proposals.probability).sum(1) + LEAST_SUPPORT).log()


def compare(seen: Appearance, pose: Pose) -> Fit:
    """Compares renderings of a mesh under poses (K, ...) with a photograph."""
    count = len(pose.scale)
    small = F.interpolate(seen.image[None], (SIZE, SIZE), mode="bilinear", antialias=True)
    screen = project(seen.vertices.expand(count, -1, -1), pose)
    textures = seen.texture.expand(count, -1, -1, -1)
    drawn = render_textured(seen.template, screen, textures, SIZE, soft=False)
    mask = small[:, 3:].expand(count, -1, -1, -1)
    # Colors in [-1, 1] differ by 2 at most; what the mesh does not cover counts as grey
    difference = (drawn.colors - small[:, :3]).abs().mean(1, keepdim=True) / 2
    error = (difference * mask).flatten(1).sum(1) / mask[0].sum().clamp(min=1e-6)
    both = drawn.coverage * (mask > 0.5)
    own, given = (_centered(x, both) for x in (drawn.colors, small[:, :3]))
    product = (own * given).flatten(1).sum(1)
    norm = own.flatten(1).norm(dim=1) * given.flatten(1).norm(dim=1)
    return Fit(hard_iou(drawn.coverage, mask)[:, 0], error, product / norm.clamp(min=1e-6))


def _centered(colors: Tensor, where: Tensor) -> Tensor:
    """Subtracts from colors (K, 3, h, w) their means over (K, 1, h, w); 0 elsewhere."""
    area = where.sum((2, 3), keepdim=True).clamp(min=1)
    return (colors - (colors * where).sum((2, 3), keepdim=True) / area) * where
