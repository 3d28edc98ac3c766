"""Pictures of a training run: the same photographs above what is rendered in their place."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.companions.student import StudentNetwork
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.model import Scene, predict, render
from pipeline.reconstruction.pose_corrections import PoseCorrections
from pipeline.reconstruction.student import estimate_pose
from utils.pictures import labeled_rows, part_palette

COLUMNS = 8


class Shown(NamedTuple):
    """What is drawn from.

    Attributes:
        data: the images; those that are shown are spread evenly over them.
        scene: what the images share.
        device: where to compute.
        corrections: of the poses, if they are learned.
        cameras: predict the poses, if these are not known.
    """

    data: ReconstructionData
    scene: Scene
    device: torch.device
    corrections: PoseCorrections | None = None
    cameras: StudentNetwork | None = None


@torch.no_grad()
def draw(network: ReconstructionNetwork, shown: Shown, step: int) -> np.ndarray:
    """Returns photographs, silhouettes, colors and parts in rows, (H, W, 3) uint8.

    Args:
        network: the estimator; is left in evaluation mode.
        shown: images and scene.
        step: number of steps made, for the title.
    """
    # Images spread evenly over the data, the same at every step
    data, scene = shown.data, shown.scene
    index = torch.linspace(0, len(data) - 1, min(COLUMNS, len(data))).long()
    items = [data[int(i)] for i in index]
    image = torch.stack([item.image for item in items]).to(shown.device)
    labels = data.labels.select(index).to(shown.device)
    if shown.corrections is not None:
        labels = shown.corrections.apply(labels, index)
    if shown.cameras is not None:
        pose = estimate_pose(shown.cameras.eval(), image, labels.category).pose
        labels = labels._replace(pose=pose)
    prediction = predict(network.eval(), scene, image, labels)
    maps, alpha = render(scene, prediction, labels, image.shape[-1])
    # A row for each kind of map that is predicted; true parts above the estimated ones
    rows = {"photographs": image[:, :3], "silhouettes": 2 * alpha.expand(-1, 3, -1, -1) - 1}
    if maps is not None and prediction.texture is not None:
        rows["colors"] = maps[:, -3:]
    if maps is not None and prediction.parts is not None and scene.has_parts:
        truth = torch.stack([item.parts for item in items]).to(shown.device)
        rows["true parts"] = _paint(truth[:, 1:])
        rows["parts"] = _paint(maps[:, : scene.selection.shape[1]])
    return labeled_rows(rows, f"step {step}")


def _paint(parts: Tensor) -> Tensor:
    """Colors part probabilities (B, P, h, w) as (B, 3, h, w) in [-1, 1]."""
    palette = torch.from_numpy(part_palette(parts.shape[1])).to(parts) / 127.5 - 1
    return torch.einsum("bphw,pc->bchw", parts, palette)
