"""Stage 2: choice and refinement of poses by parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pose_optimization_step2
from data.cache import folders, pose_files, template_files
from data.cache.pose_files import Hypotheses
from geometry import quaternion
from geometry.camera import Pose, to_vector
from pipeline.poses import survey
from pipeline.poses.contact_sheet import CELL, MARGIN, TILE
from pipeline.poses.evidence import networks
from tests.pipeline.poses import pose_world
from utils.cli import UserError
from utils.files import read_json

COMMAND = [
    "--dataset", "toy", "--mode", "singletpl", "--image_resolution", "48",
    "--num_workers", "0", "--gpu_ids", "cpu", "--features", "none", "--shape_modes", "0",
]  # fmt: skip
AZIMUTHS = [0.0, 20.0, 160.0, 200.0, 330.0, 180.0]
ELEVATIONS = [10.0, 0.0, 20.0, 5.0, 25.0, 0.0]


def write_hypotheses(truth: Pose) -> None:
    """Writes three hypotheses an image: turned front to back, the true one, seen from the end."""
    count = len(truth.scale)
    back = quaternion.from_view(torch.tensor(180.0), torch.tensor(0.0), torch.tensor(0.0))
    turn = quaternion.from_axis_angle(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(180.0))
    rotations = [
        quaternion.multiply(truth.rotation, turn.expand(count, 4)),
        truth.rotation,
        back.expand(count, 4),
    ]
    pose = Pose(*(x[:, None].repeat(1, 3, 1) for x in truth))
    pose = pose._replace(rotation=torch.stack(rotations, dim=1))
    weights = torch.ones(count, 3, 1)
    iou = torch.tensor([0.92, 0.9, 0.3]).repeat(count, 1)
    iou[:3] = torch.tensor([0.6, 0.95, 0.3])  # the first three are unambiguous
    hypotheses = Hypotheses(pose, weights, iou)
    pose_files.save_hypotheses("toy", "singletpl", hypotheses, pose_world.origin())


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pose:
    """Makes a prepared dataset of six images and their hypotheses; returns the true poses."""
    monkeypatch.chdir(tmp_path)
    pose = pose_world.poses(AZIMUTHS, ELEVATIONS)
    pose_world.write_dataset(pose)
    write_hypotheses(pose)
    return pose


def chosen() -> pose_files.EstimatedPoses:
    return pose_files.load_estimated_poses("toy", "singletpl", pose_world.origin())


def test_parts_tell_front_from_back(truth: Pose) -> None:
    pose_optimization_step2.main([*COMMAND, "--semantic_rounds", "1", "--refine_steps", "0"])
    found = chosen()
    degrees = quaternion.angle_between(found.pose.rotation, truth.rotation[found.indices])
    assert len(found.indices) >= 4
    assert degrees.max() < 0.1
    assert (found.miou > 0.5).all()


def test_choice_does_not_depend_on_the_batch_size_or_threads(
    truth: Pose, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for size, threads in (("1", "1"), ("4", "2")):
        monkeypatch.setenv("TMG_THREADS", threads)
        pose_optimization_step2.main([*COMMAND, "--batch_size", size, "--refine_steps", "2"])
        results.append(chosen())
    assert torch.equal(results[0].indices, results[1].indices)
    assert torch.equal(to_vector(results[0].pose), to_vector(results[1].pose))
    assert torch.equal(results[0].miou, results[1].miou)


def test_without_part_maps_colors_tell_front_from_back(truth: Pose) -> None:
    pose_optimization_step2.main(
        [*COMMAND, "--parts_source", "appearance", "--refine_steps", "2", "--keep_share", "1"]
    )
    found = chosen()
    degrees = quaternion.angle_between(found.pose.rotation, truth.rotation)
    assert degrees.median() < 5
    assert degrees.max() < 90
    assert torch.equal(found.iou, found.miou)


def test_frames_of_a_clip_do_not_turn_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Gray bodies: only outlines speak, and that of the third frame is one of the opposite pose.

    It fits that pose, and the complementary one, which is 26 degrees from the true pose.
    """
    monkeypatch.chdir(tmp_path)
    azimuths = [70.0, 76.0, 82.0, 88.0, 94.0, 100.0]
    truth = pose_world.poses(azimuths, [10.0] * 6)
    turned = pose_world.poses([azimuth + 180 for azimuth in azimuths], [10.0] * 6)
    masks, parts = pose_world.draw(truth)
    masks[2] = pose_world.draw(turned)[0][2]
    pose_world.write_photographs(truth, 0.5 * torch.ones(6, 3, 64, 64), masks, parts, "toy")
    pose = Pose(*(torch.stack(pair, dim=1) for pair in zip(truth, turned, strict=True)))
    hypotheses = Hypotheses(pose, torch.ones(6, 2, 1), torch.ones(6, 2))
    pose_files.save_hypotheses("toy", "singletpl", hypotheses, pose_world.origin())
    options = ["--parts_source", "appearance", "--semantic_rounds", "1", "--refine_steps", "0"]
    errors = []
    for clips in ([], ["--clips"]):
        with caplog.at_level("INFO"):
            pose_optimization_step2.main([*COMMAND, *options, "--keep_share", "1", *clips])
        errors.append(quaternion.angle_between(chosen().pose.rotation, truth.rotation))
    assert (errors[0] > 20).tolist() == [False, False, True, False, False, False]
    assert errors[1].max() < 0.1
    assert "clips: 1, with 6 frames" in caplog.text


