"""The camera network: proposes a camera in each sector of the azimuth, and foresees what each will cost.

The student's layers with other outputs: azimuths stay in their sectors, elevations and rolls within
the prior of the category, and scale and translation are those with which the mean shape fills a crop,
up to small changes (after Wu et al. 2023, https://arxiv.org/abs/2211.12497, section 3.2).
"""

import torch
from torch import Tensor, nn

from data.definitions import ViewPrior
from geometry import camera, quaternion
from geometry.camera import Pose
from models.companions.student import SectorPoses, StudentNetwork
from pipeline.reconstruction.cameras.sources import PREDICTED_Z0
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.student import estimate_pose
from utils import distributed, seeding

MOST_HYPOTHESES = 64
SPREADS = 2.0  # bounds of elevation and roll, in standard deviations of the prior
STEEPEST = 85.0  # degrees of elevation, at most
CHANGE = 0.2  # of the logarithm of the scale and of translations, at most
Z0_CHANGE = 1.0  # at most
FINAL_TEMPERATURE = 0.01  # of losses behind probabilities


class CameraNetwork(StudentNetwork):
    """Proposes H cameras for a crop; the logits are the foreseen losses, negative and divided by a temperature.

    Args:
        num_categories: number of categories.
        num_vertices: V, of the shapes.
        num_hypotheses: H, an even number.

    Attributes:
        shapes: (C, V, 3) that are to fill the crops.
        tilts: (C, 3) mean elevation, its bound, and the bound of rolls, degrees.
        temperature: () of the logits.
    """

    OUTPUTS = 8  # of a sector: loss, view, changes of scale, translation and z0

    shapes: Tensor
    tilts: Tensor
    temperature: Tensor

    def __init__(self, num_categories: int, num_vertices: int, num_hypotheses: int) -> None:
        if num_hypotheses % 2 or not 2 <= num_hypotheses <= MOST_HYPOTHESES:
            raise ValueError(
                f"num_hypotheses: expected an even number from 2 to {MOST_HYPOTHESES}, got {num_hypotheses}."
            )
        super().__init__(num_categories, num_hypotheses)
        self.register_buffer("shapes", torch.zeros(num_categories, num_vertices, 3))
        self.register_buffer("tilts", torch.zeros(num_categories, 3))
        self.register_buffer("temperature", torch.tensor(FINAL_TEMPERATURE))
        # Every camera begins in the middle of its sector, and none is better than another
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def forward(self, image: Tensor, category: Tensor) -> SectorPoses:
        """Proposes cameras for crops (B, 4, h, h) of categories (B,)."""
        loss, view, rest = self.outputs(image, category).split((1, 3, 4), dim=-1)
        rotation = sector_rotations(view, self.tilts[category])
        shape = self.shapes[category][:, None].expand(-1, self.sectors, -1, -1)
        pose = adjusted(shape, rotation, rest)
        return SectorPoses(-loss[..., 0] / self.temperature, rotation, self.normalized(pose))

    def foreseen(self, said: SectorPoses) -> Tensor:
        """Returns the loss (B, H) that each camera is expected to have, up to a number for each image."""
        return -self.temperature * said.logits


def sector_rotations(raw: Tensor, tilts: Tensor) -> Tensor:
    """Returns rotations (B, H, 4), each with its azimuth in its own of H sectors.

    Args:
        raw: (B, H, 3) any numbers for azimuth, elevation and roll; zeros mean the middles.
        tilts: (B, 3) see `CameraNetwork`.
    """
    count = raw.shape[1]
    width = 360 / count
    middle = torch.arange(count, device=raw.device) * width
    turn, lift, lean = raw.tanh().unbind(-1)
    mean, most, roll = tilts[:, None].unbind(-1)
    return quaternion.from_view(middle + width / 2 * turn, mean + most * lift, roll * lean)


def adjusted(shape: Tensor, rotation: Tensor, raw: Tensor) -> Pose:
    """Returns poses (B, H, ...) with which shapes (B, H, V, 3) fill the crops, up to small changes.

    Args:
        shape: object space.
        rotation: (B, H, 4).
        raw: (B, H, 4) any numbers for scale, translation and z0; zeros change nothing.
    """
    growth, shift, offset = raw.tanh().split((1, 2, 1), dim=-1)
    ones = torch.ones_like(growth)
    z0 = PREDICTED_Z0 + Z0_CHANGE * offset
    level = Pose(ones, torch.zeros_like(shift), rotation, z0)
    flat = Pose(*(member.flatten(0, 1) for member in level))
    filling = camera.framed(shape.flatten(0, 1), flat)
    pose = Pose(*(member.unflatten(0, rotation.shape[:2]) for member in filling))
    return pose._replace(
        scale=pose.scale * (CHANGE * growth).exp(), translation=pose.translation + CHANGE * shift
    )


def make_camera_network(
    shapes: Tensor, views: Tensor, num_hypotheses: int, seed: int
) -> CameraNetwork:
    """Returns an untrained network, whose weights are a function of the seed.

    Args:
        shapes: (C, V, 3) mean shapes of the categories.
        views: (C, 5) priors of their views, as `data.definitions.ViewPrior`.
        num_hypotheses: H.
        seed: of the weights.
    """
    seeding.seed_everything(seed, "cameras")
    network = CameraNetwork(len(shapes), shapes.shape[1], num_hypotheses)
    network.shapes.copy_(shapes)
    for row, prior in zip(network.tilts, views.tolist(), strict=True):
        mean, elevation, roll = ViewPrior(*prior).tilts()
        most = min(SPREADS * elevation, STEEPEST - abs(mean))
        row.copy_(torch.tensor([mean, most, SPREADS * roll]))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def write_poses(network: CameraNetwork, data: ReconstructionData, device: torch.device) -> None:
    """Gives the labels of all images the most probable cameras; images alone, or batches would round differently."""
    mine, poses = distributed.shard(len(data)), []
    for row in mine:
        category = data.labels.category[row : row + 1].to(device)
        found = estimate_pose(network, data[row].image[None].to(device), category)
        poses.append(camera.to_vector(found.pose).cpu())
    vectors = torch.cat([one for some in distributed.gather(poses) for one in some])
    data.labels = data.labels._replace(pose=camera.from_vector(vectors))
