"""Part discovery without labels: the network and its self-supervised losses.

The losses follow SCOPS (https://arxiv.org/abs/1905.01298). Unlike there, the mask of the object is
known: part maps are probabilities times the mask, and there is no background channel.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROUPS = 8
_EMPTY = 1.0  # pixels; the center of a smaller part is undefined
_LEVELS = (1, 2, 4, 4)  # channels at a half, a quarter, ... of the resolution


class PartNetwork(nn.Module):
    """Small U-Net from crops to logits of K parts.

    Args:
        num_parts: K.
        width: channels of the finest level, a multiple of 8.
    """

    def __init__(self, num_parts: int, width: int = 16) -> None:
        super().__init__()
        channels = [width * level for level in _LEVELS]
        self.stem = _block(4, channels[0], stride=2)
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise(channels))
        self.up = nn.ModuleList(
            _block(a + b, a) for a, b in zip(channels[-2::-1], channels[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], num_parts, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps crops (B, 4, h, w) to logits (B, K, h, w); h and w are multiples of 16."""
        # Encoder
        levels = [self.stem(images)]
        for block in self.down:
            levels.append(block(levels[-1]))
        # Decoder with skip connections
        x = levels.pop()
        for block, skip in zip(self.up, reversed(levels), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0)], dim=1))
        return F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear")

    def parts(self, images: Tensor) -> Tensor:
        """Maps crops (B, 4, h, w) to part maps (B, K, h, w) that add up to the mask."""
        return self(images).softmax(dim=1) * images[:, 3:]


def _block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    # Groups of channels, so that the maps of an image do not depend on its batch
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(_GROUPS, out_channels),
        nn.ReLU(),
    )


def pixel_grid(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the centers (size, size, 2) of pixels: x right, y down, the image being [-1, 1]^2."""
    steps = (2 * torch.arange(size, device=device) + 1) / size - 1
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)


def centers(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean position (B, K, 2) and the mass in pixels (B, K) of part maps (B, K, h, h)."""
    mass = parts.sum(dim=(2, 3))
    sums = torch.einsum("bkhw,hwd->bkd", parts, pixel_grid(parts.shape[-1], parts.device))
    return sums / mass.clamp(min=_EMPTY)[..., None], mass


def concentration(parts: Tensor) -> Tensor:
    """Returns the spatial variance of each part, summed over parts, averaged over images.

    Args:
        parts: (B, K, h, h) in [0, 1]; a part without mass contributes nothing.
    """
    center, mass = centers(parts)
    # Second moment about the center of each part
    offset = pixel_grid(parts.shape[-1], parts.device) - center[:, :, None, None]
    variance = (parts * offset.square().sum(dim=-1)).sum(dim=(2, 3)) / mass.clamp(min=_EMPTY)
    return variance.sum(dim=1).mean()


def equivariance(predicted: Tensor, expected: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean divergence KL(expected || predicted) over the pixels of a mask.

    Args:
        predicted: (B, K, h, w) logits of the warped images.
        expected: (B, K, h, w) warped probabilities of the images; adds up to at most 1.
        mask: (B, 1, h, w) in [0, 1].
    """
    # Cross-entropy minus entropy; expected is 0 where the warp left the image
    difference = expected.clamp(min=1e-6).log() - predicted.log_softmax(dim=1)
    return (expected * difference * mask).sum() / mask.sum().clamp(min=_EMPTY)


def landmark_equivariance(centers_a: Tensor, centers_b: Tensor, shown: Tensor) -> Tensor:
    """Returns the mean squared distance of part centers (B, K, 2) over the parts shown (B, K) bool."""
    distances = (centers_a - centers_b).square().sum(dim=-1)
    return (distances * shown).sum() / shown.sum().clamp(min=1)


def orthonormality(basis: Tensor) -> Tensor:
    """Returns the squared Frobenius norm of W W^T - I for the rows of (K, D), scaled to length 1."""
    # Parts should stand for different features
    rows = F.normalize(basis, dim=1)
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().sum()


def semantic_consistency(parts: Tensor, basis: Tensor, features: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean squared error, inside the mask, of features reconstructed from the parts.

    Args:
        parts: (B, K, h, w).
        basis: (K, D) the feature of each part.
        features: (B, D, h, w).
        mask: (B, 1, h, w) in [0, 1].
    """
    # Every pixel is described by the features of its parts, weighted by their probabilities
    explained = torch.einsum("bkhw,kd->bdhw", parts, basis)
    error = ((explained - features).square() * mask).mean(dim=1)
    return error.sum() / mask.sum().clamp(min=_EMPTY)
