"""Stage 1: fits of poses to silhouettes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import pose_optimization_step1
from data import artifacts
from data.definitions import VIEW_PRIORS
from data.detections import load_detections
from pipeline import silhouette
from pipeline.contour_search import ContourSearch
from pipeline.partial_results import PartialResults
from pipeline.pose_report import agreement
from pipeline.silhouette import Schedule, fit_poses
from rendering import camera, quaternion
from rendering.mesh_template import MeshTemplate
from tests.pipeline import pose_world
from utils.cli import UserError
from utils.files import read_json

COMMAND = [
    "--dataset", "toy", "--mode", "singletpl", "--image_resolution", "32",
    "--camera_optim_steps", "4", "--refine_steps", "3", "--num_workers", "0", "--gpu_ids", "cpu",
]  # fmt: skip
SEARCHES = {"contour": "search_poses", "reference": "fit_poses"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a prepared dataset of three images in the working directory."""
    monkeypatch.chdir(tmp_path)
    pose_world.write_dataset(pose_world.poses([20.0, 200.0, 330.0], [10.0, 0.0, 25.0]))


@pytest.fixture
def faces() -> Tensor:
    return MeshTemplate().faces


def read() -> artifacts.Hypotheses:
    return artifacts.load_hypotheses("toy", "singletpl", load_detections("toy").fingerprint)


def equal(a: artifacts.Hypotheses, b: artifacts.Hypotheses) -> bool:
    pairs = zip((*a.pose, *a[1:]), (*b.pose, *b[1:]), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_agreement_equals_the_published_score(shared: Path) -> None:
    with np.load(shared / "reference/golden/rendering.npz") as golden:
        iou, rotation, expected = (
            torch.from_numpy(golden[k]) for k in ("agr_iou", "agr_R", "agreement")
        )
    torch.testing.assert_close(agreement(iou, rotation), expected, rtol=1e-4, atol=1e-6)


def test_resolution_and_sharpness_follow_the_paper() -> None:
    schedule = Schedule(steps=100, decay_after=80, prune=False)
    assert silhouette.resolution_ladder(256) == (128, 192, 256)
    assert silhouette.resolution_ladder(64) == (32, 48, 64)
    assert schedule.milestones == (30, 60)
    assert schedule.sharpness(0) == pytest.approx(7000)
    assert schedule.sharpness(99) == pytest.approx(70000)
    assert schedule.learning_rate(80) == 0.1
    assert schedule.learning_rate(81) == pytest.approx(0.01)
    assert Schedule(1, 0, False).sharpness(0) == 7000  # a single step divides by nothing


def test_initial_hypotheses_are_the_views_at_nine_tenths_of_the_image() -> None:
    templates = torch.stack([pose_world.body(), 0.5 * pose_world.body()])
    parameters, choice = silhouette.initial_hypotheses(templates)
    assert parameters.shape == (80, 8)
    assert choice[:4].tolist() == [0, 1, 0, 1]
    screen = camera.project(templates[choice], silhouette.unpack(parameters))
    # The perspective depends a little on the scale
    torch.testing.assert_close(
        screen[..., :2].abs().amax(dim=(1, 2)), torch.full((80,), 0.9), rtol=0.15, atol=0
    )
    torch.testing.assert_close(
        silhouette.unpack(parameters).rotation[::2], quaternion.initial_views()
    )


def test_recovers_the_pose_of_a_rendered_body(faces: Tensor) -> None:
    truth = pose_world.poses([30.0], [15.0])
    targets, _ = pose_world.draw(truth, 48)
    found = fit_poses(targets, pose_world.body()[None], faces, Schedule(40, 30, prune=False))
    assert found.iou.shape == (1, 40)
    assert found.iou.max() > 0.95
    near = found.pose.rotation[0, found.iou[0] > 0.93]
    both = torch.cat([near, quaternion.complementary(near)])
    assert quaternion.angle_between(both, truth.rotation).min() < 8


def test_outlines_find_the_pose_of_a_rendered_body(faces: Tensor) -> None:
    truth = pose_world.poses([30.0, 110.0], [15.0, 0.0])
    targets, _ = pose_world.draw(truth, 96)
    template = pose_world.body()[None]
    search = ContourSearch(template, faces, VIEW_PRIORS["bird"])
    found = silhouette.search_poses(targets, search, template, faces, steps=30)
    assert found.iou.shape == (2, 8 + 2)
    assert found.iou.amax(dim=1).min() > 0.95
    apart = quaternion.angle_between(found.pose.rotation, truth.rotation[:, None])
    assert apart.amin(dim=1).max() < 5


def test_mirrored_targets_give_mirrored_poses(faces: Tensor) -> None:
    targets, _ = pose_world.draw(pose_world.poses([30.0], [15.0]), 32)
    schedule = Schedule(3, 2, prune=False)
    template = pose_world.body()[None]
    plain = fit_poses(targets, template, faces, schedule)
    flipped = fit_poses(targets.flip(-1), template, faces, schedule)
    mirrored = camera.mirror(camera.select(plain.pose, 0))
    apart = quaternion.angle_between(mirrored.rotation[:, None], flipped.pose.rotation[:1])
    nearest = apart.amin(dim=1)
    # Where symmetry makes the gradient vanish, the optimizer scales rounding errors up
    assert nearest.median() < 0.5
    assert plain.iou.max() == pytest.approx(flipped.iou.max().item(), abs=0.01)


def test_pruning_keeps_the_better_half_of_each_image() -> None:
    iou = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.3, 0.2, 0.8, 0.7])
    assert silhouette.better_half(iou, 2).tolist() == [1, 2, 6, 7]


