"""The statistical generator as a model: fitted, exported, evaluated, refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache import pseudo_files
from geometry.uv_maps import half_map, symmetric_extension
from models.conditions import Conditions
from pipeline.generation.linear import stage
from pipeline.generation.linear.generator import LinearGenerator
from pipeline.generation.model_file import load_model
from tests.pipeline.generation.toy import run, save_statistics
from utils.cli import UserError

MODEL = Path("checkpoints_gan/toy_singletpl/model.pth")
CPU = torch.device("cpu")


def add_items(count: int, *, classes: int = 1) -> torch.Tensor:
    """Adds to the five spheres until there are `count`, whose colors are (count, 3) and half unseen."""
    rng = np.random.default_rng(1)
    colors = rng.uniform(-0.8, 0.8, (count, 3))
    for i in range(count):
        alpha = np.zeros((1, 128, 128))
        side = slice(0, 64) if i % 2 else slice(64, 128)
        alpha[..., np.roll(np.arange(128), 32)[side]] = 1
        item = pseudo_files.PseudoItem(
            mesh=symmetric_extension(torch.full((3, 32, 16), 0.01 * i)).numpy(),
            seg=np.full((2, 128, 128), 0.5),
            texture=colors[i][:, None, None] * alpha,
            texture_alpha=alpha,
            image=rng.uniform(-1, 1, (4, 299, 299)),
            category=0,
        )
        pseudo_files.save_pseudo_item("toy", 128, "singletpl", i, item)
    views = pseudo_files.load_metadata("toy", "singletpl")
    rows = torch.arange(count) % 5
    tensors = {n: x[rows] for n, x in views._asdict().items() if isinstance(x, torch.Tensor)}
    tensors["category"] = torch.arange(count) % classes
    views = views._replace(**tensors, paths=[f"{i:03d}.jpg" for i in range(count)])
    pseudo_files.save_metadata("toy", "singletpl", views)
    return torch.from_numpy(colors).float()


def test_samples_have_the_distribution_of_what_was_fitted(toy: Path) -> None:
    colors = add_items(24)
    run("--model", "linear")
    model = load_model(MODEL, CPU)
    assert isinstance(model.generator, LinearGenerator)
    texture = model.generator.texture
    # Half of each texture was never seen; all texels of mean and modes are alike nevertheless
    assert texture.std((2, 3)).max() < 0.02
    mean, *loadings = texture.mean((2, 3))
    torch.testing.assert_close(mean, colors.mean(0), atol=0.05, rtol=0)
    covariance = torch.stack(loadings).T @ torch.stack(loadings)
    torch.testing.assert_close(covariance, colors.T.cov(correction=0), atol=0.05, rtol=0)
    shape = model.generator.shape.mean((1, 2, 3))
    assert shape[0].item() == pytest.approx(0.115, abs=0.01)
    assert shape[1:].norm().item() == pytest.approx(0.01 * np.std(range(24)), rel=0.1)


def test_a_fit_is_reproducible_and_exports_and_evaluates_like_any_model(toy: Path) -> None:
    add_items(12)
    save_statistics()
    run("--model", "linear", "--held_out", "0.25")
    before = torch.load(MODEL, weights_only=True)
    run("--model", "linear", "--held_out", "0.25")
    again = torch.load(MODEL, weights_only=True)
    for name, value in before["generator_running_avg"].items():
        assert torch.equal(value, again["generator_running_avg"][name])
    run("--evaluate", "--proxy_distance")
    run("--export_sample", "--how_many", "2")
    assert (toy / "output/toy_singletpl/mesh_1.glb").exists()
    assert (toy / "checkpoints_gan/toy_singletpl/nearest.png").exists()


def test_classes_have_means_of_their_own(toy: Path) -> None:
    colors = add_items(40, classes=2)
    (toy / "cache/toy/collection.json").write_text('{"category": "dog"}')
    run("--model", "linear", "--conditional_class")
    model = load_model(MODEL, CPU)
    zero = torch.zeros(2, model.generator.latent_dim)
    texture, _ = model.generator(zero, Conditions(torch.tensor([0, 1])))
    between = texture[0].mean((1, 2)) - texture[1].mean((1, 2))
    expected = colors[0::2].mean(0) - colors[1::2].mean(0)
    torch.testing.assert_close(between, expected, atol=0.02, rtol=0)


def test_what_was_seen_stays_and_gaps_continue_it_without_seams() -> None:
    expected = torch.rand(1, 3, 16, 8, generator=torch.manual_seed(0))
    finer = torch.nn.functional.interpolate(expected, (32, 16), mode="bilinear")
    seen = torch.zeros(1, 1, 32, 16)
    seen[..., :20, :] = 1
    # A photograph that is a tenth brighter than expected: the gap is so, too
    found = stage.complete((finer + 0.1) * seen, seen, expected)
    torch.testing.assert_close(found, finer + 0.1, atol=1e-5, rtol=0)
    assert torch.equal(half_map(symmetric_extension(found)), found)


@pytest.mark.parametrize("kinds", [("gan", "linear"), ("linear", "gan")])
def test_a_model_of_another_kind_is_not_replaced(toy: Path, kinds: tuple[str, str]) -> None:
    options = {"gan": ["--iters", "1"], "linear": ["--model", "linear"]}
    run(*options[kinds[0]])
    before = MODEL.read_bytes()
    with pytest.raises(UserError, match=rf"a model of --model {kinds[0]}.*another --name"):
        run(*options[kinds[1]])
    assert MODEL.read_bytes() == before


def test_too_little_data_is_an_error(toy: Path) -> None:
    with pytest.raises(UserError, match=r"5 photographs or more, got 3"):
        run("--model", "linear", "--held_out", "0.4")


@pytest.mark.parametrize(
    "options",
    [["--texture_only"], ["--conditional_semantics"], ["--iters", "3"], ["--epochs", "2"]],
)
def test_options_of_networks_are_refused(toy: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit):
        run("--model", "linear", *options)
