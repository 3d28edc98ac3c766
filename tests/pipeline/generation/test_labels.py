"""GANs that are conditional on labels: trained, resumed, kept in one file, sampled by name."""

import shutil
from pathlib import Path

import pytest
import torch

import run_generation
from data.cache.label_files import save_labels
from pipeline.generation.config import make_config
from pipeline.generation.model_file import load_model
from tests.pipeline.generation.toy import COUNT, OPTIONS, run, save_statistics, weights
from tests.runs import assert_equal
from utils import checkpoint
from utils.cli import UserError

MODEL = Path("checkpoints_gan/toy_singletpl/model.pth")
CPU = torch.device("cpu")
NAMES = [f"{i}.jpg" for i in range(COUNT)]
COLORS = dict(zip(NAMES, ("red", "red", "blue", "green", "blue"), strict=True))
SHAPES = dict(zip(NAMES, ("thin", "thick", "thin", "thin", "thin"), strict=True))
BOTH = ("--conditional_class", "color", "shape")


@pytest.fixture(autouse=True)
def _labeled(toy: Path) -> None:
    save_labels("toy", {"color": COLORS, "shape": SHAPES})


def options_of(*arguments: str) -> tuple[bool, tuple[str, ...]]:
    config = make_config(vars(run_generation.build_parser().parse_args([*OPTIONS, *arguments])))
    return config.model.conditional_class, config.model.label_sets


def test_names_after_the_option_are_label_sets_and_without_them_it_is_the_category():
    assert options_of() == (False, ())
    assert options_of("--conditional_class") == (True, ())
    assert options_of("--conditional_class", "--iters", "1") == (True, ())
    assert options_of(*BOTH) == (True, ("color", "shape"))


@pytest.mark.slow
def test_a_model_of_two_sets_holds_their_names_and_is_sampled_by_them():
    run("--iters", "3", *BOTH)
    model = load_model(MODEL, CPU)
    assert model.label_names == {"color": ["blue", "green", "red"], "shape": ["thick", "thin"]}
    assert model.generator.num_classes == (3, 2)
    assert model.views.category.tolist() == [[2, 1], [2, 0], [0, 1], [1, 1], [0, 1]]
    # The file alone is enough, also to choose labels, and it brings the sets with it
    shutil.rmtree("cache")
    export = ("--export_sample", "--how_many", "3", "--conditional_class")
    for wanted, photographs in (("blue", {"2.jpg", "4.jpg"}), ("color=red,thick", {"1.jpg"})):
        run(*export, "--filter_class", wanted, "--overwrite")
        files = Path("output/toy_singletpl").glob("mesh_*.obj")
        origins = {line for file in files for line in file.read_text().splitlines()[:20]}
        found = {x.rpartition(" ")[2] for x in origins if "pose and category of" in x}
        assert found == photographs
    with pytest.raises(UserError, match="--filter_class pink: expected one label of color=blue"):
        run(*export, "--filter_class", "pink", "--overwrite")


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one():
    run("--iters", "4", *BOTH)
    whole = weights()
    shutil.rmtree("checkpoints_gan")
    run("--iters", "2", *BOTH)
    run("--iters", "4", *BOTH)
    for name in ("generator", "discriminator", "generator_running_avg"):
        assert_equal(weights()[name], whole[name])


@pytest.mark.slow
def test_every_label_trains_an_embedding_of_its_own():
    run("--iters", "9", "--batch_size", "5", *BOTH)
    state = weights()["generator"]
    assert state["emb_class.weight"].shape == (3, 32)
    assert state["emb_class2.weight"].shape == (2, 32)


@pytest.mark.slow
def test_on_another_data_set_labels_are_known_by_their_names():
    run("--iters", "1", "--conditional_class", "color")
    shutil.copytree("cache/toy", "cache/other")
    save_labels("other", {"color": dict.fromkeys(NAMES, "green") | {"0.jpg": "red"}})
    export = ("--export_sample", "--how_many", "1", "--dataset", "other", "--conditional_class")
    run(*export, "--filter_class", "red")
    save_labels("other", {"color": dict.fromkeys(NAMES, "pink")})
    with pytest.raises(UserError, match="the model knows no color pink"):
        run(*export, "--overwrite")


def test_mistakes_leave_nothing_behind():
    with pytest.raises(UserError, match="taste is none of its label sets: color, shape"):
        run("--iters", "1", "--conditional_class", "taste")
    save_labels("toy", {"color": {"0.jpg": "red"}})
    with pytest.raises(UserError, match="4 of 5 photographs have no label of color"):
        run("--iters", "1", "--conditional_class", "color")
    shutil.copytree("cache/toy", "cache/other")
    with pytest.raises(UserError, match="labels are of one dataset"):
        run("--iters", "1", "--dataset", "toy,other", "--conditional_class", "color")
    assert not Path("checkpoints_gan").exists()


def test_files_of_before_label_sets_are_read_as_they_were():
    run("--iters", "1", "--conditional_class")
    state = checkpoint.load(MODEL)
    del state["args"]["label_sets"]
    checkpoint.save(MODEL, state)
    model = load_model(MODEL, CPU)
    assert (model.options.label_sets, model.generator.num_classes) == ((), (1,))
    run("--export_sample", "--how_many", "1", "--conditional_class", "--filter_class", "toy")


@pytest.mark.slow
def test_damaged_labels_of_a_file_are_one_line():
    run("--iters", "1", *BOTH)
    state = checkpoint.load(MODEL)
    labels = state["labels"]
    for changes in ({"labels": None}, {"labels": labels | {"values": labels["values"] + 5}}):
        checkpoint.save(MODEL, state | changes)
        with pytest.raises(UserError, match=r"model\.pth: its labels are damaged"):
            load_model(MODEL, CPU)
    fewer = {**labels["names"], "shape": ["thick", "thin", "round"]}
    checkpoint.save(MODEL, state | {"labels": labels | {"names": fewer}})
    with pytest.raises(UserError, match="which its options contradict"):
        load_model(MODEL, CPU)


@pytest.mark.slow
def test_an_evaluation_tells_how_many_samples_are_of_the_class_asked_for(
    capsys: pytest.CaptureFixture,
) -> None:
    save_statistics()
    run("--model", "linear", "--conditional_class", "color")
    run("--evaluate", "--proxy_distance")
    printed = capsys.readouterr().out
    # Without modes, samples are the means of photographs of their labels
    assert "samples of the color asked for, by the nearest of 3 mean textures: 100.0 %" in printed
    recorded = Path("checkpoints_gan/toy_singletpl/metrics.jsonl").read_text()
    assert '"recognized_color": 1.0' in recorded
