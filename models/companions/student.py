"""The student: a small network from a crop to poses, one for each sector of the azimuth."""

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geometry import quaternion
from geometry.camera import Pose
from models.layers import CategoryNorm, resize

INPUT_SIZE = 64  # larger crops are averaged
CHANNELS = (16, 32, 64, 128)  # of convolutions with stride 2
FEATURES = 256
SECTORS = 8  # of the azimuth, about 0, 45, ... 315 degrees


class SectorPoses(NamedTuple):
    """What the student says about B crops: a pose for each of K sectors of the azimuth.

    Attributes:
        logits: (B, K) of the probabilities of the sectors.
        rotation: (B, K, 4) unit quaternions.
        numbers: (B, K, 4) log scale, translation and z0, in standard deviations from the mean.
    """

    logits: Tensor
    rotation: Tensor
    numbers: Tensor


class StudentNetwork(nn.Module):
    """Estimates one pose for each sector of the azimuth, and how likely each is.

    Views from the front and from behind look alike, and the mean of both is neither: each sector
    has a pose of its own, which starts in its middle, seen level.

    Args:
        num_categories: number of categories; with several, each has its own gains and offsets.
        sectors: K, an even number.

    Attributes:
        mean: (4,) of log scale, translation and z0 in a collection.
        spread: (4,) their standard deviations.
    """

    OUTPUTS: ClassVar = 9  # of a sector: logit, rotation, log scale, translation, z0

    mean: Tensor
    spread: Tensor
    views: Tensor

    def __init__(self, num_categories: int = 1, sectors: int = SECTORS) -> None:
        super().__init__()
        self.sectors = sectors
        sizes = (4, *CHANNELS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], 3, 2, 1, bias=False) for i in range(len(CHANNELS))
        )
        self.norms = nn.ModuleList(CategoryNorm("syncbatch", c, num_categories) for c in CHANNELS)
        area = (INPUT_SIZE >> len(CHANNELS)) ** 2
        self.features = nn.Linear(CHANNELS[-1] * area, FEATURES)
        self.heads = nn.Linear(FEATURES, sectors * self.OUTPUTS)
        # What numbers mean depends on the collection; the views that heads start from do not
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("spread", torch.ones(4))
        level = torch.zeros(sectors)
        views = quaternion.from_view(sector_centers(sectors), level, level)
        self.register_buffer("views", views, persistent=False)

    def forward(self, image: Tensor, category: Tensor) -> SectorPoses:
        """Estimates poses.

        Args:
            image: (B, 4, h, h), colors in [-1, 1] times the mask, then the mask.
            category: (B,) int64.
        """
        x = self.outputs(image, category)
        return SectorPoses(x[..., 0], quaternion.normalize(self.views + x[..., 1:5]), x[..., 5:])

    def outputs(self, image: Tensor, category: Tensor) -> Tensor:
        """Returns what the last layer says of crops, (B, K, OUTPUTS)."""
        # Convolutions are a fifth faster in this layout
        x = resize(image, (INPUT_SIZE, INPUT_SIZE)).contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x), category))
        x = F.relu(self.features(x.flatten(1)))
        return self.heads(x).unflatten(1, (self.sectors, self.OUTPUTS))

    def normalized(self, pose: Pose) -> Tensor:
        """Returns log scale, translation and z0 of poses (...) in standard deviations, (..., 4)."""
        numbers = torch.cat([pose.scale.log(), pose.translation, pose.z0], dim=-1)
        return (numbers - self.mean) / self.spread

    def poses(self, said: SectorPoses) -> Pose:
        """Returns the poses (B, K, ...) of all sectors."""
        log_scale, translation, z0 = (said.numbers * self.spread + self.mean).split((1, 2, 1), -1)
        return Pose(log_scale.exp(), translation, said.rotation, z0)


def sector_centers(sectors: int = SECTORS) -> Tensor:
    """Returns the middle (K,) of each sector of the azimuth, degrees."""
    return torch.arange(sectors) * (360 / sectors)


def sector_weights(azimuth: Tensor) -> Tensor:
    """Returns how much azimuths (B,), degrees, belong to each sector: (B, K), sums of 1.

    Linear between the middles, so that neighbors share what lies between them.
    """
    width = 360 / SECTORS
    offset = (azimuth[:, None] - sector_centers().to(azimuth) + 180) % 360 - 180
    return (1 - offset.abs() / width).clamp(min=0)


def mirrored(said: SectorPoses) -> SectorPoses:
    """Returns what is said about the mirror images of crops: azimuths a become 180 - a."""
    sectors = said.logits.shape[1]
    order = (sectors // 2 - torch.arange(sectors)) % sectors
    sign = said.numbers.new_tensor([1.0, -1.0, 1.0, 1.0])
    return SectorPoses(
        said.logits[:, order],
        quaternion.mirror(said.rotation)[:, order],
        said.numbers[:, order] * sign,
    )
