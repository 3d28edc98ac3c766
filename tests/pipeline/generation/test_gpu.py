"""Stage 4 on a GPU does what it does on a processor."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from tests.pipeline.generation.toy import run, save_statistics
from tests.runs import NEEDS_GPU, assert_alike

pytestmark = NEEDS_GPU

RUNS = Path("checkpoints_gan")
ON_GPU = ["--gpu_ids", "0"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--warmup_steps", "5", "--d_steps_per_g", "1"],
        ["--augment", "0.5", "--r1_weight", "1"],
        ["--start_from", "linear"],
        ["--conditional_class"],
        ["--conditional_semantics"],
        ["--texture_only"],
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
def test_training_records_the_same_losses(toy: Path, options: list[str]) -> None:
    length = ["--iters", "10", *options]
    run(*length)
    run(*length, "--name", "gpu_singletpl", *ON_GPU)
    assert_alike(RUNS / "toy_singletpl", RUNS / "gpu_singletpl", 0.05)


@pytest.mark.parametrize("training", [["--iters", "3"], ["--model", "linear"]])
def test_a_model_of_a_gpu_makes_the_same_meshes_on_a_processor(
    toy: Path, training: list[str]
) -> None:
    run(*training, *ON_GPU)
    meshes = []
    for device in ("0", "cpu"):
        run("--export_sample", "--how_many", "2", "--overwrite", "--gpu_ids", device)
        mesh = trimesh.load_mesh(toy / "output/toy_singletpl/mesh_1.obj", process=False)
        meshes.append(np.asarray(mesh.vertices))
    np.testing.assert_allclose(*meshes, atol=1e-3)


def test_samples_are_measured_on_a_gpu(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_statistics()
    run("--iters", "3", *ON_GPU)
    with caplog.at_level("INFO"):
        run("--evaluate", "--proxy_distance", *ON_GPU)
    assert "proxy distance" in caplog.text


def test_everything_that_belongs_to_an_export_is_made_on_a_gpu(toy: Path) -> None:
    run("--iters", "3", *ON_GPU)
    run("--export_morphs", "--interpolate", "1", "2", "--swap", "--how_many", "4", *ON_GPU)
    assert (toy / "output/toy_singletpl/morphs.glb").exists()
