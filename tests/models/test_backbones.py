"""Pretrained networks, recognized from a file of their weights."""

from pathlib import Path

import pytest
import torch
import torchvision

from models.backbones import load_backbone
from utils.cli import UserError


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 256), ("vgg11", 512)])
def test_networks_are_recognized_by_their_weights(tmp_path: Path, name: str, channels: int) -> None:
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None)
    shapes = {key: x.shape for key, x in network.state_dict().items() if "classifier" not in key}
    state = {key: torch.full(shape, 0.01) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "weights.pth")
    images = torch.rand(1, 4, 32, 32)
    found = load_backbone(str(tmp_path / "weights.pth"))(images)
    assert found.shape == (1, channels, 2, 2)
    assert found.isfinite().all()


def test_features_are_those_of_the_network(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None, num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    kept = {}
    network.layer3.register_forward_hook(lambda *args: kept.update(out=args[2]))
    images = torch.rand(1, 4, 64, 64)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = images[:, :3] / 2 + 0.5
    network((rgb - mean[:, None, None]) / deviation[:, None, None])
    torch.testing.assert_close(load_backbone(str(tmp_path / "weights.pth"))(images), kept["out"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"nothing", "damaged"),
        ([1, 2], "expected a dictionary"),
        ({"a": 1}, "no weights of a network"),
        ({"conv1.weight": torch.zeros(2)}, "none of the networks resnet18"),
    ],
)
def test_other_files_are_refused_with_one_line(
    tmp_path: Path, content: object, message: str
) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as caught:
        load_backbone(str(path))
    assert "\n" not in str(caught.value)
