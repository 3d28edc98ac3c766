"""Training, evaluation and export of the GAN on a handful of synthetic textures."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy import stats

import run_generation
from data.cache import feature_statistics, pseudo_files
from geometry.sphere_mesh import SphereMesh
from models.conditions import Conditions
from models.fid import ProxyFeatures, fingerprint
from pipeline.generation import evaluation, measures, model_file, sampling, training
from pipeline.generation.config import make_config
from utils import checkpoint
from utils.cli import UserError
from utils.files import read_json
from utils.run_directory import RunDirectory
from utils.training import make_length

COUNT = 5
OPTIONS = ["--name", "toy_singletpl", "--dataset", "toy", "--texture_resolution", "128"]
OPTIONS += ["--width", "0.05", "--batch_size", "3", "--num_workers", "0", "--gpu_ids", "cpu"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pseudo-ground-truth of five colored spheres."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        alpha = np.ones((1, 128, 128))
        texture = np.broadcast_to(rng.uniform(-0.8, 0.8, (3, 1, 1)), (3, 128, 128))
        item = pseudo_files.PseudoItem(
            mesh=rng.normal(0.1, 0.02, (3, 32, 32)),
            seg=np.full((2, 128, 128), 0.5),
            texture=texture,
            texture_alpha=alpha,
            image=rng.uniform(-1, 1, (4, 299, 299)),
            category=0,
        )
        pseudo_files.save_pseudo_item("toy", 128, "singletpl", i, item)
    rotation = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(COUNT, 4))))
    metadata = pseudo_files.PoseMetadata(
        scale=torch.full((COUNT, 1), 0.6),
        translation=torch.zeros(COUNT, 3),
        rotation=rotation.float(),
        z0=torch.full((COUNT, 1), 2.0),
        category=torch.zeros(COUNT, dtype=torch.int64),
        paths=[f"{i}.jpg" for i in range(COUNT)],
    )
    pseudo_files.save_metadata("toy", "singletpl", metadata)
    return tmp_path


def run(*options: str) -> None:
    run_generation.main([*OPTIONS, *options])


def weights(folder: str = "checkpoints_gan/toy_singletpl") -> dict:
    return checkpoint.load(checkpoint.resolve(folder, "latest"))


def save_statistics(seed: int = 0, count: int = 4) -> None:
    features = torch.rand(40, ProxyFeatures().dimension, generator=torch.manual_seed(seed))
    values = features.double().numpy()
    # As many samples as there were images are generated
    statistics = feature_statistics.FeatureStatistics(
        values.mean(0),
        np.cov(values.T),
        count,
        sample=values.astype(np.float32),
        network=fingerprint(ProxyFeatures()),
        images="those",
    )
    feature_statistics.save_statistics("toy", statistics, "proxy")


def assert_equal(first: object, second: object) -> None:
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first, second)
    elif isinstance(first, list):
        assert isinstance(second, list)
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    else:
        assert first == second


@pytest.mark.slow
def left_behind(folder: Path) -> tuple[list[dict], dict[str, bytes], list[str]]:
    """Returns records without times, pictures and the names of checkpoints."""
    records = RunDirectory(folder).records()
    for record in records:
        record.pop("seconds_per_step", None)
    pictures = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    return records, pictures, sorted(path.name for path in folder.glob("*.pth"))


def test_killed_training_ends_as_uninterrupted_bitwise(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_statistics()
    options = ("--iters", "8", "--checkpoint_freq", "3", "--evaluate_freq", "4", "--proxy_distance")
    run(*options)
    folder = toy / "checkpoints_gan/toy_singletpl"
    uninterrupted, expected = weights(), left_behind(folder)
    folder.rename(toy / "first")
    update = training.Update.__call__
    for death in (2, 5, 7):

        def killed(self: training.Update, step: int, batch: Any, death: int = death) -> dict:
            if step == death:
                raise SystemExit
            return update(self, step, batch)

        with monkeypatch.context() as patch:
            patch.setattr(training.Update, "__call__", killed)
            with pytest.raises(SystemExit):
                run(*options)
    run(*options)
    assert_equal(uninterrupted, weights())
    assert left_behind(folder) == expected
    assert sum("proxy" in record for record in expected[0]) == 2


def test_a_finished_run_is_not_trained_again(toy: Path) -> None:
    run("--iters", "3")
    before = weights()
    run("--iters", "3")
    assert_equal(before, weights())


def test_a_resumed_run_keeps_its_architecture_and_names_what_else_has_changed(
    toy: Path, capsys: pytest.CaptureFixture
) -> None:
    run("--iters", "1")
    shape = weights()["generator"]["fc.weight"].shape
    run("--iters", "2", "--width", "0.1", "--norm_d", "instance", "--lr_g", "0.01")
    assert weights()["generator"]["fc.weight"].shape == shape
    printed = capsys.readouterr().out
    assert (
        "brings its own architecture: width 0.05 (not 0.1), norm_d none (not instance)" in printed
    )
    assert "options that have changed: iters 2 (was 1), lr_g 0.01 (was 0.0001)" in printed
    for path in [*Path("cache/toy").glob("*singletpl*")]:
        path.rename(path.with_name(path.name.replace("singletpl", "multitpl")))
    with pytest.raises(UserError, match=r"trained with mode=singletpl; .* asks for multitpl"):
        run("--iters", "3", "--mode", "multitpl")


def test_an_applied_checkpoint_brings_its_own_architecture(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "1", "--width", "0.1", "--texture_resolution", "256")
    with Image.open(toy / "output/toy_singletpl/mesh_0.png") as texture:
        assert texture.size == (128, 128)


@pytest.mark.slow
def test_warmup_draws_the_generator_to_the_mean_shape(toy: Path) -> None:
    """Adam's first step has the length of the rate, and the mean displacement is 0.1."""
    run("--iters", "1", "--warmup_steps", "400", "--lr_g", "0.01")
    bias = weights()["generator"]["conv_mesh.bias"]
    torch.testing.assert_close(bias, torch.full((3,), 0.01), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("step", "warmth"), [(0, 1.0), (100, 0.75), (400, 0.0), (900, 0.0)])
