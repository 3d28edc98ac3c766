"""Networks that add to the statistical generator: what they begin as, training, and the files."""

import shutil
from pathlib import Path

import pytest
import torch

from models.generator import Generator
from pipeline.generation.linear.generator import LinearGenerator
from pipeline.generation.linear.refined import RefinedGenerator
from pipeline.generation.model_file import load_model
from tests.pipeline.generation.test_linear import add_items
from tests.pipeline.generation.toy import run, weights
from tests.runs import assert_equal
from utils.cli import UserError

MODEL = Path("checkpoints_gan/toy_singletpl/model.pth")
ALL = ("--start_from", "linear", "--augment", "0.5", "--r1_weight", "1")


def refined() -> RefinedGenerator:
    generator = torch.manual_seed(0)
    shape = 0.1 * torch.randn(4, 3, 32, 16, generator=generator)
    base = LinearGenerator(shape, 0.3 * torch.randn(3, 3, 128, 64, generator=generator), 0)
    return RefinedGenerator(base, Generator(128, base.latent_dim + 2, width=0.05)).eval()


def test_it_begins_as_the_statistical_generator() -> None:
    model = refined()
    z = torch.randn(2, model.latent_dim, generator=torch.manual_seed(1))
    texture, displacement = model(z)
    expected = model.base(z[:, :5])
    torch.testing.assert_close(texture, expected[0].clamp(-0.98, 0.98))
    assert torch.equal(displacement, expected[1])


def test_colors_are_added_as_inverse_hyperbolic_tangents() -> None:
    model = refined()
    torch.nn.init.normal_(model.network.conv_final.weight, std=0.05)
    z = torch.randn(2, model.latent_dim, generator=torch.manual_seed(1))
    base, network = model.base(z[:, :5])[0].double(), model.network(z)[0].double()
    expected = torch.tanh(base.clamp(-0.98, 0.98).atanh() + network.atanh())
    torch.testing.assert_close(model(z)[0].double(), expected, atol=1e-5, rtol=0)


def test_the_base_stays_and_the_network_learns() -> None:
    model = refined()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    texture, displacement = model(torch.randn(2, model.latent_dim))
    (texture.mean() + displacement.mean()).backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.optim.SGD(parameters, lr=1.0).step()
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert changed
    assert not [name for name in changed if name.startswith("base.")]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(toy: Path) -> None:
    run("--iters", "5", *ALL)
    whole = weights()
    shutil.rmtree("checkpoints_gan")
    run("--iters", "2", *ALL)
    run("--iters", "5", *ALL)
    for name in ("generator", "discriminator", "generator_running_avg"):
        assert_equal(weights()[name], whole[name])


@pytest.mark.slow
def test_a_model_file_is_enough_and_knows_classes(toy: Path) -> None:
    add_items(12, classes=2)
    (toy / "cache/toy/collection.json").write_text('{"category": "dog"}')
    run("--iters", "2", "--start_from", "linear", "--conditional_class")
    shutil.rmtree("cache")
    model = load_model(MODEL, torch.device("cpu"))
    assert isinstance(model.generator, RefinedGenerator)
    assert model.generator.num_classes == (2,)
    run("--export_sample", "--how_many", "2", "--conditional_class")
    assert (toy / "output/toy_singletpl/mesh_1.glb").exists()


def test_what_has_no_meaning_is_refused(toy: Path) -> None:
    for options in ("--texture_only",), ("--conditional_semantics",), ("--model", "linear"):
        with pytest.raises(SystemExit):
            run("--start_from", "linear", *options)
    with pytest.raises(UserError, match=r"5 photographs or more, got 3"):
        run("--start_from", "linear", "--held_out", "0.4", "--iters", "1")
