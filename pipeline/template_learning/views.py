"""The views in which each mask may show the present templates: several modes with probabilities."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from data.definitions import ViewPrior
from geometry import quaternion
from geometry.camera import Pose, to_vector
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.candidates import Candidates
from pipeline.poses.contour_search import MASK_SIZE, ContourSearch
from pipeline.poses.fitting import FINAL_SHARPNESS, silhouette_iou
from pipeline.poses.view_prior import log_prior

NUM_STARTS = 12
NUM_MODES = 5
TILT = 0.005  # overlap that a unit of the logarithm of the prior is worth
TOLERANCE = 0.06  # of overlap below the median, at which an image counts half
SOFTNESS = 0.03  # of that threshold


class Views(NamedTuple):
    """The K modes of N masks.

    Attributes:
        candidates: (N, K) poses and templates.
        iou: (N, K) overlap with the mask.
        score: (N, K) overlap minus the prior penalty of the rotation.
        colors: (N, K) logarithm of the density of colors; 0 where they have not been compared.
    """

    candidates: Candidates
    iou: Tensor
    score: Tensor
    colors: Tensor

    def best(self) -> Tensor:
        """Returns the highest score (N,) of each mask."""
        return self.score.amax(dim=1)

    def sideways(self, preference: float) -> "Views":
        """Returns the views with a preference for those from the side: overlap lost from the front.

        Otherwise a collection that shows one side is explained by a longer object seen at an angle.
        """
        # How far the length of the object points towards the viewer
        along = quaternion.to_matrix(self.candidates.pose.rotation)[..., 2, 1]
        return self._replace(score=self.score - preference * along.square())

    def weights(self, temperature: float) -> Tensor:
        """Returns how much each mode (N, K) counts; the sum over an image is its trust.

        Images that no pose explains are unusual, badly cut out, or hidden in part.
        """
        best = self.best()
        # A soft threshold below the median overlap
        trust = torch.sigmoid((best - best.median() + TOLERANCE) / SOFTNESS)
        return torch.softmax(self.score / temperature + self.colors, dim=1) * trust[:, None]


def find_views(templates: Tensor, masks: Tensor, prior: ViewPrior) -> Views:
    """Searches the poses of templates (T, V, 3) in masks (N, h, h), each mask on its own."""
    faces = SphereMesh().faces
    modes = ContourSearch(templates, faces, prior, NUM_STARTS, NUM_MODES).find(masks)
    iou = overlaps(templates, faces, modes, masks)
    # Poses of the opposite depth cover nearly the same pixels, and the search may miss them
    opposite = modes.pose._replace(rotation=quaternion.complementary(modes.pose.rotation))
    pose = Pose(*(torch.cat(pair, dim=1) for pair in zip(modes.pose, opposite, strict=True)))
    iou = iou.repeat(1, 2)
    score = iou + TILT * log_prior(pose.rotation, prior)
    candidates = Candidates(pose, modes.choice.repeat(1, 2))
    return Views(candidates, iou, score, torch.zeros_like(score))


def overlaps(templates: Tensor, faces: Tensor, modes: Candidates, masks: Tensor) -> Tensor:
    """Returns the intersection over union (N, K) of the modes with their masks (N, h, h)."""
    # The resolution at which the search compares too
    small = functional.interpolate(
        masks[:, None], (MASK_SIZE, MASK_SIZE), mode="bilinear", antialias=True
    )[:, 0]
    every = modes.flatten()
    vertices = templates[every.choice]
    iou = silhouette_iou(to_vector(every.pose), vertices, faces, small, FINAL_SHARPNESS)
    return iou.unflatten(0, modes.choice.shape)
