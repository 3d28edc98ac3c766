"""Stage 1 as a whole: the same results however it is run."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pose_optimization_step1
import pose_optimization_step2
from data.cache import folders, pose_files, template_files
from geometry import quaternion
from pipeline.poses import step1, step2
from pipeline.poses.report import agreement
from tests.pipeline.poses import pose_world
from utils.cli import UserError
from utils.files import read_json

COMMAND = [
    "--dataset", "toy", "--mode", "singletpl", "--image_resolution", "32",
    "--camera_optim_steps", "4", "--refine_steps", "3", "--num_workers", "0", "--gpu_ids", "cpu",
]  # fmt: skip
POSE = pose_world.poses([20.0, 200.0, 330.0], [10.0, 0.0, 25.0])
SEARCHES = {"contour": "search_poses", "reference": "fit_poses"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a prepared dataset of three images in the working directory."""
    monkeypatch.chdir(tmp_path)
    pose_world.write_dataset(POSE)


def read() -> pose_files.Hypotheses:
    return pose_files.load_hypotheses("toy", "singletpl", pose_world.origin())


def equal(a: pose_files.Hypotheses, b: pose_files.Hypotheses) -> bool:
    pairs = zip((*a.pose, *a[1:]), (*b.pose, *b[1:]), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_agreement_equals_the_published_score(shared: Path) -> None:
    with np.load(shared / "reference/golden/rendering.npz") as golden:
        iou, rotation, expected = (
            torch.from_numpy(golden[k]) for k in ("agr_iou", "agr_R", "agreement")
        )
    torch.testing.assert_close(agreement(iou, rotation), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        ["--search", "contour"],
        ["--search", "reference"],
        ["--adapt_shape", "0.1"],
        ["--silhouette", "volume", "--point_grid", "32"],
        ["--silhouette", "cover"],
    ],
)
def test_results_do_not_depend_on_the_batch_size(
    world: None, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    results = []
    for size, threads in (("1", "1"), ("3", "2")):
        monkeypatch.setenv("TMG_THREADS", threads)
        pose_optimization_step1.main([*COMMAND, *options, "--batch_size", size])
        results.append(read())
    assert equal(*results)


def test_a_grid_needs_points(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pose_optimization_step1.main([*COMMAND, "--point_grid", "32"])
    assert "--silhouette volume" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_find_the_same_as_one(world: None) -> None:
    results = []
    for devices in ("cpu", "cpu,cpu"):
        pose_optimization_step1.main([*COMMAND, "--gpu_ids", devices])
        results.append(read())
    assert equal(*results)


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
def test_an_interrupted_run_continues_to_the_same_result(
    world: None, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    command = [*COMMAND, "--batch_size", "1", "--search", search]
    pose_optimization_step1.main(command)
    expected = read()
    pose_files.hypotheses_path("toy", "singletpl").unlink()
    calls = []

    def interrupt(*args: object) -> pose_files.Hypotheses:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return find(*args)

    find = getattr(step1, SEARCHES[search])
    monkeypatch.setattr(step1, SEARCHES[search], interrupt)
    with pytest.raises(KeyboardInterrupt):
        pose_optimization_step1.main(command)
    assert not pose_files.hypotheses_path("toy", "singletpl").exists()
    pose_optimization_step1.main(command)
    assert len(calls) == 4
    assert equal(read(), expected)
    assert not list(folders.cache_folder("toy").glob(".step1*"))


def test_what_an_interrupted_run_left_can_be_refused(world: None) -> None:
    folder = folders.cache_folder("toy") / ".step1_singletpl"
    folder.mkdir()
    (folder / "rows_0.pth").write_text("damaged")
    pose_optimization_step1.main([*COMMAND, "--no-resume"])
    assert not folder.exists()


def test_rotation_errors_are_reported_and_written(world: None) -> None:
    pose_optimization_step1.main(COMMAND)
    figures = read_json("cache/toy/metrics.json")["step1"]["singletpl"]
    assert figures["images"] == 3
    assert figures["rotation_of_all"]["images"] == 3
    found = read()
    best = found.pose.rotation[torch.arange(3), found.iou.argmax(dim=1)]
    degrees = quaternion.angle_between(best, POSE.rotation)
    assert figures["rotation_of_all"]["median_degrees"] == pytest.approx(degrees.median().item())
    assert figures["mean_best_iou"] == pytest.approx(found.iou.amax(dim=1).mean().item())


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("cache/toy/metrics.json", b"[]"),
        ("cache/toy/metrics.json", b'{"step1": 3}'),
        ("cache/toy/metrics.json", b""),
        ("datasets/toy/ground_truth.npz", b"PK"),
    ],
)
def test_damaged_files_are_told_before_the_search(
    world: None, monkeypatch: pytest.MonkeyPatch, path: str, content: bytes
) -> None:
    monkeypatch.setattr(step1, "open_table", None)
    monkeypatch.setattr(step2, "open_folder", None)
    Path(path).write_bytes(content)
    for command in (pose_optimization_step1, pose_optimization_step2):
        with pytest.raises(UserError, match=Path(path).name):
            command.main(["--dataset", "toy", "--mode", "singletpl", "--gpu_ids", "cpu"])


def test_a_missing_template_is_one_line(world: None) -> None:
    template_files.templates_path("bird", "singletpl").unlink()
    with pytest.raises(UserError, match=r"remesh\.py --mode singletpl --classes bird"):
        pose_optimization_step1.main(COMMAND)


def test_the_reference_search_does_not_adapt_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        pose_optimization_step1.main([*COMMAND, "--search", "reference", "--adapt_shape", "0.1"])
    assert stop.value.code == 2
    assert "--adapt_shape needs --search contour" in capsys.readouterr().err
