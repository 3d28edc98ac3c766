"""Stage 3 on a GPU does what it does on a processor."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cache import pseudo_files
from tests.pipeline.reconstruction.toy import CAMERAS, COUNT, FLOW, SIZE, run
from tests.runs import NEEDS_GPU, assert_alike
from utils import checkpoint

pytestmark = NEEDS_GPU

RUNS = Path("checkpoints_recon")
ON_GPU = ["--gpu_ids", "0"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        FLOW,
        CAMERAS,
        ["--silhouette", "volume", "--point_grid", "32"],
        ["--silhouette", "cover"],
        ["--pose_rate", "0.01"],
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
def test_training_records_the_same_losses(toy: Path, options: list[str]) -> None:
    length = ["--iters", "10", *options]
    run(*length)
    run(*length, "--name", "gpu_singletpl", *ON_GPU)
    assert_alike(RUNS / "toy_singletpl", RUNS / "gpu_singletpl", 0.02)


def test_a_model_of_a_gpu_exports_the_same_on_a_processor(toy: Path) -> None:
    run("--iters", "5", *ON_GPU)
    items = []
    for device in (ON_GPU, ["--gpu_ids", "cpu"]):
        run("--generate_pseudogt", "--pseudogt_resolution", "128", *device)
        items.append(
            [pseudo_files.load_pseudo_item("toy", 128, "singletpl", i) for i in range(COUNT - 1)]
        )
        run("--evaluate", *device)
        for path in pseudo_files.pseudo_item_paths("toy", 128, "singletpl"):
            path.unlink()
    for ours, theirs in zip(*items, strict=True):
        np.testing.assert_allclose(ours.mesh, theirs.mesh, atol=1e-3)
        # Texels at the edge of what is seen may fall on either side of it
        differs = np.abs(ours.texture - theirs.texture).max(0) > 0.02
        assert differs.mean() < 0.01


def test_an_interrupted_training_continues_on_a_gpu(toy: Path) -> None:
    run("--iters", "4", *ON_GPU)
    run("--iters", "8", *ON_GPU)
    state = checkpoint.load(checkpoint.resolve(RUNS / "toy_singletpl", "latest"))
    assert state["iteration"] == 8


def test_a_photograph_is_fitted_on_a_gpu(toy: Path) -> None:
    run("--iters", "5", *ON_GPU)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    Image.fromarray((np.hypot(x, y) < 15).astype(np.uint8) * 255).save("mask.png")
    photograph = ["--photo", "datasets/toy/images/1.png", "--mask", "mask.png"]
    run(*photograph, "--refine_steps", "3", *ON_GPU)
    assert list(Path("output").rglob("*.glb"))
