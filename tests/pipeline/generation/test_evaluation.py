"""Distances between generated and real images: conditions, errors and the best checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import run_generation
from data.cache import feature_statistics
from models.fid import ProxyFeatures
from pipeline.generation import evaluation, measures, sampling
from pipeline.generation.config import make_config
from tests.pipeline.generation.toy import OPTIONS, run, save_statistics, weights
from utils import checkpoint
from utils.cli import UserError


def test_evaluation_does_not_depend_on_the_batch_size(toy: Path) -> None:
    run("--iters", "1")
    save_statistics()
    scores = []
    for batch_size in ("2", "3"):
        run("--evaluate", "--proxy_distance", "--batch_size", batch_size)
        lines = (toy / "checkpoints_gan/toy_singletpl/metrics.jsonl").read_text().splitlines()
        scores.append([json.loads(line) for line in lines if "proxy" in line][-1])
    for key in ("proxy", "proxy_texture_only", "proxy_mesh_only", "proxy_kid"):
        assert scores[0][key] == pytest.approx(scores[1][key], rel=1e-4)


def test_a_distance_of_few_photographs_says_how_many_it_needs(
    toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = [*OPTIONS, "--evaluate", "--proxy_distance"]
    config = make_config(vars(run_generation.build_parser().parse_args(args)))
    dimension = ProxyFeatures.dimension
    for count, warnings in (dimension, 1), (dimension + 1, 0):
        caplog.clear()
        save_statistics(count=count)
        measures.make_measures(config, torch.device("cpu"))
        assert len(caplog.messages) == warnings
        for line in caplog.messages:
            assert f"of {count} photographs" in line
            assert f"more than {dimension}, and 10,000" in line


def test_statistics_of_another_origin_are_an_error_and_no_number(toy: Path) -> None:
    run("--iters", "1")
    save_statistics()
    statistics = feature_statistics.load_statistics("toy", "proxy")
    for other in ("", "0123"):
        feature_statistics.save_statistics("toy", statistics._replace(network=other), "proxy")
        with pytest.raises(UserError, match=r"another network.*--generate_pseudogt"):
            run("--evaluate", "--proxy_distance")
    feature_statistics.save_statistics("toy", statistics, "proxy")
    (toy / "cache/toy/collection.json").write_text('{"fingerprint": "others"}')
    with pytest.raises(UserError, match=r"other images.*--generate_pseudogt"):
        run("--evaluate", "--proxy_distance")
    (toy / "cache/toy/collection.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no fingerprint\. Prepare toy again"):
        run("--evaluate", "--proxy_distance")
    (toy / "cache/toy/collection.json").write_text('{"fingerprint": "those"}')
    run("--evaluate", "--proxy_distance")


def test_best_checkpoint_is_the_one_with_the_lowest_distance(toy: Path) -> None:
    run("--iters", "4", "--checkpoint_freq", "1")
    save_statistics()
    folder = toy / "checkpoints_gan/toy_singletpl"
    with open(folder / "metrics.jsonl", "a") as file:
        for step, value in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 5.0)):
            file.write(json.dumps({"step": step, "proxy": value}) + "\n")
    args = [*OPTIONS, "--evaluate", "--proxy_distance", "--which_epoch", "best"]
    config = make_config(vars(run_generation.build_parser().parse_args(args)))
    chosen = evaluation.choose_file(config, torch.device("cpu"))
    assert chosen == checkpoint.path_of("checkpoints_gan/toy_singletpl", 2)


def test_a_statistical_model_has_no_best_checkpoint(toy: Path) -> None:
    run("--model", "linear")
    with pytest.raises(UserError, match=r"no numbered checkpoints.*Leave --which_epoch out"):
        run("--export_sample", "--which_epoch", "best")


def test_evaluation_without_statistics_says_how_to_make_them(toy: Path) -> None:
    run("--iters", "1")
    with pytest.raises(UserError, match=r"run_reconstruction.py .*--generate_pseudogt$"):
        run("--evaluate")
    # The command that they have just run is no remedy, where it found no weights
    save_statistics()
    with pytest.raises(
        UserError, match=r"weights .*--inception_weights <file>; or .*--proxy_distance"
    ):
        run("--evaluate")
    torch.save({}, "weights.pth")
    with pytest.raises(UserError, match=r"--generate_pseudogt --standard_fid <file>$"):
        run("--evaluate", "--standard_fid", "weights.pth")


def test_a_model_of_several_collections_knows_their_classes(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    save_statistics()
    for place in ("cache/{}", "datasets/{}"):
        source, target = (toy / place.format(name) for name in ("toy", "pets"))
        if source.exists():
            shutil.copytree(source, target)
    for name, category in ("toy", "dog"), ("pets", "cat"):
        (toy / "cache" / name / "collection.json").write_text(json.dumps({"category": category}))
    monkeypatch.setattr(feature_statistics, "images_fingerprint", lambda dataset: "those")
    options = ("--dataset", "toy,pets", "--conditional_class")
    run(*options, "--iters", "1")
    classes = []
    generate = sampling.generate

    def spy(generator, config, metadata, dataset, rows, samples):
        classes.extend(metadata.category[list(rows)].tolist())
        return generate(generator, config, metadata, dataset, rows, samples)

    monkeypatch.setattr(sampling, "generate", spy)
    for name, label in ("dog", 0), ("cat", 1), ("pets", 1):
        classes.clear()
        run(*options, "--evaluate", "--proxy_distance", "--filter_class", name)
        assert set(classes) == {label}
    classes.clear()
    run(*options, "--evaluate", "--proxy_distance")
    assert set(classes) == {0, 1}
    assert weights()["generator_running_avg"]["emb_class.weight"].shape[0] == 2
    with pytest.raises(UserError, match="--filter_class cow: expected one of dog, cat, toy, pets"):
        run(*options, "--evaluate", "--proxy_distance", "--filter_class", "cow")
