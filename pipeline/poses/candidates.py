"""Candidate poses of a collection, their scores, and the images that are kept.

Poses and scores are never changed in place: what moves a pose or learns something new about it makes
new candidates and new scores.
"""

import logging
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.cache.pose_files import Hypotheses
from geometry import camera, quaternion
from geometry.camera import Pose
from pipeline.poses import report
from utils.cli import UserError

SAME_POSE = 30.0  # degrees from a pose that counts as right
DUPLICATE = 5.0  # degrees between candidates that count once
MISFIT_DOUBT = 0.15  # that no candidate is right, for every unit of overlap that they lack
LEAST_SIDE_VIEW = 0.8  # complementary score; the paper's 0.5 admits more 180° flips
LEAST_SUPPORT = 10  # images behind the first semantic template, if there are so many
AGREEMENT = 0.3  # spread of candidates that are trusted before any part has been compared
DISCARDED_SHARE = 0.1  # of the published rule: images whose parts overlap least
_CHUNK = 1024  # images at a time, where pairs of candidates are compared

logger = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """Poses among which one is chosen, H for each of N images.

    Attributes:
        pose: members (N, H, ...).
        choice: (N, H) template of each.
    """

    pose: Pose
    choice: Tensor

    def select(self, index: Any) -> "Candidates":
        """Returns the candidates at an index of the leading axes."""
        return Candidates(camera.select(self.pose, index), self.choice[index])

    def gather(self, index: Tensor) -> "Candidates":
        """Returns the candidates (N, R) at the positions (N, R) of their images."""
        return self.select((torch.arange(len(index))[:, None], index))

    def extend(self, others: "Candidates") -> "Candidates":
        """Returns these candidates (N, H) and others (N, R) behind them."""
        pose = Pose(*(torch.cat(pair, dim=1) for pair in zip(self.pose, others.pose, strict=True)))
        return Candidates(pose, torch.cat([self.choice, others.choice], dim=1))

    def repeat(self, count: int) -> "Candidates":
        """Returns (count, H) candidates, the same H for every image."""
        pose = Pose(*(member.expand(count, *member.shape) for member in self.pose))
        return Candidates(pose, self.choice.expand(count, -1))

    def flatten(self) -> "Candidates":
        """Returns all N H candidates along one axis."""
        pose = Pose(*(member.flatten(0, 1) for member in self.pose))
        return Candidates(pose, self.choice.flatten())

    def to(self, device: torch.device) -> "Candidates":
        """Moves the candidates to a device."""
        return Candidates(camera.to_device(self.pose, device), self.choice.to(device))


class Scored(NamedTuple):
    """Candidates and all that is known of them; made by `rank`.

    Attributes:
        candidates: (N, H); of the best ones (N,).
        score: (N, H) logarithm of the probability up to a constant of the image; -inf for
            near duplicates of a better candidate, which are left out.
        iou: (N, H) overlap of the masks.
        overlap: (N, H) mean overlap of the parts; that of the masks where no parts are known.
    """

    candidates: Candidates
    score: Tensor
    iou: Tensor
    overlap: Tensor

    @property
    def alive(self) -> Tensor:
        """Which candidates (N, H) have not been left out."""
        return ~self.score.isneginf()

    def select(self, index: Any) -> "Scored":
        """Returns members at an index of the leading axes."""
        scores = (member[index] for member in self[1:])
        return Scored(self.candidates.select(index), *scores)

    def best(self) -> "Scored":
        """Returns the candidate (N,) of the highest score of each image."""
        index = self.score.argmax(dim=1)
        return self.select((torch.arange(len(index)), index))

    def leading(self, count: int) -> Tensor:
        """Returns the positions (N, count) of the highest scores of each image, best first."""
        return self.score.argsort(dim=1, descending=True, stable=True)[:, :count]

    def accept_moves(self, index: Tensor) -> "Scored":
        """Leaves out the worse one of each of the last R candidates and the one that it came from.

        Args:
            index: (N, R) positions of the latter.
        """
        first = self.score.shape[1] - index.shape[1]
        moved, origin = self.score[:, first:], self.score.gather(1, index)
        better = moved > origin
        score = torch.cat([self.score[:, :first], moved.masked_fill(~better, -torch.inf)], dim=1)
        kept = origin.masked_fill(better, -torch.inf)
        return self._replace(score=score.scatter(1, index, kept))

    def spread(self) -> Tensor:
        """Returns the agreement score (N,) of the candidates; see `report.agreement`."""
        return report.agreement(self.score * report.TEMPERATURE, self.candidates.pose.rotation)

    def conflict(self) -> float:
        """Returns by how much the chosen candidates overlap less than the best ones, on average."""
        return (self.iou.amax(dim=1) - self.best().iou).mean().item()

    def doubt(self) -> Tensor:
        """Returns the probability (N,) that the best candidate is wrong by 30 degrees or more.

        Another one may be right, or none of them: the less of the mask they cover, the likelier. Where
        what the objects look like contradicts their outlines, it is at least 1 / 2.
        """
        best = self.best().candidates.pose.rotation
        apart = quaternion.angle_between(self.candidates.pose.rotation, best[:, None])
        other = (torch.softmax(self.score, dim=1) * (apart >= SAME_POSE)).sum(dim=1)
        none = MISFIT_DOUBT * (1 - self.iou.amax(dim=1)).clamp(0, 1)
        doubt = none + (1 - none) * other.clamp(max=1)
        return (1 + doubt) / 2 if self.conflict() > report.LARGEST_CONFLICT else doubt

    def confidence(self) -> Tensor:
        """Returns the probability (N,) that the best candidate is right within 30 degrees."""
        return 1 - self.doubt()


