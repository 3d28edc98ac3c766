"""Candidate poses of a collection: what speaks for each of them, and which images are kept."""

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.cache.pose_files import Hypotheses
from data.definitions import ViewPrior
from geometry import quaternion
from pipeline.poses import appearance, report
from pipeline.poses.appearance import Textures
from pipeline.poses.report import agreement
from pipeline.poses.view_prior import log_prior
from utils.cli import UserError

LEAST_SIDE_VIEW = 0.8  # complementary score; the paper's 0.5 lets more turned round images in
LEAST_SUPPORT = 10  # images that the first semantic template is made of, if there are so many
DISCARDED_SHARE = 0.1
AGREEMENT = 0.3  # score of hypotheses that are trusted before parts have been compared
# Standard deviations of overlaps: of masks at least, and as a share of what the best overlap lacks;
# of parts in units of a good overlap, and as a share of what the best lacks to it
MASK_NOISE = (0.01, 0.3)
PARTS_NOISE = (0.05, 0.1)
GOOD_QUANTILE = 0.75  # of the best overlaps of all images: a good one
PRIOR_WEIGHT = 0.5  # less than 1, since the poses were fitted under the prior
SAME_POSE = 30.0  # degrees

logger = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """Hypotheses of N images, and how well they fit.

    Attributes:
        parameters: (N, H, 8) poses.
        choice: (N, H) template of each.
        iou: (N, H) overlap of the masks.
        miou: (N, H) mean overlap of the parts; that of the masks where parts are unknown.
        noise: (N, H) standard deviation of the above.
        prior: (N, H) logarithm of the density of poses.
        colors: (N, H) logarithm of the density of colors; 0 before they have been compared.
    """

    parameters: Tensor
    choice: Tensor
    iou: Tensor
    miou: Tensor
    noise: Tensor
    prior: Tensor
    colors: Tensor

    def select(self, index: Any) -> "Candidates":
        """Returns the hypotheses at an index of the leading axes."""
        return Candidates(*(member[index] for member in self))

    def score(self) -> Tensor:
        """Returns the logarithm of the probability (N, H) of each hypothesis, up to a constant."""
        return self.miou / self.noise + PRIOR_WEIGHT * self.prior + self.colors

    def best(self) -> "Candidates":
        """Returns the hypothesis of the highest score of each image, members without H."""
        index = self.score().argmax(dim=1)
        return self.select((torch.arange(len(index)), index))

    def spread(self) -> Tensor:
        """Returns the agreement score (N,) of the hypotheses; see `pose_report.agreement`."""
        return agreement(self.score() * report.TEMPERATURE, self.parameters[..., :4])

    def confidence(self) -> Tensor:
        """Returns the probability (N,) that the best hypothesis is right to 30 degrees."""
        rotations = self.parameters[..., :4]
        near = quaternion.angle_between(rotations, self.best().parameters[:, None, :4]) < SAME_POSE
        return (torch.softmax(self.score(), dim=1) * near).sum(dim=1)


def to_candidates(hypotheses: Hypotheses, num_templates: int, prior: ViewPrior) -> Candidates:
    """Takes the hypotheses of stage 1 and their complementary poses, which fit as well."""
    if hypotheses.template_weights.shape[2] != num_templates:
        got = hypotheses.template_weights.shape[2]
        raise UserError(
            f"The hypotheses of stage 1 were made with {got} templates, now there are "
            f"{num_templates}. Run pose_optimization_step1.py again."
        )
    pose = hypotheses.pose
    rotation = torch.cat([pose.rotation, quaternion.complementary(pose.rotation)], dim=1)
    others = torch.cat([pose.scale, pose.translation, pose.z0], dim=2).repeat(1, 2, 1)
    iou = hypotheses.iou.repeat(1, 2)
    return Candidates(
        parameters=torch.cat([rotation, others], dim=2),
        choice=hypotheses.template_weights.argmax(dim=2).repeat(1, 2),
        iou=iou,
        miou=iou,
        noise=mask_noise(iou),
        prior=log_prior(rotation, prior),
        colors=torch.zeros_like(iou),
    )


def mask_noise(iou: Tensor) -> Tensor:
    """Standard deviation (N, H) of overlaps of masks: a template that fits badly is less telling."""
    least, share = MASK_NOISE
    return (least + share * (1 - iou.amax(dim=1, keepdim=True))).expand_as(iou)


def parts_noise(miou: Tensor, shown: Tensor) -> Tensor:
    """Standard deviation (N, H) of overlaps of parts.

    Its unit is a good overlap of the collection, since thin parts overlap little also in the right
    pose. Part maps of images in which no pose comes near it are doubtful.

    Args:
        miou: (N, H) overlaps.
        shown: (N,) whether the image shows parts; at least one does.
    """
    best = miou.amax(dim=1, keepdim=True)
    good = best[shown].quantile(GOOD_QUANTILE)
    least, share = PARTS_NOISE
    return (least * good + share * (good - best).clamp(min=0)).expand_as(miou)


def weigh(candidates: Candidates, textures: Textures, given_parts: bool) -> Candidates:
    """Compares parts and colors of all images with each other; every process does all of it.

    Where parts were not given but learned, masks make up most of their overlaps, and of the noise.
    """
    shown = (candidates.miou != candidates.iou).any(dim=1)
    noise = mask_noise(candidates.iou)
    if given_parts and shown.any():
        noise = torch.where(shown[:, None], parts_noise(candidates.miou, shown), noise)
    plain = candidates._replace(noise=noise, colors=torch.zeros_like(candidates.colors))
    return plain._replace(colors=appearance.likelihood(textures, plain.score()))


def side_views(candidates: Candidates) -> Tensor:
    """Rows of the images whose poses are to be trusted before the parts have been compared.

    An object that faces the viewer has the silhouette of one that faces away by the same angle, so
    only poses near the exact side view are sure. Images of which the hypotheses disagree come in
    only if there are no others.
    """
    best = candidates.best()
    confident = (candidates.spread() < AGREEMENT).nonzero()[:, 0]
    if len(confident) == 0:
        logger.warning("in no image the hypotheses agree: all images make the semantic template")
        return torch.arange(len(best.miou))
    score = quaternion.complementary_score(best.parameters[confident, :4])
    order = score.argsort(descending=True, stable=True)
    return confident[order[: max(LEAST_SUPPORT, int((score > LEAST_SIDE_VIEW).sum()))]]


def accept(candidates: Candidates, keep_share: float, threshold: float | None) -> Tensor:
    """Rows of the images that are kept: the most confident share, or by the published rule.

    The rule keeps images whose hypotheses agree and whose parts fit better than the worst tenth's.
    """
    if threshold is None:
        order = candidates.confidence().argsort(descending=True, stable=True)
        return order[: max(1, round(keep_share * len(order)))].sort().values
    overlap = candidates.best().miou
    discarded = int(DISCARDED_SHARE * len(overlap))
    least = overlap.kthvalue(discarded).values if discarded else -torch.inf
    return ((candidates.spread() < threshold) & (overlap > least)).nonzero()[:, 0]