def test_features_join_the_colors(truth: Pose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "load_features", lambda choice: pose_world.Network())
    command = [*COMMAND, "--parts_source", "appearance", "--keep_share", "1", "--refine_steps", "2"]
    results = []
    for batch_size in ("1", "4"):
        words = [*command, "--features", "colors", "--batch_size", batch_size]
        pose_optimization_step2.main(words)
        results.append(chosen())
    degrees = quaternion.angle_between(results[0].pose.rotation, truth.rotation)
    assert degrees.median() < 5
    assert degrees.max() < 90
    assert torch.equal(to_vector(results[0].pose), to_vector(results[1].pose))
    assert len(list(folders.cache_folder("toy").glob("features_*.npy"))) == 1


def test_without_timm_the_automatic_choice_is_none(
    truth: Pose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = [*COMMAND, "--semantic_rounds", "1", "--refine_steps", "1"]
    pose_optimization_step2.main(command)
    expected = chosen()
    monkeypatch.setattr(networks, "default_features", lambda: None)
    with caplog.at_level("INFO"):
        pose_optimization_step2.main([*command, "--features", "auto"])
    assert "pip install -r requirements-features.txt" in caplog.text
    assert torch.equal(to_vector(chosen().pose), to_vector(expected.pose))
    assert torch.equal(chosen().confidence, expected.confidence)


@pytest.mark.slow
def test_two_processes_choose_the_same_as_one(truth: Pose) -> None:
    results = []
    for devices in ("cpu", "cpu,cpu"):
        pose_optimization_step2.main([*COMMAND, "--refine_steps", "2", "--gpu_ids", devices])
        results.append(chosen())
    assert torch.equal(to_vector(results[0].pose), to_vector(results[1].pose))
    assert torch.equal(results[0].confidence, results[1].confidence)


def test_template_and_pictures_are_exported(truth: Pose) -> None:
    options = ["--semantic_rounds", "1", "--refine_steps", "0"]
    pose_optimization_step2.main([*COMMAND, *options, "--export_semantic_template", "--visualize"])
    with np.load("output/toy_semantic_template_singletpl.npz") as arrays:
        assert arrays["part_names"].tolist() == ["none", "head", "tail"]
        assert arrays["probabilities"].shape == (1, 962, 3)
        assert arrays["labels"].shape == (1, 962)
        assert arrays["probabilities_uv"].shape == (1, 3, 128, 128)
        assert arrays["labels_uv"].shape == (1, 128, 128)
        assert arrays["faces"].max() == 961
    with Image.open("output/toy_poses_singletpl.png") as sheet:
        assert sheet.size == (6 * (2 * TILE + 2) + 2, TILE + 4)  # six pairs in a row
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 50
    with Image.open("output/toy_poses_singletpl_views.png") as views:
        cells = np.asarray(views)[MARGIN:-MARGIN, MARGIN:-MARGIN, 0]
        assert cells.shape == (18 * CELL, 36 * CELL)
        assert 0 < (cells > 0).sum() <= 6 * CELL**2


def test_semantic_template_and_errors_are_written(truth: Pose) -> None:
    pose_optimization_step2.main([*COMMAND, "--refine_steps", "2"])
    template = pose_files.load_semantic_template("toy", "singletpl", pose_world.origin())
    assert template.part_names == ["head", "tail"]
    assert template.probabilities.shape == (1, 962, 3)
    figures = read_json("cache/toy/metrics.json")["step2"]["singletpl"]
    assert figures["images"] == 6
    assert figures["rotation_of_kept"]["images"] == figures["kept"]
    assert figures["rotation_of_kept"]["median_degrees"] < 30


@pytest.mark.parametrize("source", ["maps", "appearance"])
@pytest.mark.parametrize("stop", [1, 7, 9])
def test_an_interrupted_run_continues_to_the_same_result(
    truth: Pose, monkeypatch: pytest.MonkeyPatch, source: str, stop: int
) -> None:
    command = [*COMMAND, "--refine_steps", "1", "--batch_size", "1", "--parts_source", source]
    pose_optimization_step2.main(command)
    expected = chosen()
    pose_files.poses_path("toy", "singletpl").unlink()
    calls = []

    def interrupted(*args: Any) -> dict[str, torch.Tensor]:
        calls.append(args)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return measure_all(*args)

    measure_all = survey.measure_all
    monkeypatch.setattr(survey, "measure_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pose_optimization_step2.main(command)
    assert not pose_files.poses_path("toy", "singletpl").exists()
    pose_optimization_step2.main(command)
    passes = 5 if source == "maps" else 3
    assert len(calls) == 6 * passes + 1  # nothing was measured twice but what was interrupted
    assert torch.equal(to_vector(chosen().pose), to_vector(expected.pose))
    assert torch.equal(chosen().confidence, expected.confidence)
    assert not list(folders.cache_folder("toy").glob(".step2*"))


def test_hypotheses_of_an_earlier_template_are_refused(truth: Pose) -> None:
    template_files.save_templates("bird", "singletpl", 1.1 * pose_world.body()[None])
    with pytest.raises(
        UserError, match=r"other templates.*pose_optimization_step1\.py --dataset toy"
    ):
        pose_optimization_step2.main(COMMAND)
    assert not pose_files.poses_path("toy", "singletpl").exists()
