"""Names of tensors: the published ones are ours, those of other writers are translated."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from models.layers import SpectralConv2d
from models.state_dicts import translate
from tests.models.golden import key_list


@pytest.mark.parametrize(
    "name",
    [
        "generator_512_uncond",
        "generator_512_class13",
        "discriminator_512_3scales_class13",
        "reconstruction_single_class_P5_both",
        "reconstruction_all_13classes_P20_both",
    ],
)
def test_published_names_stay_apart_from_the_prefix(shared: Path, name: str) -> None:
    text = (shared / f"reference/state_dict_keys/state_dict_keys_{name}.txt").read_text()
    published = [line.split("\t")[0] for line in text.splitlines() if not line.startswith("#")]
    state = {key: torch.zeros(1) for key in published}
    assert list(translate(state)) == [key for key, _ in key_list(shared, name)]


def test_every_rule_is_of_use() -> None:
    state = dict.fromkeys(
        [
            "module._orig_mod.fc.weight",
            "a.conv1.parametrizations.weight.original",
            "a.conv1.parametrizations.weight.0._u",
            "a.conv1.parametrizations.weight.0._v",
            "submodule.module.bias",
        ],
        torch.zeros(1),
    )
    assert list(translate(state)) == [
        "fc.weight",
        "a.conv1.weight_orig",
        "a.conv1.weight_u",
        "a.conv1.weight_v",
        "submodule.module.bias",
    ]


@pytest.mark.parametrize("unit", [1.0, 0.8])
@pytest.mark.parametrize("wrap", [parametrizations.spectral_norm, spectral_norm])
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
def test_spectral_norms_of_pytorch_give_the_same_output(wrap, unit: float) -> None:
    torch.manual_seed(0)
    theirs = wrap(nn.Conv2d(3, 4, 3, padding=(1, 0))).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith(("u", "v")):
            buffer *= unit  # as in an averaged network
    ours = SpectralConv2d(3, 4, 3, padding=(1, 0)).eval()
    ours.load_state_dict(translate(theirs.state_dict()))
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    "state", [{"a": 1}, ["a"], {"module.a": torch.ones(1), "a": torch.ones(1)}]
)
def test_other_content_is_refused(state) -> None:
    with pytest.raises(ValueError, match=r"names with tensors|the same name"):
        translate(state)
