"""Training of the GAN on a handful of synthetic textures."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import run_generation
from geometry.sphere_mesh import SphereMesh
from models.conditions import Conditions
from pipeline.generation import model_file, sampling, training
from pipeline.generation.config import make_config
from tests.pipeline.generation.toy import COUNT, OPTIONS, run, save_statistics, weights
from tests.runs import assert_equal, die_at, left_behind
from utils import checkpoint
from utils.cli import UserError
from utils.training import make_length


@pytest.mark.slow
def test_killed_training_ends_as_uninterrupted_bitwise(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_statistics()
    options = ("--iters", "8", "--checkpoint_freq", "3", "--evaluate_freq", "4", "--proxy_distance")
    run(*options)
    folder = toy / "checkpoints_gan/toy_singletpl"
    uninterrupted, expected = weights(), left_behind(folder)
    folder.rename(toy / "first")
    for death in (2, 5, 7):
        die_at(death, training.Update, lambda: run(*options), monkeypatch)
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


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1.0), (9.9, 1.0), (10, 1.0), (15, 0.5), (20, 0.0)]
)
def test_learning_rate_falls_linearly_to_zero(epoch: float, factor: float) -> None:
    assert training.learning_rate_factor(epoch, 10, 20) == pytest.approx(factor)


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
        ["--how_many", "2"],
        ["--texture_resolution", "100"],
    ],
)
def test_meaningless_options_are_usage_errors(toy: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(*options)
    assert error.value.code == 2
