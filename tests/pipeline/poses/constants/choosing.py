"""Cases of constants by which poses are chosen and judged: candidates, priors, calibration, clips, reports."""

import math

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose
from pipeline.poses import candidates, report, step2, view_prior
from pipeline.poses.candidates import Candidates, Scored, rank
from pipeline.poses.evidence import calibration, clips
from tests.pipeline.poses.constants.case import LEVEL, Case, equal, near, posterior_mean


def temperature_of(first: float, second: float, images: int) -> float:
    """Compares two kinds of evidence that prefer the same one of two views, by so much."""
    views, best = (
        near(0, 180).select(torch.zeros(images, dtype=torch.int64)),
        torch.zeros(images, 2),
    )
    best[:, 0] = 1
    return calibration.temperature(first * best, second * best, views)


def chance_agreement() -> float:
    """Returns the agreement of kinds of evidence that are sure of different views."""
    sure = torch.tensor([[0.0, -900.0]])
    one = torch.ones(1, dtype=torch.float64)
    return calibration.log_agreement(sure, sure.flip(1), torch.eye(2)[None], one).exp().item()


def uncovered() -> Scored:
    """Returns one candidate that covers half of a mask."""
    zero = torch.zeros(1, 1)
    return rank(near(0.0), zero, zero + 0.5, zero)


def pairs(chances: list[float], azimuths: list[float]) -> Scored:
    """Returns images with two opposite views each, the first of them right with a chance."""
    views = [near(azimuth, azimuth + 180) for azimuth in azimuths]
    rotation = torch.cat([view.pose.rotation for view in views])
    ones = torch.ones(len(views), 2, 1)
    pose = Pose(ones, ones.expand(-1, -1, 2), rotation, ones)
    odds = torch.tensor([[math.log(chance / (1 - chance)), 0.0] for chance in chances])
    return rank(
        Candidates(pose, torch.zeros(len(views), 2, dtype=torch.int64)),
        odds,
        torch.ones_like(odds),
        odds,
    )


def trusted(chances: list[float], azimuths: list[float]) -> float:
    usable = torch.ones(len(chances), dtype=torch.bool)
    return float(len(candidates.side_views(pairs(chances, azimuths), usable)))


def confident_images() -> float:
    usable = torch.arange(10) < 8
    return float(len(step2.confident_rows(pairs(10 * [0.9], 10 * [0.0]), usable)))


def kept_by_the_rule() -> float:
    overlap = torch.linspace(0.1, 1, 40)[:, None]
    rotation = near(0).pose.rotation.expand(40, 1, 4)
    ones = torch.ones(40, 1, 1)
    pose = Pose(ones, ones.expand(-1, -1, 2), rotation, ones)
    some = Candidates(pose, torch.zeros(40, 1, dtype=torch.int64))
    return float(len(candidates.accept(rank(some, overlap, overlap, overlap), 1.0, 0.3)))


def spread_of_overlaps() -> float:
    rotation = near(0, 180).pose.rotation
    return report.agreement(torch.tensor([[0.51, 0.5]]), rotation).item()


def motion(near: float, squares: float) -> clips.Motion:
    """Returns how objects turn, from ten pairs of frames of which `near` belong together."""
    return clips._maximize([clips._Pairs(near, squares)], 10)


def density_after_a_cut() -> float:
    clip = clips.Clip(torch.arange(2), torch.ones(1, dtype=torch.int64))
    opposite = torch.full((1, 1, 1), math.pi**2)
    return next(clips._transitions(opposite, clip, clips.Motion(10.0, 0.5)))[0].exp().item()


def first_overlap(word: str) -> float:
    """Returns the least overlap, in hundredths, whose verdict has a word; 0 if none has."""
    found = (x / 100 for x in range(101) if word in report.verdict(x / 100))
    return next(found, 0.0)


def largest_conflict() -> float:
    """Returns the largest conflict, in hundredths, with which a template of overlap 1 fits."""
    return max(x / 100 for x in range(101) if "fits" in report.verdict(1.0, x / 100))


