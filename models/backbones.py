"""Networks pretrained elsewhere, from a local file of their weights: features of photographs."""

import torch
from torch import Tensor, nn

from models.state_dicts import translate
from utils import checkpoint
from utils.cli import UserError

ARCHITECTURES = (
    *("resnet18", "resnet34", "resnet50", "resnet101"),
    *("vgg11", "vgg13", "vgg16", "vgg19"),
)
_HEADS = ("fc.", "classifier.")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Layers of a pretrained network up to a sixteenth of the resolution.

    Args:
        layers: the network without its last layers.
    """

    resolution = 224  # of the images that it was trained with

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps crops (B, 4, h, w), RGB in [-1, 1], to features (B, D, h / 16, w / 16)."""
        mean, deviation = (images.new_tensor(x)[:, None, None] for x in (_MEAN, _DEVIATION))
        return self.layers(((images[:, :3] + 1) / 2 - mean) / deviation)


def load_backbone(path: str) -> Backbone:
    """Reads the weights of a network of torchvision, which its names and shapes tell.

    Raises:
        UserError: if the file is missing, damaged, or no state dict of a known network.
    """
    # Only now: it takes seconds to load, and few runs need it
    import torchvision

    state = checkpoint.load(path, remedy="--parts_features takes a file of weights.")
    try:
        state = translate(state)
    except ValueError as error:
        raise UserError(f"{path}: no weights of a network ({error}).") from None
    state = {name: value for name, value in state.items() if not name.startswith(_HEADS)}
    shapes = _shapes(state)
    for name in ARCHITECTURES:
        with torch.device("meta"):
            network = getattr(torchvision.models, name)(weights=None)
        if _shapes(network.state_dict()) == shapes:
            network.load_state_dict(state, strict=False, assign=True)
            # The last stage of a ResNet and the last pooling of a VGG would halve the maps again
            children = list(network.children())[:7]
            layers = children if name.startswith("resnet") else list(children[0].children())[:-1]
            return Backbone(nn.Sequential(*layers).float())
    raise UserError(f"{path}: weights of none of the networks {', '.join(ARCHITECTURES)}.")


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    # Files of early versions lack the counters of batch normalization
    kept = {name: value for name, value in state.items() if not name.startswith(_HEADS)}
    return {name: x.shape for name, x in kept.items() if not name.endswith("num_batches_tracked")}
