"""A mesh estimator is one file: prediction needs nothing else, and it holds nothing else."""

import shutil
from pathlib import Path

import pytest
import torch

from data.definitions import usual_views
from geometry.camera import Pose
from pipeline.reconstruction.dataset import Labels
from pipeline.reconstruction.evaluation import evaluate
from pipeline.reconstruction.model import make_scene, predict
from pipeline.reconstruction.model_file import Model, load_model, load_trained
from pipeline.reconstruction.texture_flow import flow_texture
from tests.pipeline.reconstruction.toy import config, make_dataset, run
from tests.runs import assert_equal
from utils import checkpoint
from utils.cli import UserError

RUN = Path("checkpoints_recon/toy_singletpl")
MODEL = RUN / "model.pth"
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("toy")


def noise(size: int) -> torch.Tensor:
    return torch.rand(2, 4, size, size, generator=torch.manual_seed(0))


def estimate(model: Model) -> dict[str, torch.Tensor]:
    """Estimates the meshes of two crops of noise, seen from the front."""
    image = noise(model.options.image_resolution)
    rotation = torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4)
    pose = Pose(torch.ones(2, 1), torch.zeros(2, 2), rotation, torch.full((2, 1), 2.0))
    number = torch.zeros(2, dtype=torch.int64)
    labels = Labels(pose, number, number, number.bool(), torch.zeros(2, 0))
    prediction = predict(
        model.network, make_scene(model.vocabulary, model.options, CPU), image, labels
    )
    return {name: value for name, value in prediction._asdict().items() if value is not None}


def test_meshes_are_estimated_from_the_file_alone() -> None:
    run("--iters", "2")
    trained, data, _ = load_trained(config("--evaluate"), CPU)
    assert data.capacity == 0  # every image is used once
    before = estimate(trained)
    moved = shutil.move(MODEL, "elsewhere.pth")
    for folder in ("cache", "datasets", "checkpoints_recon"):
        shutil.rmtree(folder)
    model = load_model(Path(moved), CPU)
    assert_equal(estimate(model), before)
    assert model.vocabulary.categories == ["bird"]
    assert model.vocabulary.part_names == ["beak", "tail"]
    assert model.vocabulary.templates.shape == (1, 962, 3)
    assert model.vocabulary.template_category.tolist() == [0]
    assert model.vocabulary.views.tolist() == [list(usual_views("bird"))]
    assert model.step == 2


def test_the_file_holds_the_latest_weights_and_no_optimizer() -> None:
    run("--iters", "1")
    run("--iters", "2")
    state, whole = checkpoint.load(MODEL), checkpoint.load(RUN / "checkpoint_latest.pth")
    assert state.keys() == {
        *("generator", "args", "iteration", "format", "environment", "categories"),
        *(
            "part_names",
            "selection",
            "templates",
            "template_category",
            "views",
            "student",
            "mask_head",
            "usual_overlap",
        ),
    }
    assert state["iteration"] == 2
    assert_equal(state["generator"], whole["generator"])


def test_evaluation_is_the_same_from_the_file_and_from_a_complete_checkpoint() -> None:
    run("--iters", "1")
    latest = evaluate(CPU, config("--evaluate"))
    assert evaluate(CPU, config("--evaluate", "--which_epoch", "1")) == latest
    for path in RUN.glob("checkpoint_*"):
        path.unlink()
    assert evaluate(CPU, config("--evaluate")) == latest


def test_categories_of_several_data_sets_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset("herd", "horse", ("mane", "tail", "hoof"))
    monkeypatch.setattr(
        "pipeline.reconstruction.dataset.expand_dataset", lambda name: ("toy", "herd")
    )
    run("--dataset", "all", "--iters", "1", "--batch_size", "4")
    vocabulary = load_model(MODEL, CPU).vocabulary
    assert vocabulary.categories == ["bird", "horse"]
    assert vocabulary.part_names == ["beak", "tail", "hoof", "mane"]
    assert vocabulary.selection.shape == (2, 4, 5)
    assert vocabulary.template_category.tolist() == [0, 1]


TAMPERED = [
    ({"format": 7}, r"has format 7, this version of the program reads 1"),
    ({"selection": torch.ones(1, 3, 9)}, r"selection is .*expected finite numbers"),
    ({"templates": torch.full((1, 962, 3), torch.nan)}, r"templates is"),
    ({"views": torch.full((1, 5), torch.inf)}, r"views is .*expected finite numbers"),
    ({"categories": [1]}, r"its categories and parts are damaged \(\[1\]\)"),
    ({"args": {}}, r"does not state its architecture"),
    ({"generator": {}}, r"does not fit"),
]


def test_files_that_were_tampered_with_are_refused() -> None:
    run("--iters", "1")
    state = checkpoint.load(MODEL)
    for changes, message in TAMPERED:
        checkpoint.save(MODEL, state | changes)
        with pytest.raises(UserError, match=rf"model\.pth.*{message}"):
            load_model(MODEL, CPU)


def test_files_without_views_have_the_usual_ones() -> None:
    run("--iters", "1")
    state = checkpoint.load(MODEL)
    del state["views"]
    checkpoint.save(MODEL, state)
    assert load_model(MODEL, CPU).vocabulary.views.tolist() == [list(usual_views("bird"))]


def test_files_from_before_there_was_flow_have_colors() -> None:
    """Whatever is asked for, the architecture is the file's."""
    run("--iters", "1")
    for path in (MODEL, RUN / "checkpoint_0000001.pth"):
        state = checkpoint.load(path)
        del state["args"]["texture_model"]
        checkpoint.save(path, state)
    assert load_model(MODEL, CPU).options.texture_model == "rgb"
    asked = config("--evaluate", "--texture_model", "flow")
    assert load_trained(asked, CPU)[0].options.texture_model == "rgb"
    run("--iters", "2", "--texture_model", "flow")
    assert load_model(MODEL, CPU).step == 2


def test_flow_is_estimated_from_the_file_alone() -> None:
    run("--iters", "2", "--texture_model", "flow")
    model = load_model(MODEL, CPU)
    assert model.options.predicts_flow
    assert model.network.flow_start.abs().max() > 0.1
    found = estimate(model)
    assert_equal(found["texture"], flow_texture(noise(64), found["flow"]))


def test_a_published_checkpoint_says_that_it_needs_its_data_set() -> None:
    run("--iters", "1")
    path = Path("published.pth")
    checkpoint.save(path, {"generator": checkpoint.load(MODEL)["generator"]})
    with pytest.raises(UserError, match=r"categories, parts and templates.*--evaluate"):
        load_model(path, CPU)
