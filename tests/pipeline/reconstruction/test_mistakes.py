"""Options and files that do not fit: one line that says how to go on."""

from pathlib import Path

import pytest

import run_generation
from data.cache.folders import collection_path
from data.detections import load_detections
from tests.pipeline.reconstruction.toy import (
    COUNT,
    RUN,
    make_dataset,
    run,
    save_poses,
    save_template,
    state,
)
from utils import checkpoint
from utils.cli import UserError
from utils.files import write_json


@pytest.mark.usefixtures("toy")
def test_a_rasterizer_that_is_not_there_leaves_no_run_behind() -> None:
    with pytest.raises(UserError, match="'kaolin' lacks"):
        run("--iters", "1", "--rasterizer", "kaolin")
    assert not RUN.exists()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-symmetric"], "only mirror-symmetric"),
        (["--epochs", "2", "--iters", "2"], "exclude each other"),
        (["--mesh_path", "uvsphere_16rings.obj"], "31 rings"),
        (["--image_resolution", "100"], "multiple of 32"),
        (["--pseudogt_path", "x"], "always written"),
        (["--which_epoch", "best"], "expected a number or latest"),
        (["--evaluate", "--generate_pseudogt"], "exclude each other"),
        (["--texture_resolution", "100"], "invalid choice"),
        (["--pose_rate", "2"], "from 0 to 1"),
    ],
)
def test_wrong_options_are_told_by_the_parser(
    options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        run(*options)
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_other_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(UserError, match="at least 2 images"):
        run("--batch_size", "1")
    with pytest.raises(UserError, match="neither singletpl nor multitpl"):
        run("--name", "toy")
    with pytest.raises(UserError, match=r"run_reconstruction\.py"):
        run("--evaluate")
    assert not RUN.exists()
    run("--iters", "1", "--prediction_type", "texture")
    with pytest.raises(UserError, match="--prediction_type both"):
        run("--generate_pseudogt")
    with pytest.raises(UserError, match="--lr"):
        run("--iters", "2", "--lr", "1e30")
    with pytest.raises(UserError, match="numbered ones: 1"):
        run("--evaluate", "--which_epoch", "9")
    make_dataset("toy", "bird", ("beak",))
    run("--iters", "1", "--name", "x_singletpl")
    make_dataset("toy", "bird", ("wing",))
    with pytest.raises(UserError, match="trained with the parts beak"):
        run("--evaluate", "--name", "x_singletpl")


@pytest.mark.usefixtures("toy")
def test_what_was_made_with_earlier_templates_is_refused() -> None:
    run("--iters", "1")
    run("--generate_pseudogt", "--pseudogt_resolution", "128")
    save_template("bird", 0.8)
    for options in (["--iters", "2"], ["--evaluate"], ["--generate_pseudogt"]):
        with pytest.raises(UserError, match=r"poses_estimated.*other templates.*step2\.py"):
            run(*options)
    save_poses(load_detections("toy"), range(1, COUNT))
    for options in (["--iters", "2"], ["--evaluate"], ["--generate_pseudogt"]):
        with pytest.raises(UserError, match=r"(checkpoint|model).*other templates.*--dataset toy"):
            run(*options)
    write_json(collection_path("toy"), {"category": "bird"})
    gan = ["--name", "toy_singletpl", "--dataset", "toy", "--gpu_ids", "cpu", "--iters", "1"]
    with pytest.raises(UserError, match=r"other templates.*--dataset toy.*--generate_pseudogt"):
        run_generation.main([*gan, "--texture_resolution", "128"])
    run("--name", "new_singletpl", "--iters", "1")


@pytest.mark.usefixtures("toy")
def test_published_checkpoints_with_weights_only_are_applied() -> None:
    run("--iters", "1", "--shape_head", "convolution")
    stripped = {"generator": {f"module.{k}": v for k, v in state()["generator"].items()}}
    folder = Path("checkpoints_recon/pretrained_singletpl")
    checkpoint.save(folder / "checkpoint_latest.pth", stripped)
    name = ("--name", "pretrained_singletpl")
    run(*name, "--evaluate")
    with pytest.raises(UserError, match="weights only"):
        run(*name, "--iters", "1")
