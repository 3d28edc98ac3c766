"""Tests of the mesh estimator's network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geometry.uv_maps import mirror_map
from models.reconstruction import ReconstructionNetwork
from tests.models.golden import fill, key_list, wave

TINY = {"texture_resolution": 64, "image_resolution": 64, "width": 1 / 32}


@pytest.mark.parametrize(
    ("suffix", "categories", "parts", "category"),
    [("single_class_P5_both", 1, 5, [0, 0]), ("all_13classes_P20_both", 13, 20, [2, 11])],
)
def test_network_equals_the_published_one(
    shared: Path, suffix: str, categories: int, parts: int, category: list[int]
) -> None:
    keys = key_list(shared, f"reconstruction_{suffix}")
    network = ReconstructionNetwork(categories, parts).eval()
    assert [(k, tuple(v.shape)) for k, v in network.state_dict().items()] == keys
    fill(network, keys)
    golden = np.load(shared / "reference/golden/networks.npz")
    selection = torch.from_numpy(golden[f"rec{categories}_M"])
    with torch.no_grad():
        texture, displacement_map, seg = network(
            wave(0.0171, 2, 4, 256, 256), torch.tensor(category), selection
        )
    for name, map_ in (("tex", texture), ("seg", seg)):
        expected = torch.from_numpy(golden[f"rec{categories}_{name}_sub"])
        torch.testing.assert_close(map_[:, :, ::7, ::5], expected, rtol=1e-5, atol=1e-6)
    expected = torch.from_numpy(golden[f"rec{categories}_mesh"])
    torch.testing.assert_close(displacement_map, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["none", "texture", "semantics", "both"])
@pytest.mark.parametrize("norm", ["syncbatch", "instance", "none"])
def test_every_combination_trains(prediction_type: str, norm: str) -> None:
    torch.manual_seed(0)
    network = ReconstructionNetwork(2, 3, prediction_type=prediction_type, norm=norm, **TINY)
    selection = torch.eye(3)[:2].expand(4, 2, 3)
    maps = network(torch.randn(4, 4, 64, 64), torch.tensor([0, 1, 0, 1]), selection)
    shapes = [None if m is None else tuple(m.shape[1:]) for m in maps]
    assert shapes[1] == (3, 32, 32)
    assert shapes[0] == ((3, 64, 64) if prediction_type in ("texture", "both") else None)
    assert shapes[2] == ((3, 64, 64) if prediction_type in ("semantics", "both") else None)
    torch.stack([m.square().sum() + m.sum() for m in maps if m is not None]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("head", ["convolution", "linear", "both"])
def test_finer_maps_keep_all_names_and_train(head: str) -> None:
    torch.manual_seed(0)
    coarse, fine = (
        ReconstructionNetwork(2, shape_head=head, mesh_resolution=size, **TINY) for size in (32, 64)
    )
    added = fine.state_dict().keys() - coarse.state_dict().keys()
    expected = set() if head == "linear" else {"blk5_mesh"}
    assert {name.partition(".")[0] for name in added} == expected
    assert coarse.state_dict().keys() <= fine.state_dict().keys()
    image, selection = torch.randn(2, 4, 64, 64), torch.ones(2, 1, 1)
    _, maps, _ = fine(image, torch.tensor([0, 1]), selection)
    assert maps.shape == (2, 3, 64, 64)
    assert torch.equal(mirror_map(maps), maps)
    maps.sum().backward()
    heads = [p for name, p in fine.named_parameters() if "_mesh" in name and "blk" not in name]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads)


def test_parts_of_other_categories_get_no_probability() -> None:
    torch.manual_seed(0)
    network = ReconstructionNetwork(1, 4, **TINY).eval()
    selection = torch.zeros(1, 2, 4)
    selection[0, 0, 0] = selection[0, 1, 2] = 1
    _, _, seg = network(torch.randn(1, 4, 64, 64), torch.tensor([0]), selection)
    assert not seg[:, [1, 3]].any()
    torch.testing.assert_close(seg.sum(1), torch.ones(1, 64, 64))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="image_resolution"):
        ReconstructionNetwork(image_resolution=100)
    with pytest.raises(ValueError, match="prediction_type"):
        ReconstructionNetwork(prediction_type="parts")
    with pytest.raises(ValueError, match="texture_resolution"):
        ReconstructionNetwork(texture_resolution=512)
    with pytest.raises(ValueError, match="mesh_resolution"):
        ReconstructionNetwork(mesh_resolution=48)