def test_warmup_fades_linearly(toy: Path, step: int, warmth: float) -> None:
    config = make_config(
        vars(run_generation.build_parser().parse_args([*OPTIONS, "--warmup_steps", "400"]))
    )
    cpu = torch.device("cpu")
    dataset = sampling.open_dataset(config)
    gan, length = training.Gan(config, 0, 0, cpu), make_length(COUNT, 3, 900, 1)
    update = training.Update(gan, SphereMesh(), config, length)
    batch = next(training.endless_batches(dataset, config, cpu, 0))
    terms = update.generator_terms(batch, torch.randn(3, 64), step)
    assert terms["mean_color"].weight == pytest.approx(10 * warmth)
    assert terms["mean_shape"].weight == pytest.approx(1000 * warmth)
    shape = batch.mesh.square().mean()  # generated displacements are zero at first
    torch.testing.assert_close(terms["mean_shape"].value, shape)
    assert terms["mean_shape"].value.requires_grad == (warmth > 0)


@pytest.mark.slow
def test_both_networks_change_and_the_average_follows(toy: Path) -> None:
    run("--iters", "1")
    first = weights()
    run("--iters", "3")
    last = weights()
    assert not torch.equal(
        first["discriminator"]["d1.conv1.weight_orig"],
        last["discriminator"]["d1.conv1.weight_orig"],
    )
    start = make_config(vars(run_generation.build_parser().parse_args(OPTIONS)))
    gan = training.Gan(start, 0, 0, torch.device("cpu"))
    untrained = {name: member.state_dict() for name, member in gan.members().items()}
    name = "conv_final.weight"
    assert not torch.equal(untrained["generator"][name], first["generator"][name])
    expected = 0.1 * untrained["generator"][name] + 0.9 * first["generator"][name]
    torch.testing.assert_close(first["generator_running_avg"][name], expected)


