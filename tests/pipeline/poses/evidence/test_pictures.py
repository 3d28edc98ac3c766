"""Pictures that are painted onto the templates: features are scaled, and computed photograph by photograph."""

from pathlib import Path

import pytest
import torch

from data.detections import load_detections
from pipeline.poses.evidence import pictures
from pipeline.poses.evidence.pictures import FeaturePicture, feature_picture, strongest_components
from pipeline.poses.photographs import Photographs
from tests.pipeline.poses import pose_world


def test_components_keep_the_distances_within_the_object() -> None:
    """Where features vary in few directions only, the components are a rotation of them."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.linalg.qr(torch.randn(40, 5, generator=generator))[0]
    maps = torch.einsum("dk,nkhw->ndhw", directions, torch.randn(6, 5, 7, 7, generator=generator))
    weight = torch.ones(6, 1, 7, 7)
    maps[:, :, 0], weight[:, :, 0] = 50.0, 0.0  # background, which must not count
    found = strongest_components(torch.cat([3 + maps, weight], dim=1))
    inside = found[:, :, 1:].permute(0, 2, 3, 1).flatten(0, 2)
    assert inside.mean(dim=0).abs().max() < 1e-4
    assert inside.square().sum(dim=1).mean().item() == pytest.approx(1, abs=1e-4)
    plain = maps[:, :, 1:].permute(0, 2, 3, 1).flatten(0, 2)
    ratio = torch.cdist(inside, inside) / torch.cdist(plain, plain).clamp(min=1e-3)
    apart = ~torch.eye(len(plain), dtype=torch.bool)
    torch.testing.assert_close(
        ratio[apart], ratio[0, 1].expand(int(apart.sum())), rtol=1e-2, atol=0
    )


def test_features_are_drawn_inside_the_mask_alone() -> None:
    maps = torch.randn(3, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(1, 4, 21, 21)
    images[:, 3, 8:15, 4:18] = 1
    drawn = FeaturePicture(maps).draw(Photographs(torch.tensor([2]), images, images[:, :0]))
    assert drawn.shape == (1, 4, 21, 21)
    assert (drawn[:, :, images[0, 3] == 0] == 0).all()
    # In the middle of a cell of the network stands its own value
    torch.testing.assert_close(drawn[0, :, 10, 10], maps[2, :, 3, 3] / pictures.REACH)


def test_features_are_computed_once_and_one_photograph_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pose_world.write_dataset(pose_world.poses([0.0, 30.0, 200.0], [0.0, 10.0, 20.0]))
    network, detections = pose_world.Network(), load_detections("toy")
    first = feature_picture(network, detections, torch.device("cpu"))
    assert set(network.batches) == {1}
    count = len(network.batches)
    again = feature_picture(network, detections, torch.device("cpu"))
    assert len(network.batches) == count
    assert first.depth == pictures.COMPONENTS
    assert torch.equal(first._maps, again._maps)