def rank(candidates: Candidates, score: Tensor, iou: Tensor, overlap: Tensor) -> Scored:
    """Joins candidates with their scores (N, H), in which near duplicates count once."""
    return Scored(candidates, without_duplicates(score, candidates), iou, overlap)


def without_duplicates(score: Tensor, candidates: Candidates) -> Tensor:
    """Returns scores (N, H) with -inf for all candidates that are close to a better one.

    Otherwise a pose that was found twice would count as twice as probable. Close means the same
    template and rotations within DUPLICATE degrees; of equal scores the first is the better one.
    """
    # Pairs of candidates, a few images at a time
    first = torch.arange(score.shape[1])
    earlier = first[:, None] > first
    chunks = []
    for rows in torch.arange(len(score)).split(_CHUNK):
        some, mine, other = candidates.select(rows), score[rows, :, None], score[rows, None]
        close = _close(some, some.pose.rotation, some.choice, DUPLICATE)
        # Of two equal ones the earlier is the better one
        better = (other > mine) | ((other == mine) & earlier)
        chunks.append((close & better).any(dim=2))
    # No probability, no place among the leading ones
    return score.masked_fill(torch.cat(chunks), -torch.inf)


def distinct(score: Tensor, candidates: Candidates, count: int, separation: float) -> Tensor:
    """Finds the best candidates of each image by greedy non-maximum suppression over rotations.

    Where too few candidates are `separation` degrees apart, the best of the others follow.

    Args:
        score: (N, H).
        candidates: (N, H); those of different templates never suppress each other.
        count: how many to find.
        separation: degrees.

    Returns:
        Positions (N, min(count, H)), best first.
    """
    # Demoted scores stay in their order, below all others
    score = score.double().clone()
    rows, found = torch.arange(len(score)), []
    demoted = score.amax() - score.amin() + 1
    for _ in range(min(count, score.shape[1])):
        index = score.argmax(dim=1)
        found.append(index)
        best = candidates.select((rows, index))
        close = _close(candidates, best.pose.rotation[:, None], best.choice[:, None], separation)
        score -= demoted * close[..., 0]
        # What has been found is never found again
        score[rows, index] = -torch.inf
    return torch.stack(found, dim=1)


def _close(candidates: Candidates, rotation: Tensor, choice: Tensor, degrees: float) -> Tensor:
    """Returns which candidates (N, H) are close to which others: (N, H, K) for (N, K, 4), (N, K)."""
    # q and -q are the same rotation, and the angle between rotations is twice that between quaternions
    cosine = (candidates.pose.rotation @ rotation.transpose(1, 2)).abs()
    near = cosine > math.cos(math.radians(degrees) / 2)
    return near & (candidates.choice[..., None] == choice[:, None])


def with_complements(hypotheses: Hypotheses, num_templates: int) -> tuple[Candidates, Tensor]:
    """Returns the hypotheses of stage 1 and their complementary poses, and overlaps (N, 2 H).

    A complementary pose has the same silhouette, so its overlap is taken to be the same.
    """
    got = hypotheses.template_weights.shape[2]
    if got != num_templates:
        raise UserError(
            f"The hypotheses of stage 1 were made with {got} templates, now there are "
            f"{num_templates}. Run pose_optimization_step1.py again."
        )
    # Scale, translation and z0 stay as they are
    doubled = Pose(*(member.repeat(1, 2, 1) for member in hypotheses.pose))
    rotation = hypotheses.pose.rotation
    rotation = torch.cat([rotation, quaternion.complementary(rotation)], dim=1)
    # One-hot weights name the template
    choice = hypotheses.template_weights.argmax(dim=2).repeat(1, 2)
    return Candidates(doubled._replace(rotation=rotation), choice), hypotheses.iou.repeat(1, 2)


def side_views(scored: Scored, usable: Tensor) -> Tensor:
    """Returns the rows of usable images (N,) whose poses are trusted before parts were compared.

    An object that faces the viewer has the silhouette of one that faces away by the same angle, so
    only poses near the exact side view are sure. Images whose candidates disagree come in only if
    there are no others.
    """
    best = scored.best().candidates.pose.rotation
    # Images whose candidates agree
    confident = ((scored.spread() < AGREEMENT) & usable).nonzero()[:, 0]
    if len(confident) == 0:
        logger.warning("no image has hypotheses that agree: all images make the semantic template")
        return usable.nonzero()[:, 0]
    # Of these, the views from the side
    side = quaternion.complementary_score(best[confident])
    order = side.argsort(descending=True, stable=True)
    return confident[order[: max(LEAST_SUPPORT, int((side > LEAST_SIDE_VIEW).sum()))]]


def accept(scored: Scored, keep_share: float, threshold: float | None) -> Tensor:
    """Returns the rows of the images that are kept, ascending.

    Args:
        scored: all images.
        keep_share: share of the images that is kept, the most confident ones.
        threshold: keeps images by the published rule instead: those whose candidates spread less
            than this, and whose parts fit better than the worst tenth's.
    """
    if threshold is None:
        # By doubts, which do not all round to the same number as confidences near 1 do
        order = scored.doubt().argsort(stable=True)
        return order[: max(1, round(keep_share * len(order)))].sort().values
    # The published rule
    overlap = scored.best().overlap
    discarded = int(DISCARDED_SHARE * len(overlap))
    least = overlap.kthvalue(discarded).values if discarded else -torch.inf
    return ((scored.spread() < threshold) & (overlap > least)).nonzero()[:, 0]