def test_pruning_halves_the_hypotheses_twice(faces: Tensor) -> None:
    targets, _ = pose_world.draw(pose_world.poses([30.0, 80.0], [15.0, 0.0]), 32)
    templates = pose_world.body()[None].repeat(2, 1, 1)
    found = fit_poses(targets, templates, faces, Schedule(4, 3, prune=True))
    assert found.iou.shape == (2, 20)
    assert found.template_weights.sum(dim=-1).eq(1).all()


@pytest.mark.parametrize("search", SEARCHES)
def test_results_do_not_depend_on_the_batch_size(
    world: None, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    results = []
    for size, threads in (("1", "1"), ("3", "2")):
        monkeypatch.setenv("TMG_THREADS", threads)
        pose_optimization_step1.main([*COMMAND, "--search", search, "--batch_size", size])
        results.append(read())
    assert equal(*results)


@pytest.mark.slow
def test_two_processes_find_the_same_as_one(world: None) -> None:
    results = []
    for devices in ("cpu", "cpu,cpu"):
        pose_optimization_step1.main([*COMMAND, "--gpu_ids", devices])
        results.append(read())
    assert equal(*results)


@pytest.mark.parametrize("search", SEARCHES)
def test_an_interrupted_run_continues_to_the_same_result(
    world: None, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    command = [*COMMAND, "--batch_size", "1", "--search", search]
    pose_optimization_step1.main(command)
    expected = read()
    artifacts.hypotheses_path("toy", "singletpl").unlink()
    calls = []

    def interrupt(*args: object) -> artifacts.Hypotheses:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return find(*args)

    find = getattr(silhouette, SEARCHES[search])
    monkeypatch.setattr(silhouette, SEARCHES[search], interrupt)
    with pytest.raises(KeyboardInterrupt):
        pose_optimization_step1.main(command)
    assert not artifacts.hypotheses_path("toy", "singletpl").exists()
    pose_optimization_step1.main(command)
    assert len(calls) == 4
    assert equal(read(), expected)
    assert not list(artifacts.cache_folder("toy").glob(".step1*"))


def test_what_an_interrupted_run_left_can_be_refused(world: None) -> None:
    folder = artifacts.cache_folder("toy") / ".step1_singletpl"
    folder.mkdir()
    (folder / "rows_0.pth").write_text("damaged")
    pose_optimization_step1.main([*COMMAND, "--no-resume"])
    assert not folder.exists()


def test_partial_results_of_other_settings_are_not_used(tmp_path: Path) -> None:
    PartialResults(tmp_path, {"steps": 1}, range(3)).add([0, 2], {"a": torch.tensor([1.0, 2.0])})
    assert sorted(PartialResults(tmp_path, {"steps": 1}, range(2)).rows) == [0]
    assert not PartialResults(tmp_path, {"steps": 2}, range(3)).rows


def test_rotation_errors_are_reported_and_written(world: None) -> None:
    pose_optimization_step1.main(COMMAND)
    figures = read_json("cache/toy/metrics.json")["step1"]["singletpl"]
    assert figures["images"] == 3
    assert figures["rotation_of_all"]["images"] == 3
    assert 0 <= figures["rotation_of_all"]["median_degrees"] <= 180
    assert 0 < figures["mean_best_iou"] <= 1


def test_a_missing_template_is_one_line(world: None) -> None:
    artifacts.templates_path("bird", "singletpl").unlink()
    with pytest.raises(UserError, match=r"remesh\.py --mode singletpl --classes bird"):
        pose_optimization_step1.main(COMMAND)
