"""Tests of the generator."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geometry.uv_maps import half_map, mirror_map
from models.conditions import Conditions
from models.generator import Generator, sizes
from tests.models.golden import fill, key_list, wave

TINY = {"texture_resolution": 128, "latent_dim": 4, "width": 1 / 64}


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "num_classes"), [("uncond", 0), ("class13", 13)])
def test_generator_equals_the_published_one(shared: Path, suffix: str, num_classes: int) -> None:
    keys = key_list(shared, f"generator_512_{suffix}")
    generator = Generator(512, num_classes=num_classes).eval()
    assert [(k, tuple(v.shape)) for k, v in generator.state_dict().items()] == keys
    fill(generator, keys)
    golden = np.load(shared / "reference/golden/networks.npz")
    name = f"gen{int(num_classes > 0)}"
    class_id = torch.tensor([[3], [12]]) if num_classes else None
    with torch.no_grad():
        texture, displacement_map = generator(wave(0.37, 2, 64), Conditions(class_id))
    expected = torch.from_numpy(golden[f"{name}_tex_sub"])
    torch.testing.assert_close(texture[:, :, ::37, ::41], expected, rtol=1e-4, atol=1e-5)
    mean = torch.from_numpy(golden[f"{name}_tex_mean"])
    torch.testing.assert_close(texture.mean((2, 3)), mean, rtol=1e-4, atol=1e-6)
    expected = torch.from_numpy(golden[f"{name}_mesh"])
    torch.testing.assert_close(displacement_map, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["syncbatch", "batch", "instance", "none"])
def test_every_normalization_trains(norm: str) -> None:
    torch.manual_seed(0)
    generator = Generator(**TINY, norm=norm)
    texture, displacement_map = generator(torch.randn(3, 4))
    assert texture.shape == (3, 3, 128, 128)
    assert displacement_map.shape == (3, 3, 32, 32)
    (texture.square().mean() + displacement_map.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())


def test_the_first_displacement_map_is_the_sphere() -> None:
    _, displacement_map = Generator(**TINY)(torch.randn(2, 4))
    assert not displacement_map.any()


@pytest.mark.parametrize("num_parts", [0, 3])
def test_finer_maps_are_those_of_one_more_block(num_parts: int) -> None:
    torch.manual_seed(0)
    coarse = Generator(**TINY, num_parts=num_parts)
    fine = Generator(**TINY, num_parts=num_parts, mesh_resolution=64)
    added = fine.state_dict().keys() - coarse.state_dict().keys()
    assert {name.partition(".")[0] for name in added} == {"blk4_mesh"}
    assert coarse.state_dict().keys() <= fine.state_dict().keys()
    assert sizes(fine.state_dict()) == {"num_classes": [], "num_parts": num_parts}
    # Symmetric, and all texels of a pole are one point
    torch.nn.init.normal_(fine.conv_mesh.weight)
    seg = torch.rand(2, 3, 64, 64) if num_parts else None
    texture, maps = fine(torch.randn(2, 4), Conditions(seg=seg))
    assert (texture.shape[-1], maps.shape) == (128, (2, 3, 64, 64))
    assert torch.equal(mirror_map(maps), maps)
    assert maps[:, :, [0, -1]].std(-1).max() < 1e-6
    # Neighboring texels differ, so that nothing is merely repeated
    half = half_map(maps)[:, :, 1:-1]
    assert all((half.diff(dim=axis) != 0).float().mean() > 0.99 for axis in (2, 3))
    with pytest.raises(ValueError, match=r"mesh_resolution: expected one of \(32, 64\), got 48"):
        Generator(**TINY, mesh_resolution=48)


def test_both_halves_of_a_texture_are_mirror_images() -> None:
    texture, _ = Generator(**TINY)(torch.randn(2, 4))
    assert torch.equal(texture.flip(-1).roll(64, -1), texture)


def test_the_part_map_decides_the_texture_where_it_differs() -> None:
    torch.manual_seed(0)
    generator = Generator(**TINY, num_parts=3, norm="none")
    z = torch.zeros(1, 4)
    one = torch.zeros(1, 3, 64, 64)
    one[:, 0] = 1
    other = one.clone()
    other[:, :, 24:40] = 0
    other[:, 2, 24:40] = 1  # Another part in the middle rows
    change = (
        (generator(z, Conditions(seg=one))[0] - generator(z, Conditions(seg=other))[0])
        .abs()
        .mean((0, 1, 3))
    )
    assert change[60:68].mean() > 2 * change[:4].mean()


def test_wrong_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="exactly if"):
        Generator(**TINY)(torch.randn(1, 4), Conditions(torch.tensor([0])))
    with pytest.raises(ValueError, match="exactly if"):
        Generator(**TINY, num_parts=2)(torch.randn(1, 4))
    with pytest.raises(ValueError, match="texture_resolution"):
        Generator(100)


def test_each_of_several_label_sets_decides_the_texture() -> None:
    torch.manual_seed(0)
    generator = Generator(**TINY, num_classes=(3, 2), norm="none").eval()
    assert sizes(generator.state_dict()) == {"num_classes": [3, 2], "num_parts": 0}
    z = torch.randn(1, 4).expand(3, -1)
    first, color, shape = generator(z, Conditions(torch.tensor([[0, 0], [1, 0], [0, 1]])))[0]
    assert not torch.allclose(first, color)
    assert not torch.allclose(first, shape)


def test_a_single_label_set_is_what_classes_are() -> None:
    seeded = []
    for num_classes in (3, (3,)):
        torch.manual_seed(0)
        seeded.append(Generator(**TINY, num_classes=num_classes).eval())
    z, one = torch.randn(2, 4), torch.tensor([2, 0])
    for category in (one, one[:, None]):
        outputs = [generator(z, Conditions(category))[0] for generator in seeded]
        assert torch.equal(*outputs)
    assert sizes(seeded[0].state_dict())["num_classes"] == [3]
