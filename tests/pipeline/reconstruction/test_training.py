"""Training and evaluation of the mesh estimator on a few synthetic images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.cache import pseudo_files
from data.collection import shapes_path
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.evaluation import evaluate
from pipeline.reconstruction.training import Update, decay_interval, make_schedule
from tests.pipeline.reconstruction.toy import (
    CAMERAS,
    COUNT,
    FLOW,
    RUN,
    SIZE,
    config,
    make_dataset,
    run,
    state,
)
from tests.runs import assert_equal, die_at, left_behind
from utils.run_directory import RunDirectory
from utils.training import make_length


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("added", [["--pose_rate", "0.01"], FLOW, CAMERAS])
def test_a_killed_run_ends_as_an_uninterrupted_one_bitwise(
    added: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--iters", "8", "--checkpoint_freq", "3", "--image_freq", "2", *added)
    run(*options)
    whole, expected = state(), left_behind(RUN)
    RUN.rename("first")
    for death in (2, 5, 7):
        die_at(death, Update, lambda: run(*options), monkeypatch)
    run(*options)
    assert_equal(whole, state())
    assert left_behind(RUN) == expected


@pytest.mark.usefixtures("toy")
def test_pictures_and_losses_have_parts_only_where_there_are_parts() -> None:
    """Rows of 64 pixels with lines of 2 around them, each below a name of 14."""
    make_dataset("plain", "bird", ())
    for name, rows in (("toy", 5), ("plain", 3)):
        run("--iters", "1", "--dataset", name, "--name", f"{name}_singletpl")
        folder = Path(f"checkpoints_recon/{name}_singletpl/samples")
        with Image.open(folder / "0000001.png") as picture:
            assert picture.height == rows * (64 + 4 + 14)
        # A part map that is 1 everywhere would be no term of the loss
        assert ("parts" in state(f"{name}_singletpl")["losses"]) == (rows == 5)


@pytest.mark.usefixtures("toy")
def test_a_finished_run_started_again_changes_nothing() -> None:
    run("--iters", "1")
    before = (RUN / "checkpoint_0000001.pth").stat().st_mtime_ns
    run("--iters", "1", "--continue_train")
    assert (RUN / "checkpoint_0000001.pth").stat().st_mtime_ns == before
    assert "already trained for 1 steps" in (RUN / "log.txt").read_text()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("prediction_type", ["none", "texture", "semantics", "both"])
def test_training_works_for_every_prediction_type(prediction_type: str) -> None:
    run("--iters", "2", "--prediction_type", prediction_type, "--loss", "l1", "--no_prefetch",
        "--num_workers", "0", "--tensorboard")  # fmt: skip
    assert list(Path("tensorboard_recon/toy_singletpl").glob("events*"))
    assert (RUN / "samples/0000002.png").exists()
    measures = evaluate(torch.device("cpu"), config("--evaluate"))
    assert ("color_error" in measures) == (prediction_type in ("texture", "both"))


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_training_lowers_the_loss() -> None:
    run(
        "--iters",
        "30",
        "--lr",
        "0.002",
        "--batch_size",
        "4",
        "--semi_fraction",
        "0",
        "--save_freq",
        "1000",
    )
    records = RunDirectory(RUN).records()
    losses = [record["total"] for record in records]  # steps 10, 20, 30, of all images
    assert losses[2] < losses[1] < 0.9 * losses[0]


@pytest.mark.usefixtures("toy")
def test_evaluation_measures_shapes_where_the_truth_is_known() -> None:
    sphere = SphereMesh()
    shapes_path("toy").parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        shapes_path("toy"),
        shape_id=np.array([7]),
        vertices=5 * sphere.vertices[None].numpy(),
        faces=sphere.faces.numpy(),
    )
    np.savez(
        shapes_path("toy").with_name("ground_truth.npz"),
        name=np.array([str(i) for i in range(COUNT)]),
        rotation=np.tile([1.0, 0, 0, 0], (COUNT, 1)),
        scale_px=np.full(COUNT, 10.0),
        translation_px=np.full((COUNT, 2), SIZE / 2),
        camera_distance=np.full(COUNT, np.inf),
        shape_id=np.array([7] * COUNT),
    )
    run("--iters", "1")
    one = evaluate(torch.device("cpu"), config("--evaluate"))
    other = evaluate(torch.device("cpu"), config("--evaluate", "--batch_size", "1"))
    assert one == pytest.approx(other, rel=1e-4)
    assert 0.5 < one["iou"] <= 1
    assert one["chamfer_template"] < 0.01
    assert one["chamfer"] < 2
    assert RunDirectory(RUN).records()[-1]["iou"] == pytest.approx(other["iou"])


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_several_datasets_are_trained_together(monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset("herd", "horse", ("mane", "tail", "hoof"))
    monkeypatch.setattr(
        "pipeline.reconstruction.dataset.expand_dataset", lambda name: ("toy", "herd")
    )
    run("--dataset", "all", "--iters", "2", "--batch_size", "4")
    assert state()["part_names"] == ["beak", "tail", "hoof", "mane"]
    run("--dataset", "all", "--generate_pseudogt", "--pseudogt_resolution", "64")
    metadata = pseudo_files.load_metadata("all", "singletpl")
    assert metadata.category.tolist() == [0] * 4 + [1] * 4
    seg = pseudo_files.load_pseudo_item("all", 64, "singletpl", 0).seg
    assert seg.shape[0] == 5
    assert not seg[3:].any()  # A bird has no hooves


def test_intervals_count_steps_or_epochs_as_the_length_does() -> None:
    options = config("--iters", "3")
    length = make_length(1, 3, options.optimizer.iters, epochs=1000)
    assert make_schedule(options.output, length) == (3, 1, 3, 10, 1)
    assert decay_interval(options.optimizer, length) == 1
    given = ("--checkpoint_freq", "7", "--image_freq", "8", "--save_freq", "9")
    for unit, flag in ((1, "--iters"), (10, "--epochs")):
        options = config(flag, "50", *given)
        length = make_length(30, 3, options.optimizer.iters, epochs=50)
        schedule = make_schedule(options.output, length)
        assert (schedule.checkpoint, schedule.picture, schedule.save) == (
            7 * unit,
            8 * unit,
            9 * unit,
        )
        assert schedule.total == 50 * unit
    assert decay_interval(options.optimizer, length) == 2500