def least_confidence() -> float:
    """Returns the least confidence, in hundredths, with which a template of overlap 1 fits."""
    return min(x / 100 for x in range(101) if "fits" in report.verdict(1.0, 0.0, x / 100))


def log_prior(elevation: float, roll: float) -> float:
    rotation = quaternion.from_view(*torch.tensor([70.0, elevation, roll]))
    return view_prior.log_prior(rotation, LEVEL).item()


def view_penalty(error: Tensor, mean: Tensor, patch: pytest.MonkeyPatch) -> Tensor:
    with patch.context() as inner:
        inner.setattr(view_prior, "log_prior", lambda rotation, prior: -rotation.square() / 2)
        return view_prior.with_prior(error, mean[None], LEVEL)


CASES: list[Case] = [
    # Two of three equally likely views lie within 30 degrees of the first
    (candidates, "SAME_POSE", lambda: equal(0, 25, 45).confidence().item(), 2 / 3),
    # Views of 0 and 3 degrees are one, that of 12 another, that of 180 the third
    (candidates, "DUPLICATE", lambda: equal(0, 3, 12, 180).confidence().item(), 2 / 3),
    (calibration, "COLDEST", lambda: temperature_of(1.0, 1.0, 1000), 0.25),
    (calibration, "HOTTEST", lambda: temperature_of(9.0, -9.0, 1000), 4.0),
    (calibration, "SPREAD", lambda: temperature_of(1.0, 1.0, 1), 0.8409),
    (calibration, "LEAST_AGREEMENT", chance_agreement, 1e-3),
    (candidates, "MISFIT_DOUBT", lambda: uncovered().confidence().item(), 0.925),
    (candidates, "LEAST_SIDE_VIEW", lambda: trusted(17 * [0.999], 14 * [0.0] + 3 * [45.0]), 14),
    (candidates, "LEAST_SUPPORT", lambda: trusted(50 * [0.999], 50 * [80.0]), 10),
    # Two opposite views with chances p spread by 2 p (1 - p): 0.15 is trusted, 0.45 is not
    (candidates, "AGREEMENT", lambda: trusted([*12 * [0.999], 0.9183, 0.658], 14 * [0.0]), 13),
    (candidates, "DISCARDED_SHARE", kept_by_the_rule, 36),
    # Without a pair to learn from it stays where it began; without turns or cuts it stays possible
    (clips, "_FIRST_TURN", lambda: motion(0, 0).turn, 15),
    (clips, "_LEAST_TURN", lambda: motion(10, 0).turn, 3),
    (clips, "_LEAST_CUTS", lambda: motion(10, 1).cuts, 1e-4),
    (clips, "_MOST_CUTS", lambda: motion(0, 0).cuts, 0.5),
    (clips, "_VOLUME", density_after_a_cut, 0.5 / (8 * math.pi**2)),
    # Chances e / (1 + e) and 1 / (1 + e)
    (report, "TEMPERATURE", spread_of_overlaps, 2 * math.e / (1 + math.e) ** 2),
    (report, "FITTING", lambda: first_overlap("fits"), 0.8),
    (report, "LARGEST_CONFLICT", largest_conflict, 0.1),
    (report, "LEAST_CONFIDENCE", least_confidence, 0.65),
    (report, "UNLIKE", lambda: first_overlap("resembles"), 0.65),
    (view_prior, "LEAST_DENSITY", lambda: log_prior(5.0, 180.0), -10.0),
    # The mean of 20 measurements of variance 2, and one of variance 1 that says 0
    (view_prior, "NOISE", lambda monkeypatch: posterior_mean(lambda e, m: view_penalty(e, m, monkeypatch)), 10 / 11),
    (step2, "CONFIDENT_SHARE", confident_images, 4),
    # An elevation of 0 where 5 is expected, with a spread of 3
    (step2, "PRIOR_WEIGHT", lambda: step2.prior_support(near(0.0), LEVEL).item(), -0.5 * (5 / 3) ** 2 / 2),
]  # fmt: skip
