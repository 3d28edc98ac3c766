"""Labeled viewing directions: reading, the sense of their angles, and the report."""

import json
from pathlib import Path

import pytest
import torch

from data import prepare
from data.detections import Detections, load_detections
from data.view_labels import (
    SECTORS,
    ViewLabels,
    azimuth_error,
    load_view_labels,
    view_report,
)
from geometry import quaternion
from utils.cli import UserError

# Object space: the front is -y, up is z. Camera frame: x right, y down, z away from the viewer
FRONT_IN_CAMERA = {
    0: (1.0, 0.0, 0.0),
    45: (1.0, 0.0, -1.0),
    90: (0.0, 0.0, -1.0),
    135: (-1.0, 0.0, -1.0),
    180: (-1.0, 0.0, 0.0),
    225: (-1.0, 0.0, 1.0),
    270: (0.0, 0.0, 1.0),
    315: (1.0, 0.0, 1.0),
}


def rotation_with_front_at(direction: tuple[float, float, float]) -> torch.Tensor:
    """Returns the upright rotation that turns the front of the object to a horizontal direction."""
    front = torch.nn.functional.normalize(torch.tensor(direction), dim=0)
    up = torch.tensor([0.0, -1.0, 0.0])
    lateral = torch.linalg.cross(-front, up)  # x = y cross z, and the front is -y
    return quaternion.from_matrix(torch.stack([lateral, -front, up], dim=1))


def view(azimuth: float, elevation: float = 0.0, roll: float = 0.0) -> torch.Tensor:
    return quaternion.from_view(*torch.tensor([azimuth, elevation, roll]))


@pytest.fixture
def toy(collection: Path) -> Detections:
    prepare.main(["--dataset", "toy", "--category", "bird"])
    return load_detections("toy")


@pytest.mark.parametrize("sector", SECTORS)
def test_a_label_says_where_the_front_points_in_the_image(sector: int):
    rotation = rotation_with_front_at(FRONT_IN_CAMERA[sector])
    assert azimuth_error(rotation, torch.tensor(float(sector))) == pytest.approx(0, abs=1e-3)


def test_errors_grow_alike_on_both_sides_and_across_the_first_sector():
    rotations = torch.stack([view(a) for a in (350.0, 10.0, 180.0, 181.0, 90.0, 270.0)])
    errors = azimuth_error(rotations, torch.tensor(0.0))
    expected = torch.tensor([10.0, 10.0, 180.0, 179.0, 90.0, 90.0])
    torch.testing.assert_close(errors, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("sector", SECTORS)
def test_a_mirrored_photograph_has_the_mirrored_label(sector: int):
    rotation = view(sector + 17.0, elevation=12.0, roll=8.0)
    mirrored = azimuth_error(quaternion.mirror(rotation), torch.tensor((180.0 - sector) % 360))
    assert mirrored == pytest.approx(17, abs=1e-3)


@pytest.mark.parametrize(("elevation", "roll"), [(30.0, 0.0), (-30.0, 0.0), (0.0, 20.0)])
def test_elevation_and_roll_do_not_count(elevation: float, roll: float):
    error = azimuth_error(view(200.0, elevation, roll), torch.tensor(180.0))
    assert error == pytest.approx(20, abs=1e-3)


def test_labels_are_matched_by_the_names_of_the_images(collection: Path, toy: Detections):
    assert load_view_labels(toy) is None
    entries = {"2": {"azimuth": 270, "sure": False}, "x": {"azimuth": 0}, "0": {"azimuth": 45}}
    (collection / "views.json").write_text(json.dumps(entries))
    labels = load_view_labels(toy)
    assert labels is not None
    assert labels.known.tolist() == [True, False, True]
    assert labels.sure.tolist() == [True, False, False]
    assert labels.azimuth[labels.known].tolist() == [45, 270]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "not valid JSON"),
        ('{"x": {"azimuth": 45}}', "names none of the 3 images"),
        ('{"0": {"azimuth": 30}}', r"0: expected .*, got {'azimuth': 30}"),
        ('{"0": {"azimuth": true}}', "0: expected"),
        ('{"0": {"azimuth": [45]}}', "0: expected"),
        ('{"0": {"azimuth": 45, "sure": 1}}', "0: expected"),
        ('{"0": 45}', "0: expected"),
    ],
)
def test_damaged_labels_are_named(collection: Path, toy: Detections, content: str, message: str):
    (collection / "views.json").write_text(content)
    with pytest.raises(UserError, match=message) as refusal:
        load_view_labels(toy)
    assert "views.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_report_counts_labeled_rows_only():
    rotations = torch.stack([view(a) for a in (44.0, 46.0, 170.0, 300.0, 180.0)])
    labels = ViewLabels(
        azimuth=torch.tensor([0.0, 0.0, 0.0, 315.0, 0.0]),
        known=torch.tensor([True, True, True, True, False]),
        sure=torch.tensor([True, False, False, True, False]),
    )
    assert view_report(rotations, labels) == {
        "images": 4,
        "share_near": 0.5,
        "share_sure_near": 1.0,
        "share_turned_round": 0.25,
    }
    nothing = view_report(rotations[4:], labels, torch.tensor([4]))
    assert nothing == dict.fromkeys(nothing) | {"images": 0}
