"""How poses are judged: halves, calibration, and the figures of images whose views are known."""

import pytest
import torch
from torch import Tensor

from benchmarks import pose_figures
from benchmarks.halves import COLLECTIONS
from benchmarks.pose_confidence import BINS, calibration_error, judge
from benchmarks.pose_errors import Truth
from benchmarks.pose_figures import Estimates
from geometry import quaternion


def upright(azimuth: list[float]) -> Tensor:
    return quaternion.from_view(torch.tensor(azimuth), torch.tensor(0.0), torch.tensor(0.0))


def estimates(truth: Truth, half: list[str], **changes: list[float]) -> Estimates:
    members = [name for name in Estimates._fields if name not in ("half", "truth")]
    tensors = {name: torch.tensor(changes.get(name, [0.5] * len(half))) for name in members}
    return Estimates(half, truth, **tensors)


@pytest.mark.parametrize(
    ("collection", "name", "shape_id", "half"),
    [
        ("photobirds", "0000", 7, "choosing"),
        ("photobirds", "0000", 8, "reporting"),
        ("photocars", "0000", 3, "choosing"),
        ("photocars", "0000", 4, "reporting"),
        ("weizmann_horses", "horse080", -1, "choosing"),
        ("weizmann_horses", "horse081", -1, "reporting"),
        ("realcars", "side_0001", -1, "choosing"),
        ("realcars", "ig_0001_0", -1, "reporting"),
        ("synthetic_elephant", "000000", 0, "reporting"),
    ],
)
def test_halves_are_split_by_object_number_or_source(collection, name, shape_id, half):
    assert COLLECTIONS[collection].half_of(name, shape_id) == half


def test_calibration_error_is_that_of_a_loop_over_the_bins():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(200, generator=generator)
    confidence[:3] = torch.tensor([0.0, 0.999999, 1.0])
    right = torch.rand(200, generator=generator) < confidence**2
    expected = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        bin = [
            (c, r)
            for c, r in zip(confidence.tolist(), right.tolist(), strict=True)
            if low <= c < high or (number == BINS - 1 and c == 1)
        ]
        if bin:
            gap = sum(c for c, _ in bin) / len(bin) - sum(r for _, r in bin) / len(bin)
            expected += len(bin) / 200 * abs(gap)
    assert calibration_error(confidence, right) == pytest.approx(expected, abs=1e-6)


def test_calibration_error_of_certainty_is_the_share_of_mistakes():
    right = torch.tensor([True, False, False, True, True])
    assert calibration_error(torch.ones(5), right) == pytest.approx(0.4)
    assert calibration_error(right.float(), right) == 0


def test_shares_of_the_most_confident_are_nested():
    confidence = torch.linspace(0, 1, 10)
    degrees = torch.linspace(90, 0, 10)
    table = judge(confidence, degrees, near=30)
    assert [row["images"] for row in table] == [5, 8, 9, 10]
    assert [row["share_near"] for row in table] == pytest.approx([4 / 5, 4 / 8, 4 / 9, 4 / 10])
    assert [row["lowest"] for row in table] == pytest.approx([5 / 9, 2 / 9, 1 / 9, 0])


def test_figures_count_known_images_of_their_half_only():
    truth = Truth(torch.tensor([True, True, True, False, True]), 30.0, upright([0.0] * 5))
    half = ["choosing", "reporting", "reporting", "reporting", "reporting"]
    found = estimates(
        truth,
        half,
        degrees=[90.0, 10.0, 170.0, 0.0, 30.0],
        either_end=[90.0, 10.0, 10.0, 0.0, 30.0],
        confidence=[1.0, 0.9, 0.2, 1.0, 0.7],
        step1_degrees=[0.0, 40.0, 40.0, 0.0, 20.0],
        any_degrees=[0.0, 1.0, 2.0, 90.0, 31.0],
    )
    both = pose_figures.judge(found)
    assert both["choosing"]["images"] == 1
    reported = both["reporting"]
    assert reported["images"] == 3
    assert reported["share_near"] == pytest.approx(2 / 3)
    assert reported["median_degrees"] == pytest.approx(30)
    assert reported["share_turned_round"] == pytest.approx(1 / 3)
    assert reported["share_either_end_near"] == 1
    assert reported["share_confident_near"] == 1  # 0.8 of three are two
    assert reported["mean_confidence"] == pytest.approx(0.6)
    assert reported["highest_confidence"] == pytest.approx(0.9)
    assert reported["share_near_step1"] == pytest.approx(1 / 3)
    assert reported["share_any_near"] == pytest.approx(2 / 3)
    assert reported["calibration_error"] == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    assert "sectors" not in reported


def test_labeled_sectors_are_told_apart():
    truth = Truth(
        known=torch.ones(4, dtype=torch.bool),
        near=45.0,
        azimuth=torch.tensor([0.0, 270.0, 270.0, 270.0]),
        sure=torch.tensor([True, True, False, True]),
    )
    found = pose_figures.judge(
        estimates(truth, ["reporting"] * 4, degrees=[44.0, 46.0, 180.0, 0.0])
    )["reporting"]
    assert found["share_near"] == 0.5
    assert found["share_sure_near"] == pytest.approx(2 / 3)
    assert found["sectors"] == {
        "0": {"images": 1, "share_near": 1.0},
        "270": {"images": 3, "share_near": pytest.approx(1 / 3)},
    }
    lines = list(pose_figures.sector_table({"realcars": {"all": found}}))
    assert "100% (1)" in lines[1]
    assert "33% (3)" in lines[1]


def test_a_truth_compares_one_rotation_or_many_of_each_row():
    rotations = upright([10.0, 100.0])
    rows = torch.tensor([2, 0])
    known = torch.ones(3, dtype=torch.bool)
    azimuths = torch.tensor([90.0, 0.0, 0.0])
    expected = torch.tensor([10.0, 10.0])
    for truth in (
        Truth(known, 30.0, upright(azimuths.tolist())),
        Truth(known, 45.0, azimuth=azimuths, sure=known),
    ):
        torch.testing.assert_close(truth.errors(rotations, rows), expected, atol=1e-2, rtol=0)
        many = torch.stack([rotations, rotations.flip(0)], dim=1)
        errors = truth.errors(many, rows)
        torch.testing.assert_close(errors[:, 0], expected, atol=1e-2, rtol=0)
        torch.testing.assert_close(errors[:, 1], torch.tensor([100.0, 80.0]), atol=1e-2, rtol=0)


def test_objects_seen_from_the_wrong_end_are_right_up_to_the_end():
    known, rows = torch.ones(2, dtype=torch.bool), torch.arange(2)
    for truth in (
        Truth(known, 30.0, upright([10.0, 100.0])),
        Truth(known, 45.0, azimuth=torch.tensor([10.0, 100.0]), sure=known),
    ):
        errors = truth.errors_of_either_end(upright([195.0, 110.0]), rows)
        torch.testing.assert_close(errors, torch.tensor([5.0, 10.0]), atol=1e-2, rtol=0)


def test_arbitrary_axes_are_found_for_poses_and_for_labels():
    azimuths = [0.0, 45.0, 90.0, 225.0]
    known, rows = torch.ones(4, dtype=torch.bool), torch.arange(4)
    estimated = upright([azimuth + 70 for azimuth in azimuths])
    for truth in (
        Truth(known, 30.0, upright(azimuths)),
        Truth(known, 45.0, azimuth=torch.tensor(azimuths), sure=known),
    ):
        aligned = truth.align(estimated).apply(estimated)
        assert truth.errors(aligned, rows).max() < 0.1
