"""What is expected of poses before looking."""

import pytest
import torch

from data.definitions import CATEGORIES, VIEW_PRIORS
from geometry import quaternion
from pipeline.poses.view_prior import log_prior


def density(category: str, azimuth: float, elevation: float, roll: float) -> float:
    angles = torch.tensor([azimuth, elevation, roll], dtype=torch.float32)
    return log_prior(quaternion.from_view(*angles), VIEW_PRIORS[category]).item()


def test_every_category_has_a_prior() -> None:
    assert list(VIEW_PRIORS) == list(CATEGORIES)


def test_density_of_what_stands_is_normal_in_elevation_and_roll() -> None:
    prior = VIEW_PRIORS["car"]
    assert density("car", 30, prior.elevation, 0) == pytest.approx(0, abs=1e-3)
    one_off = prior.elevation + prior.elevation_spread
    assert density("car", 200, one_off, prior.roll_spread) == pytest.approx(-1, abs=1e-3)


def test_cars_stand_on_their_wheels_from_all_sides() -> None:
    for azimuth in range(0, 360, 45):
        assert density("car", azimuth, 5, 0) - density("car", azimuth, 5, 180) > 9


def test_birds_lift_their_heads() -> None:
    assert density("bird", 0, 5, 25) > density("bird", 0, 5, -25) + 1  # looks right, head up
    assert density("bird", 180, 5, -25) > density("bird", 180, 5, 25) + 1  # looks left
    assert density("bird", 90, -20, 0) > density("bird", 90, 30, 0) + 1  # the breast is seen


def test_a_mirrored_view_is_as_likely() -> None:
    rotation = quaternion.from_view(*torch.tensor([70.0, 20.0, 15.0]))
    for prior in VIEW_PRIORS.values():
        mirrored = log_prior(quaternion.mirror(rotation), prior)
        torch.testing.assert_close(mirrored, log_prior(rotation, prior), atol=1e-4, rtol=0)


def test_density_does_not_depend_on_the_other_poses() -> None:
    generator = torch.Generator().manual_seed(1)
    rotation = quaternion.normalize(torch.randn(150, 4, generator=generator))
    together = log_prior(rotation, VIEW_PRIORS["bird"])
    for count in (1, 3, 64, 77):
        assert torch.equal(log_prior(rotation[:count], VIEW_PRIORS["bird"]), together[:count])
    shaped = log_prior(rotation.reshape(10, 15, 4), VIEW_PRIORS["bird"])
    assert torch.equal(shaped, together.reshape(10, 15))