@pytest.mark.slow
def test_a_part_map_decides_what_is_generated_where(toy: Path) -> None:
    seg = torch.zeros(2, 2, 128, 128)
    seg[0, 0], seg[1, 0] = 1.0, 1.0
    seg[1, :, :64] = seg[1, :, :64].flip(0)  # another part in the upper half
    run("--iters", "2", "--conditional_semantics")
    options = [*OPTIONS, "--conditional_semantics"]
    config = make_config(vars(run_generation.build_parser().parse_args(options)))
    path = checkpoint.resolve(config.folder, "latest")
    generator = model_file.load_generator(config.model, path, weights(), torch.device("cpu"))
    textures, _ = generator(torch.randn(1, 64).expand(2, -1), Conditions(seg=seg))
    change = (textures[0] - textures[1]).abs().mean((0, 2))
    assert change[:32].mean() > 3 * change[-16:].mean()


@pytest.mark.slow
def test_meshes_of_a_texture_model_are_those_of_the_pseudo_ground_truth(toy: Path) -> None:
    run("--iters", "2", "--texture_only")
    run("--export_sample", "--how_many", "1", "--texture_only")
    row = sampling.sample_rows(range(COUNT), 1, seed=1)[0]
    item = pseudo_files.load_pseudo_item("toy", 128, "singletpl", row)
    expected = SphereMesh().deform(torch.from_numpy(item.mesh.astype(np.float32))[None])[0]
    mesh = trimesh.load_mesh(toy / "output/toy_singletpl/mesh_0.obj", process=False)
    assert mesh.bounds[1] - mesh.bounds[0] == pytest.approx(
        (expected.amax(0) - expected.amin(0))[[0, 2, 1]].numpy(), abs=1e-4
    )


@pytest.mark.slow
def test_a_class_model_trains_the_classes_that_it_sees(toy: Path) -> None:
    config = make_config(
        vars(run_generation.build_parser().parse_args([*OPTIONS, "--conditional_class"]))
    )
    start = training.Gan(config, 1, 0, torch.device("cpu")).generator.state_dict()
    run("--iters", "2", "--conditional_class")
    name = "emb_class.weight"
    assert (weights()["generator"][name] != start[name]).all()
    run("--export_sample", "--how_many", "1", "--conditional_class")
    with Image.open(toy / "output/toy_singletpl/mesh_0.png") as texture:
        assert texture.size == (128, 128)


@pytest.mark.slow
def test_export_writes_exactly_n_for_any_batch_size(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "7")
    folder = toy / "output/toy_singletpl"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(first) == sorted(
        [f"mesh_{i}.{suffix}" for i in range(7) for suffix in ("obj", "mtl", "png", "glb")]
        + ["index.html", "turntable.gif", "provenance.json"]
    )
    with Image.open(toy / "output/toy_singletpl.png") as picture:
        assert picture.size == (7 * 256, 256)
        covered = np.asarray(picture.convert("L")).reshape(256, 7, 256).swapaxes(0, 1) < 250
    # Each mesh fills its own tile, and none is cut off
    for mask in covered:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(256 / 1.1, abs=4)
    run("--export_sample", "--how_many", "7", "--batch_size", "2")
    for path in folder.iterdir():
        if path.suffix == ".obj":
            a = np.array(
                [
                    line.split()[1:]
                    for line in first[path.name].decode().splitlines()
                    if line[:2] == "v "
                ],
                float,
            )
            b = np.array(
                [line.split()[1:] for line in path.read_text().splitlines() if line[:2] == "v "],
                float,
            )
            np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.slow
def test_saved_results_are_the_export_under_another_name(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "2")
    run("--save_results", "--batch_size", "2", "--weights", "toy_singletpl")
    for name in ("mesh_0.obj", "mesh_1.png", "mesh_1.mtl"):
        there, here = (toy / f"{folder}/toy_singletpl/{name}" for folder in ("output", "results"))
        assert there.read_bytes() == here.read_bytes()
    assert not (toy / "results/toy_singletpl/mesh_2.obj").exists()
    with Image.open(toy / "results/toy_singletpl.png") as picture:
        assert picture.size == (2 * 256, 256)


