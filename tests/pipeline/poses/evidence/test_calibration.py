"""The temperature of scores, from how well two kinds of evidence agree."""

import math

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose
from pipeline.poses.candidates import Candidates
from pipeline.poses.evidence import calibration
from pipeline.poses.evidence.calibration import temperature


def candidates_of(count: int, views: int = 6) -> Candidates:
    """Returns candidates (count, views) all round an object."""
    azimuth = torch.arange(views) * 360.0 / views
    rotation = quaternion.from_view(azimuth, torch.zeros(views), torch.zeros(views))
    ones = torch.ones(count, views, 1)
    pose = Pose(ones, ones.expand(-1, -1, 2), rotation.expand(count, -1, -1), ones)
    return Candidates(pose, torch.zeros(count, views, dtype=torch.int64))


def log_likelihoods(right: Tensor, views: int, generator: torch.Generator) -> Tensor:
    """Returns exact log-likelihoods (N, views) of a measurement that is normal around 1.5 where right."""
    measured = torch.randn(len(right), views, generator=generator)
    measured[torch.arange(len(right)), right] += 1.5
    return 1.5 * measured


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_two_kinds_that_exaggerate_alike_are_found_out(factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(6, (4000,), generator=generator)
    first, second = (factor * log_likelihoods(right, 6, generator) for _ in range(2))
    found = temperature(first, second, candidates_of(4000))
    assert found == pytest.approx(factor, rel=0.25)


def test_one_kind_alone_is_taken_at_its_word() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(50, 6, generator=generator)
    assert temperature(first, torch.zeros(50, 6), candidates_of(50)) == pytest.approx(1)


def test_candidates_that_are_left_out_do_not_count() -> None:
    generator = torch.Generator().manual_seed(1)
    right = torch.randint(6, (300,), generator=generator)
    first, second = (log_likelihoods(right, 6, generator) for _ in range(2))
    expected = temperature(first, second, candidates_of(300))
    out = torch.full((300, 6), -torch.inf)
    doubled = candidates_of(300).extend(candidates_of(300))
    noise = 9 * torch.randn(300, 6, generator=generator)
    found = temperature(torch.cat([first, out], 1), torch.cat([second, noise], 1), doubled)
    assert found == expected


def test_agreement_of_pairs_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(2, 3, 4, generator=generator)
    near = torch.rand(3, 4, 4, generator=generator) > 0.5
    grid = torch.tensor([0.5, 2.0], dtype=torch.float64)
    found = calibration.log_agreement(first, second, near, grid)
    for k, value in enumerate(grid.tolist()):
        total = 0.0
        for n in range(3):
            p, q = (torch.softmax(scores[n].double() / value, 0) for scores in (first, second))
            agreement = sum(p[i] * q[j] for i in range(4) for j in range(4) if near[n, i, j])
            total += math.log(agreement + calibration.LEAST_AGREEMENT)
        assert found[k].item() == pytest.approx(total)
