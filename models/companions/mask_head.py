"""The mask head: a small network that says which pixels of a photograph show the object.

The mesh estimator sees colors times the mask, so that its features say nothing about backgrounds:
the head has an encoder of its own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import CategoryNorm, resize

INPUT_SIZE = 64  # larger images are averaged
CHANNELS = (16, 32, 64, 128)  # of convolutions with stride 2
FEATURES = 16  # of the way back to the size of the input


class MaskHead(nn.Module):
    """A feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144) with one map as its output.

    Args:
        num_categories: number of categories; with several, each has its own gains and offsets.
    """

    def __init__(self, num_categories: int = 1) -> None:
        super().__init__()
        sizes = (3, *CHANNELS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], 3, 2, 1, bias=False) for i in range(len(CHANNELS))
        )
        self.norms = nn.ModuleList(CategoryNorm("syncbatch", c, num_categories) for c in CHANNELS)
        self.laterals = nn.ModuleList(nn.Conv2d(c, FEATURES, 1) for c in CHANNELS)
        self.smoothing = nn.ModuleList(nn.Conv2d(FEATURES, FEATURES, 3, 1, 1) for _ in CHANNELS)
        # What lies where is seen from afar, where it ends from the colors themselves, four pixels at once
        self.inner = nn.Conv2d(FEATURES + 4 * 3, 2 * FEATURES, 3, 1, 1)
        self.output = nn.Conv2d(2 * FEATURES, 4, 1)

    def forward(self, image: Tensor, category: Tensor) -> Tensor:
        """Estimates masks.

        Args:
            image: (B, 3, h, h) in [-1, 1].
            category: (B,) int64.

        Returns:
            (B, 1, INPUT_SIZE, INPUT_SIZE) logits.
        """
        image = resize(image, (INPUT_SIZE, INPUT_SIZE))
        x, found = image.contiguous(memory_format=torch.channels_last), []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x), category))
            found.append(x)
        # From coarse to fine, each level adds what it has seen
        x = self.laterals[-1](found[-1])
        for level in range(len(CHANNELS) - 1, 0, -1):
            x = _doubled(F.relu(self.smoothing[level](x))) + self.laterals[level - 1](
                found[level - 1]
            )
        x = torch.cat([F.relu(self.smoothing[0](x)), F.pixel_unshuffle(image, 2)], dim=1)
        return F.pixel_shuffle(self.output(F.relu(self.inner(x))), 2)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@torch.no_grad()
def estimate_masks(head: MaskHead, image: Tensor, category: Tensor) -> Tensor:
    """Returns probabilities (B, 1, INPUT_SIZE, INPUT_SIZE); mirror images get mirrored ones.

    Args:
        head: in evaluation mode.
        image: (B, 3, h, h) in [-1, 1].
        category: (B,) int64.
    """
    both = [head(image, category), head(image.flip(-1), category).flip(-1)]
    return torch.stack(both).sigmoid().mean(0)