@pytest.mark.slow
def test_an_export_says_what_it_was_made_from_and_is_not_mixed_with_another(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "3")
    folder = toy / "output/toy_singletpl"
    record = read_json(folder / "provenance.json")
    path = toy / record["checkpoint"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["checkpoint_sha256"]
    assert (record["run"], record["step"], record["seed"]) == ("toy_singletpl", 1, 1)
    assert record["options"]["texture_resolution"] == 128
    assert record["environment"]["torch"] == torch.__version__
    mesh = (folder / "mesh_0.obj").read_bytes()
    other = ("--export_sample", "--how_many", "2", "--seed", "5")
    with pytest.raises(UserError, match=r"seed 1, now 5"):
        run(*other)
    assert (folder / "mesh_0.obj").read_bytes() == mesh
    run(*other, "--overwrite")
    assert (folder / "mesh_0.obj").read_bytes() != mesh
    assert not (folder / "mesh_2.glb").exists()
    run("--iters", "2")
    with pytest.raises(UserError, match=r"checkpoint_sha256"):
        run(*other)


@pytest.mark.slow
def test_exports_of_runs_with_dots_in_their_names_keep_apart(toy: Path) -> None:
    names = ["w0.1_singletpl", "w0.5_singletpl"]
    run("--name", names[0], "--iters", "1")
    shutil.copytree(toy / "checkpoints_gan" / names[0], toy / "checkpoints_gan" / names[1])
    for name in names:
        run("--name", name, "--export_sample", "--how_many", "1")
        assert f"<title>{name}</title>" in (toy / "output" / name / "index.html").read_text()
    written = sorted(path.name for path in (toy / "output").iterdir())
    assert written == [names[0], f"{names[0]}.png", names[1], f"{names[1]}.png"]
    # A run that is named like the picture of another one is told before any mesh is made
    (toy / "output" / f"{names[0]}.png").unlink()
    (toy / "output" / f"{names[0]}.png").mkdir()
    with pytest.raises(UserError, match=r"^output/w0\.1_singletpl\.png is a folder, where"):
        run("--name", names[0], "--export_sample", "--how_many", "1")


def test_exported_meshes_are_closed_and_outward(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "1")
    mesh = trimesh.load_mesh(toy / "output/toy_singletpl/mesh_0.obj", process=False)
    positions = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    assert positions.is_watertight
    assert positions.volume > 0


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


def test_latent_codes_follow_the_truncated_normal_and_their_number() -> None:
    codes = sampling.latent_codes(range(400), 16, sigma=1.0, seed=0)
    assert codes.abs().max() <= 1
    assert stats.kstest(codes.flatten(), stats.truncnorm(-1, 1).cdf).pvalue > 0.01
    torch.testing.assert_close(sampling.latent_codes([7, 9], 16, 1.0, 0), codes[[7, 9]])


def test_rows_are_drawn_without_replacement_before_they_repeat() -> None:
    rows = sampling.sample_rows(range(10, 15), 12, seed=1)
    assert len(rows) == 12
    assert sorted(rows[:5]) == sorted(rows[5:10]) == list(range(10, 15))


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1.0), (9.9, 1.0), (10, 1.0), (15, 0.5), (20, 0.0)]
)
def test_learning_rate_falls_linearly_to_zero(epoch: float, factor: float) -> None:
    assert training.learning_rate_factor(epoch, 10, 20) == pytest.approx(factor)


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


@pytest.mark.parametrize(
    "options",
    [
        ["--dataset", "toy,toy"],
        ["--dataset", "toy,"],
        ["--dataset", "toy,all"],
        ["--epochs", "3", "--iters", "3"],
        ["--filter_class", "car"],
        ["--num_discriminators", "3"],
        ["--no-symmetric_g"],
        ["--which_epoch", "best"],
        ["--evaluate", "--proxy_distance", "--standard_fid", "a.pth"],
        ["--how_many", "0"],
        ["--texture_resolution", "100"],
    ],
)
def test_meaningless_options_are_usage_errors(toy: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(*options)
    assert error.value.code == 2
