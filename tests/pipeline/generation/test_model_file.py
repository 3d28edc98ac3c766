"""A model is one file: what is drawn from it needs nothing else, and it holds nothing else."""

import shutil
from pathlib import Path

import pytest
import torch

from pipeline.generation.model_file import load_model
from pipeline.reconstruction.model_file import load_model as load_estimator
from tests.pipeline.generation.toy import run, save_statistics
from tests.runs import assert_equal
from utils import checkpoint
from utils.cli import UserError
from utils.files import read_json, write_json
from utils.run_directory import RunDirectory

RUN = Path("checkpoints_gan/toy_singletpl")
MODEL = RUN / "model.pth"
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("toy")


def meshes() -> dict[str, bytes]:
    folder = Path("output/toy_singletpl")
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith("mesh_")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [[], ["--conditional_class"], ["--conditional_semantics"], ["--texture_only"]]
)
def test_meshes_are_exported_from_the_file_alone(flags: list[str]) -> None:
    run("--iters", "2", *flags)
    export = ["--export_sample", "--how_many", "3"]
    run(*export)
    before = meshes()
    shutil.rmtree("cache")
    for path in RUN.iterdir():
        if path != MODEL:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(*export, "--overwrite", *flags)
    assert meshes() == before
    assert read_json("output/toy_singletpl/provenance.json")["step"] == 2


def test_the_file_holds_the_averaged_weights_of_the_latest_state_and_no_optimizer() -> None:
    run("--iters", "2")
    state, whole = checkpoint.load(MODEL), checkpoint.load(RUN / "checkpoint_latest.pth")
    assert state.keys() == {
        "generator_running_avg", "views", "categories", "args", "iteration", "format", "environment",
    }  # fmt: skip
    assert state["iteration"] == 2
    assert_equal(state["generator_running_avg"], whole["generator_running_avg"])
    run("--iters", "3")
    assert checkpoint.load(MODEL)["iteration"] == 3


def test_numbered_checkpoints_are_complete_and_draw_the_same() -> None:
    run("--iters", "2")
    models = [load_model(path, CPU) for path in (MODEL, checkpoint.path_of(RUN, 2))]
    codes = torch.randn(2, 64, generator=torch.manual_seed(0))
    assert_equal(*(list(model.generator(codes)) for model in models))
    assert_equal(*(model.views._asdict() for model in models))
    assert models[0].options == models[1].options
    assert models[0].options.texture_resolution == 128
    assert not any(p.requires_grad for p in models[0].generator.parameters())


def test_distances_need_the_statistics_alone_beside_the_file() -> None:
    run("--iters", "1")
    save_statistics()
    for path in Path("cache/toy").iterdir():
        if not path.name.startswith("precomputed"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run("--evaluate", "--proxy_distance")
    record = RunDirectory(RUN).records()[-1]
    assert record["step"] == 1
    assert record["proxy"] > 0
    assert "proxy_texture_only" not in record


TAMPERED = [
    ({"format": 2}, r"has format 2, this version of the program reads 1"),
    ({"views": {}}, r"its views are damaged \(KeyError"),
    ({"views": None}, r"its views are damaged \(TypeError"),
    ({"categories": [None]}, r"its categories are damaged \(\[None\]\)"),
    ({"iteration": -1}, r"was saved after -1 steps"),
    ({"args": {}}, r"does not state its architecture \('texture_resolution'\)"),
    ({"generator_running_avg": {}}, r"holds no generator"),
]


def test_files_that_were_tampered_with_are_refused() -> None:
    run("--iters", "1")
    state = checkpoint.load(MODEL)
    for changes, message in TAMPERED:
        checkpoint.save(MODEL, state | changes)
        with pytest.raises(UserError, match=rf"model\.pth.*{message}"):
            load_model(MODEL, CPU)


def test_a_model_of_another_stage_is_named() -> None:
    checkpoint.save(MODEL, {"generator": {}, "args": {}})
    with pytest.raises(UserError, match=r"model\.pth holds no generator\. .* checkpoints_gan/"):
        load_model(MODEL, CPU)
    checkpoint.save(MODEL, {"generator_running_avg": {}, "args": {}})
    with pytest.raises(UserError, match=r"holds a generator\. .* checkpoints_recon/"):
        load_estimator(MODEL, CPU)


def test_a_file_without_views_says_where_it_can_be_applied() -> None:
    run("--iters", "1")
    state = checkpoint.load(MODEL)
    del state["views"]
    checkpoint.save(MODEL, state)
    with pytest.raises(UserError, match=r"views.*run_generation\.py --export_sample"):
        load_model(MODEL, CPU)
    run("--export_sample", "--how_many", "1")  # with those in cache/


@pytest.mark.slow
def test_on_another_data_set_the_model_is_seen_from_the_views_of_that() -> None:
    run("--iters", "1")
    shutil.copytree("cache/toy", "cache/other")
    shutil.rmtree("cache/toy")
    run("--export_sample", "--how_many", "1", "--dataset", "other")
    shutil.rmtree("cache/other")
    with pytest.raises(
        UserError,
        match=r"trained with --dataset toy\. cache/other/poses_meta.* exist: ask for --dataset toy",
    ):
        run("--export_sample", "--how_many", "1", "--dataset", "other")


@pytest.mark.slow
def test_a_class_is_exported_from_the_file_alone() -> None:
    shutil.copytree("cache/toy", "cache/pets")
    for name, category in ("toy", "dog"), ("pets", "cat"):
        write_json(f"cache/{name}/collection.json", {"category": category})
    options = ["--dataset", "toy,pets", "--conditional_class"]
    run(*options, "--iters", "1")
    shutil.rmtree("cache")
    assert load_model(MODEL, CPU).categories == ["dog", "cat"]
    run(*options, "--export_sample", "--how_many", "1", "--filter_class", "cat")
    with pytest.raises(UserError, match="expected one of dog, cat, toy, pets"):
        run(*options, "--export_sample", "--how_many", "1", "--filter_class", "cow", "--overwrite")
