"""Poses of all views at once: errors, probabilities, and an object whose poses are known."""

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from models.point_clouds import SECTORS, with_mirror_images
from pipeline.reconstruction.points import alignment, common_shape
from pipeline.reconstruction.points.common_shape import COARSE, FINE
from utils.seeding import torch_generator


def wedge() -> Tensor:
    """Returns points of a long box whose rear third is twice as high: front and rear look different."""
    generator = torch_generator(0, "wedge")
    body = (torch.rand(3000, 3, generator=generator) - 0.5) * torch.tensor([0.35, 0.8, 0.15])
    cabin = (torch.rand(1000, 3, generator=generator) - 0.5) * torch.tensor([0.3, 0.27, 0.15])
    return with_mirror_images(torch.cat([body, cabin + torch.tensor([0.0, 0.26, 0.15])]))


def test_errors_are_those_of_all_pairs():
    masks, seen = torch.rand(3, 8, 8), torch.rand(4, 8, 8)
    found = common_shape.compare(seen, masks)
    for view in range(3):
        for direction in range(4):
            error = float(((masks[view] - seen[direction]) ** 2).sum()) / 2
            assert float(found[view, direction]) == pytest.approx(error, rel=1e-4)


def test_directions_are_upright_and_one_in_each_cell_of_the_grid():
    low, high = common_shape.ELEVATIONS
    number = COARSE.elevations
    rotation = common_shape.draw_directions(COARSE, torch_generator(0, "directions"))
    azimuth, elevation, roll = quaternion.to_view(rotation)
    assert roll.abs().max() < 1e-3
    columns = (azimuth * (COARSE.azimuths / 360)).long().view(-1, number)
    assert (columns == torch.arange(COARSE.azimuths)[:, None]).all()
    rows = ((elevation - low) * (number / (high - low))).long().view(-1, number)
    assert (rows == torch.arange(number)).all()


def test_probabilities_favor_small_errors_but_no_azimuth():
    number = COARSE.azimuths * COARSE.elevations
    level = common_shape.responsibilities(torch.ones(5, number), 0.3, 1.0, COARSE.azimuths)
    assert torch.allclose(level, torch.full_like(level, 1 / number))
    # A direction that all views prefer tells nothing; the second best one decides
    errors = torch.ones(2, number)
    errors[:, 0] = 0.0
    errors[0, 3], errors[1, 6] = 0.2, 0.2
    found = common_shape.responsibilities(errors, 0.05, 1.0, COARSE.azimuths)
    assert torch.allclose(found.sum(1), torch.ones(2))
    assert found.argmax(dim=1).tolist() == [3, 6]
    assert 0.6 < float(found[0, 3]) < 0.7
    plain = common_shape.responsibilities(errors, 0.05, 0.0, COARSE.azimuths)
    assert torch.allclose(plain, (-errors / 0.05).softmax(1))


@pytest.mark.slow
def test_poses_of_an_object_are_found_without_knowing_any(monkeypatch):
    monkeypatch.setattr(common_shape, "STARTS", 1)
    monkeypatch.setattr(common_shape, "FINE", FINE._replace(steps=2))
    monkeypatch.setattr(common_shape, "COARSE", COARSE._replace(steps=60))
    generator = torch_generator(1, "views")
    azimuth = 360 * torch.rand(80, generator=generator)
    elevation = 60 * torch.rand(80, generator=generator) - 20
    true = quaternion.from_view(azimuth, elevation, torch.zeros(80))
    masks = common_shape.silhouettes(wedge(), true, FINE.grid, 0.4, torch.ones(()))
    found = common_shape.find(masks, 0)
    best = found.rotation[torch.arange(80), found.error.argmin(dim=1)]
    common = alignment.common_rotation(best, true, upright=True)
    assert alignment.accuracy(best, true, common).share > 0.9
    # Each sector has a pose of its own
    sector = (quaternion.to_view(found.rotation)[0] * (SECTORS / 360)).round() % SECTORS
    assert (sector == torch.arange(SECTORS)).all()
