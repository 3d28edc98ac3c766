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
from pipeline.template_learning.outlines import solidity

NUM_STARTS = 12
NUM_MODES = 5
TILT = 0.005  # overlap that a unit of the logarithm of the prior is worth
TOLERANCE = 0.06  # of overlap below the median, at which an image counts half
SOFTNESS = 0.03  # of that threshold
# Seen from all around, objects point towards the viewer half the time; more is worth so much overlap
AROUND, FORESHORTENING = 0.5, 0.2


class Views(NamedTuple):
    """The K modes of N masks.

    Attributes:
        candidates: (N, K) poses and templates.
        iou: (N, K) overlap with the mask.
        score: (N, K) overlap minus the prior penalty of the rotation.
        colors: (N, K) logarithm of the density of colors; 0 where they have not been compared.
        solidity: (N,) overlap that a shape without limbs would reach.
    """

    candidates: Candidates
    iou: Tensor
    score: Tensor
    colors: Tensor
    solidity: Tensor

    def best(self) -> Tensor:
        """Returns the highest score (N,) of each mask."""
        return self.score.amax(dim=1)

    def merit(self) -> float:
        """Returns how well the shape explains the masks: the mean of the highest scores.

        Objects that are too long explain masks of all proportions by foreshortening, so that too
        many views along the object cost.
        """
        best, mode = self.score.max(dim=1)
        along = self._along().gather(1, mode[:, None]).mean()
        return (best.mean() - FORESHORTENING * (along - AROUND).clamp(min=0)).item()

    def sideways(self, preference: float) -> "Views":
        """Returns the views with a preference for those from the side: overlap lost from the front.

        Otherwise a collection that shows one side is explained by a longer object seen at an angle.
        """
        return self._replace(score=self.score - preference * self._along())

    def weights(self, temperature: float, limbs: bool) -> Tensor:
        """Returns how much each mode (N, K) counts; the sum over an image is its trust.

        Images that no pose explains are unusual, badly cut out, or hidden in part.

        Args:
            temperature: of the score.
            limbs: whether to compare scores with the solidity of the mask, and trust about half of
                them: a torso explains a lying dog well, which says nothing of legs.
        """
        best = self.best()
        # A soft threshold below the median, or at it
        tolerance = 0.0 if limbs else TOLERANCE
        explained = best / self.solidity if limbs else best
        trust = torch.sigmoid((explained - explained.median() + tolerance) / SOFTNESS)
        return torch.softmax(self.score / temperature + self.colors, dim=1) * trust[:, None]

    def _along(self) -> Tensor:
        """Squared share (N, K) of the length of the object that points towards the viewer."""
        return quaternion.to_matrix(self.candidates.pose.rotation)[..., 2, 1].square()


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
    return Views(candidates, iou, score, torch.zeros_like(score), solidity(masks))


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
