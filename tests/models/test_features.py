"""Features of pretrained networks: weights from files, scaling, refusals."""

import re

import pytest
import torch

from models import features
from models.features import default_features, load_features, principal_components
from utils import checkpoint
from utils.cli import UserError

NAME = "test_resnet"  # of timm's own tests: tiny


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="requirements-features.txt is not installed")


@pytest.fixture
def weights(timm, tmp_path):
    """Returns a file of random weights of the tiny network."""
    torch.manual_seed(0)
    network = timm.create_model(NAME, pretrained=False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path / "weights.pth"
    checkpoint.save(path, network.state_dict())
    return path


def test_maps_are_those_of_the_network_on_normalized_colors(timm, weights):
    network = load_features(f"{NAME}:{weights}")
    images = torch.rand(2, 4, 96, 96) * 2 - 1
    plain = timm.create_model(NAME, pretrained=False).eval()
    plain.load_state_dict(torch.load(weights, weights_only=True))
    mean, deviation = (torch.tensor(plain.default_cfg[key]) for key in ("mean", "std"))
    colors = (images[:, :3] + 1) / 2
    normalized = torch.stack([(colors[:, i] - mean[i]) / deviation[i] for i in range(3)], dim=1)
    expected = plain.forward_features(normalized)
    torch.testing.assert_close(network(images), expected)
    assert network(images).shape[2:] == (96 // 32, 96 // 32)


def test_weights_under_other_names_are_taken_in_their_order(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    renamed = tmp_path / "renamed.pth"
    checkpoint.save(renamed, {f"layer_{i}": value for i, value in enumerate(state.values())})
    assert load_features(f"{NAME}:{renamed}").digest == load_features(f"{NAME}:{weights}").digest


def test_other_weights_have_another_digest(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    state["conv1.weight" if "conv1.weight" in state else next(iter(state))] *= 2
    other = tmp_path / "other.pth"
    checkpoint.save(other, state)
    assert load_features(f"{NAME}:{other}").digest != load_features(f"{NAME}:{weights}").digest


@pytest.mark.parametrize(
    ("choice", "content", "message"),
    [
        ("no_such_network", None, "has no such network"),
        (f"{NAME}:absent.pth", None, "does not exist"),
        (f"{NAME}:file.pth", {"a": torch.zeros(2)}, "no weights of"),
        (f"{NAME}:file.pth", {"conv": [1]}, "no weights of"),
        (f"{NAME}:file.safetensors", b"text", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    timm, tmp_path, monkeypatch, choice, content, message
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / choice.partition(":")[2]
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        checkpoint.save(file, content)
    with pytest.raises(UserError, match=message) as refusal:
        load_features(choice)
    assert "\n" not in str(refusal.value)


def test_without_timm_nothing_is_chosen_and_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(features, "_installed", lambda package: False)
    assert default_features() is None
    with pytest.raises(UserError, match=re.escape("pip install -r requirements-features.txt")):
        load_features(NAME)


def test_principal_components_find_the_direction_in_which_the_object_varies():
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(8, generator=generator), dim=0)
    maps = 3 + torch.randn(5, 1, 4, 4, generator=generator) * direction[:, None, None]
    weight = torch.ones(5, 4, 4)
    maps[:, :, 0], weight[:, 0] = 100.0, 0.0  # background, which must not count
    mean, basis = principal_components(maps, weight, 1)
    torch.testing.assert_close((basis[:, 0] @ direction.double()).abs(), torch.tensor(1.0).double())
    spread = mean - 3
    torch.testing.assert_close(spread, (spread @ direction.double()) * direction.double())
