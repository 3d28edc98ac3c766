"""Pictures of estimated poses."""

import numpy as np
import torch

from geometry import quaternion
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import contact_sheet
from pipeline.poses.contact_sheet import CELL, MARGIN, TILE, Fits
from pipeline.poses.semantic_template import SemanticModel
from tests.pipeline.poses import pose_world


def test_a_contact_sheet_runs_from_the_worst_to_the_best() -> None:
    assert contact_sheet.shown_rows(torch.tensor([0.9, 0.1, 0.5])).tolist() == [1, 2, 0]
    rows = contact_sheet.shown_rows(torch.arange(500.0))
    assert len(rows) == contact_sheet.LARGEST_SHEET
    assert (rows[0], rows[-1]) == (0, 499)


def test_a_contact_sheet_shows_photograph_outline_and_parts() -> None:
    pose = pose_world.poses([0.0, 120.0], [0.0, 10.0])
    mask, _ = pose_world.draw(pose, TILE)
    images = torch.cat([-mask[:, None].expand(-1, 3, -1, -1), mask[:, None]], dim=1)
    labels = torch.nn.functional.one_hot(pose_world.part_labels(), 3).float()
    model = SemanticModel(pose_world.body()[None], labels[None], SphereMesh().faces)
    fits = Fits(images, pose, torch.zeros(2, dtype=torch.int64), torch.tensor([0.1, 0.9]))
    sheet = contact_sheet.contact_sheet(fits, model)
    assert sheet.shape == (TILE + 4, 2 * (2 * TILE + 2) + 2, 3)
    photograph, parts = sheet[2:-2, 2 : TILE + 2], sheet[2:-2, TILE + 2 : 2 * TILE + 2]
    inside = mask[0].bool().numpy()
    outline = (photograph == (255, 153, 51)).all(axis=-1)
    assert 100 < outline.sum() < 800
    assert inside[outline].all()
    colors = {tuple(color) for color in parts[inside].tolist()}
    assert len(colors) > 3  # white, two parts, and their blends
    assert (parts[~inside] == 0).all()


def test_the_front_is_red_at_the_end_that_the_object_points_to() -> None:
    # To the right, to the left, towards the viewer, and away
    pose = pose_world.poses([0.0, 180.0, 90.0, 270.0], [0.0] * 4)
    mask, _ = pose_world.draw(pose, TILE)
    images = torch.cat([-mask[:, None].expand(-1, 3, -1, -1), mask[:, None]], dim=1)
    model = SemanticModel(pose_world.body()[None], torch.ones(1, 962, 1), SphereMesh().faces)
    fits = Fits(images, pose, torch.zeros(4, dtype=torch.int64), torch.ones(4))
    red = (contact_sheet.contact_sheet(fits, model)[2:-2] == (255, 0, 0)).all(axis=-1)
    tiles = [red[:, x + TILE : x + 2 * TILE] for x in range(2, red.shape[1], 2 * TILE + 2)]
    places = [tile.nonzero()[1] for tile in tiles]
    assert places[0].min() > 0.8 * TILE
    assert places[1].max() < 0.2 * TILE
    assert abs(places[2].mean() - TILE / 2) < 3
    assert len(places[3]) < len(places[2]) / 2  # the head is higher than the tail


def test_the_histogram_is_brightest_at_the_most_frequent_view() -> None:
    azimuth = torch.tensor([95.0] * 5 + [205.0])
    rotation = quaternion.from_view(azimuth, torch.full((6,), 25.0), torch.zeros(6))
    picture = contact_sheet.view_histogram(rotation)[MARGIN:-MARGIN, MARGIN:-MARGIN, 0]
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert (row // CELL, column // CELL) == (6, 9)
    assert (picture > 0).sum() == 2 * CELL**2
