"""Tests of the discriminators."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.conditions import Conditions
from models.discriminator import MultiScaleDiscriminator
from models.losses import gan_loss, scale_weights
from tests.models.golden import fill, key_list, wave

TINY = {"texture_resolution": 128, "num_discriminators": 2, "width": 1 / 32}


def golden_input() -> tuple[Tensor, Tensor]:
    x = 0.9 * wave(0.0137, 2, 4, 512, 512)
    alpha = (x[:, 3:] > 0).float()
    return torch.cat((x[:, :3] * alpha, alpha), 1), 0.2 * wave(0.21, 2, 3, 32, 32)


@pytest.mark.parametrize("scales", [2, 3])
@pytest.mark.parametrize(("suffix", "num_classes"), [("uncond", 0), ("class13", 13)])
def test_discriminator_and_hinge_loss_equal_the_published_ones(
    shared: Path, suffix: str, num_classes: int, scales: int
) -> None:
    keys = key_list(shared, f"discriminator_512_{scales}scales_{suffix}")
    discriminator = MultiScaleDiscriminator(512, scales, num_classes).eval()
    assert [(k, tuple(v.shape)) for k, v in discriminator.state_dict().items()] == keys
    fill(discriminator, keys)
    class_id = torch.tensor([[3], [12]]) if num_classes else None
    with torch.no_grad():
        outputs, masks = discriminator(*golden_input(), Conditions(class_id))
    golden = np.load(shared / "reference/golden/networks.npz")
    name = f"{int(num_classes > 0)}_{scales}"
    for i, (output, mask) in enumerate(zip(outputs, masks, strict=True)):
        expected = torch.from_numpy(golden[f"disc{name}_out{i}"])
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(mask, torch.from_numpy(golden[f"disc{name}_mask{i}"]))
    weights = scale_weights(512, scales)
    losses = [gan_loss("hinge", outputs, masks, t, weights) for t in ("generator", "real", "fake")]
    torch.testing.assert_close(
        torch.stack(losses).double(), torch.from_numpy(golden[f"loss{name}"]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_every_normalization_trains(norm: str) -> None:
    torch.manual_seed(0)
    discriminator = MultiScaleDiscriminator(**TINY, norm=norm)
    outputs, masks = discriminator(torch.rand(2, 4, 128, 128), torch.randn(2, 3, 32, 32))
    assert [o.shape[-1] for o in outputs] == [m.shape[-1] for m in masks] == [16, 8]
    gan_loss("hinge", outputs, masks, "real").backward()
    assert all(p.grad is not None for p in discriminator.parameters())


def test_finer_maps_have_as_many_scores_with_as_many_weights() -> None:
    torch.manual_seed(0)
    coarse = MultiScaleDiscriminator(**TINY)
    fine = MultiScaleDiscriminator(**TINY, mesh_resolution=64)
    assert fine.state_dict().keys() == coarse.state_dict().keys()
    x, maps = torch.rand(2, 4, 128, 128), torch.randn(2, 3, 64, 64)
    outputs, masks = fine(x, maps)
    assert [o.shape[-1] for o in outputs] == [16, 8]
    # A mask is the share of each eighth that was seen, whatever the resolution
    for mask, size in zip(masks, (8, 16), strict=True):
        expected = x[:, 3:].unflatten(2, (-1, size)).unflatten(4, (-1, size)).mean((3, 5))
        torch.testing.assert_close(mask, expected)
    # Every texel of the map is looked at
    maps.requires_grad_()
    fine(x, maps)[0][1].sum().backward()
    assert maps.grad is not None
    assert (maps.grad.abs().sum((0, 1)) > 0).all()


def test_scores_turn_with_the_texture() -> None:
    torch.manual_seed(0)
    discriminator = MultiScaleDiscriminator(**TINY, texture_only=True).eval()
    discriminator.d1.pos_emb.zero_()
    x = torch.rand(1, 4, 128, 128)
    straight, turned = discriminator(x)[0][0], discriminator(x.roll(32, -1))[0][0]
    torch.testing.assert_close(straight.roll(4, -1), turned, rtol=1e-4, atol=1e-5)


def test_a_texture_only_discriminator_has_no_mesh_scores() -> None:
    discriminator = MultiScaleDiscriminator(**TINY, texture_only=True)
    outputs, masks = discriminator(torch.rand(2, 4, 128, 128))
    assert len(outputs) == len(masks) == 1
    assert not any(name.startswith("d2") for name in discriminator.state_dict())


def test_the_part_map_is_judged_at_every_scale() -> None:
    torch.manual_seed(0)
    discriminator = MultiScaleDiscriminator(**TINY, num_parts=3).eval()
    x, displacement_map = torch.rand(1, 4, 128, 128), torch.rand(1, 3, 32, 32)
    parts = torch.rand(2, 1, 3, 64, 64).softmax(2)
    one, masks = discriminator(x, displacement_map, Conditions(seg=parts[0]))
    other, _ = discriminator(x, displacement_map, Conditions(seg=parts[1]))
    assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    torch.testing.assert_close(masks[1].mean(), x[:, 3].mean())


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_discriminators"):
        MultiScaleDiscriminator(256, 3)
    with pytest.raises(ValueError, match="exactly if"):
        MultiScaleDiscriminator(**TINY, num_classes=2)(torch.rand(1, 4, 128, 128))
    with pytest.raises(ValueError, match="displacement_map"):
        MultiScaleDiscriminator(**TINY)(torch.rand(1, 4, 128, 128))


def test_projections_of_several_label_sets_add_up() -> None:
    torch.manual_seed(0)
    discriminator = MultiScaleDiscriminator(**TINY, num_classes=(3, 2)).eval()
    x, mesh = torch.rand(1, 4, 128, 128), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        scores = {
            pair: discriminator(x, mesh, Conditions(torch.tensor([pair])))[0][0]
            for pair in [(0, 0), (2, 0), (0, 1), (2, 1)]
        }
    # What one label adds does not depend on the other
    torch.testing.assert_close(
        scores[2, 1] - scores[0, 1], scores[2, 0] - scores[0, 0], atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(scores[0, 0], scores[0, 1])
    assert not torch.allclose(scores[0, 0], scores[2, 0])
