"""Neighbor swaps: what is predicted must also explain photographs of similar objects from other sides.

A photograph says nothing about the far side of its object, where a network may predict anything. Similar
objects have been photographed from there: the predicted shape, with texture, pose and scale of such a
neighbor, must explain the neighbor's photograph, and so must the predicted texture on the neighbor's
shape. The neighbor's values carry no gradient (Monnier et al. 2022, https://arxiv.org/abs/2204.10310, section 3.2).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry import quaternion
from geometry.camera import project
from models.layers import resize
from pipeline.reconstruction.companions.lessons import Draws
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Labels, ReconstructionData
from pipeline.reconstruction.model import Prediction, Scene, make_scene
from pipeline.reconstruction.pose_corrections import PoseCorrections
from rendering.texture import render_textured
from utils import distributed, seeding
from utils.cli import UserError
from utils.training import Term

NEAREST, FARTHEST, BINS = 20.0, 180.0, 5  # degrees of azimuth between an image and its neighbors
TEXTURE_SIZE = 64  # side of the textures that are remembered
CODE_SIZE = 8  # side of the maps that neighbors have in common
KEY = "neighbors"  # of the memory in checkpoints
COLOR_WEIGHT = 10.0  # beside silhouettes, as in the loss of the own view

Criterion = Callable[..., Tensor]


class Neighbors(NamedTuple):
    """Similar objects seen from another side, one of each kind for each of B images.

    Attributes:
        shape: (B,) int64 rows of those with the most similar shapes.
        texture: (B,) int64 rows of those with the most similar textures.
        found: (B,) bool, whether there are any.
    """

    shape: Tensor
    texture: Tensor
    found: Tensor


class Memory:
    """What was last predicted for each of K images, at half precision; a member of the checkpoint.

    Attributes:
        displacement: (K, 3, S, S) maps.
        texture: (K, 3, r, r) in [-1, 1].
        known: (K,) bool, images that were seen.
    """

    def __init__(
        self, count: int, texture_resolution: int, mesh_resolution: int, device: torch.device
    ) -> None:
        shape = (count, 3, mesh_resolution, mesh_resolution)
        side = min(texture_resolution, TEXTURE_SIZE)
        self.displacement = torch.zeros(shape, dtype=torch.float16, device=device)
        self.texture = torch.zeros(count, 3, side, side, dtype=torch.float16, device=device)
        self.known = torch.zeros(count, dtype=torch.bool, device=device)

    def remember(self, index: Tensor, prediction: Prediction) -> None:
        """Replaces what is known of the images `index` (B,), and of those of the other processes."""
        assert prediction.texture is not None
        texture = resize(prediction.texture.detach(), self._texture_size)
        values = (index, prediction.displacement_map.detach(), texture)
        index, displacement, texture = map(distributed.concatenate, values)
        self.displacement[index] = displacement.to(self.displacement)
        self.texture[index] = texture.to(self.texture)
        self.known[index] = True

    def neighbors(
        self, index: Tensor, prediction: Prediction, labels: Labels, numbers: Tensor
    ) -> Neighbors:
        """Finds neighbors of the images `index` (B,), each in one of five ranges of azimuths.

        Args:
            index: rows of the images.
            prediction: for them.
            labels: of all K images.
            numbers: (B,) in [0, 1), which choose the ranges.
        """
        assert prediction.texture is not None
        # Those of the same category whose azimuth differs by so much
        azimuth = quaternion.to_view(labels.pose.rotation)[0]
        difference = ((azimuth[index, None] - azimuth + 180) % 360 - 180).abs()
        width = (FARTHEST - NEAREST) / BINS
        low = NEAREST + width * (numbers * BINS).floor()[:, None]
        near = (difference >= low) & (difference <= low + width) & self.known
        near &= labels.category[index, None] == labels.category
        # Among them, the nearest by coarse maps
        texture = resize(prediction.texture.detach(), self._texture_size)
        shape = _nearest(prediction.displacement_map.detach(), self.displacement, near)
        return Neighbors(shape, _nearest(texture, self.texture, near), near.any(1))

    @property
    def _texture_size(self) -> tuple[int, int]:
        return self.texture.shape[2], self.texture.shape[3]

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what training continues with."""
        return {"displacement": self.displacement, "texture": self.texture, "known": self.known}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state.

        Raises:
            ValueError: if it is of other images or of another resolution.
        """
        for name, value in self.state_dict().items():
            if state[name].shape != value.shape:
                raise ValueError(f"its memory of {name} is {tuple(state[name].shape)}")
            value.copy_(state[name])


class NeighborSwaps:
    """The terms of the loss that compare with photographs of neighbors."""

    def __init__(
        self,
        memory: Memory,
        scene: Scene,
        labels: Labels,
        photograph: Callable[[int], Tensor],
        criterion: Criterion,
        *,
        weight: float,
        seed: int,
        corrections: PoseCorrections | None = None,
    ) -> None:
        """Collects what all steps share.

        Args:
            memory: of what was predicted; is changed by every step.
            scene: what the images share.
            labels: of all K images.
            photograph: returns the crop (4, h, h) of a row.
            criterion: compares two images, as functions of torch.nn.functional do.
            weight: of the terms.
            seed: of all random numbers.
            corrections: of the poses, if there are any.
        """
        self.memory, self.scene, self.labels = memory, scene, labels
        self.photograph, self.criterion = photograph, criterion
        self.weight, self.seed, self.corrections = weight, seed, corrections

    def terms(self, step: int, index: Tensor, prediction: Prediction) -> dict[str, Term]:
        """Returns the terms of the images `index` (B,), then remembers what was predicted for them."""
        assert prediction.texture is not None
        draws = Draws(seeding.torch_generator(self.seed, "neighbors", step), prediction.vertices)
        numbers = draws.uniform(1)[:, 0]
        neighbors = self.memory.neighbors(index, prediction, self.labels, numbers)
        share = neighbors.found.to(prediction.vertices) / len(index)
        # The own shape in the neighbor's colors
        texture = self.memory.texture[neighbors.shape].to(prediction.texture)
        silhouette, colors = self._compare(neighbors.shape, prediction.vertices, texture)
        # The own colors on the neighbor's shape
        displacement = self.memory.displacement[neighbors.texture].to(prediction.vertices)
        vertices = self.scene.sphere.deform(displacement)
        _, other_colors = self._compare(neighbors.texture, vertices, prediction.texture)
        self.memory.remember(index, prediction)
        return {
            "neighbor_silhouette": Term((share * silhouette).sum(), self.weight),
            "neighbor_colors": Term(
                (share * (colors + other_colors)).sum(), COLOR_WEIGHT * self.weight
            ),
        }

    def _compare(self, rows: Tensor, vertices: Tensor, texture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns errors (B,) of silhouettes and colors of meshes (B, V, 3) under poses of other images."""
        labels = self.labels.select(rows)
        if self.corrections is not None:
            labels = self.corrections.apply(labels, rows)
        image = torch.stack([self.photograph(row) for row in rows.tolist()]).to(vertices)
        shown = render_textured(
            self.scene.sphere, project(vertices, labels.pose), texture, image.shape[-1]
        )
        assert shown.alpha is not None
        pairs = (shown.alpha, image[:, 3:]), (shown.colors, image[:, :3])
        silhouette, colors = (self.criterion(*pair, reduction="none") for pair in pairs)
        return silhouette.mean((1, 2, 3)), colors.mean((1, 2, 3))


def _nearest(maps: Tensor, known: Tensor, allowed: Tensor) -> Tensor:
    """Returns the row (B,) among maps (K, C, h, w) nearest to each of (B, C, h, w), of those allowed (B, K)."""
    own, others = (F.adaptive_avg_pool2d(x.to(maps), CODE_SIZE).flatten(1) for x in (maps, known))
    distance = torch.cdist(own, others, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.masked_fill(~allowed, torch.inf).argmin(1)


def make_swaps(
    config: ReconstructionConfig,
    data: ReconstructionData,
    device: torch.device,
    criterion: Criterion,
    corrections: PoseCorrections | None,
) -> NeighborSwaps | None:
    """Returns the terms of a run that knows nothing yet; None if it has none.

    Raises:
        UserError: if no textures are predicted.
    """
    weight = config.optimizer.neighbor_weight
    if not weight:
        return None
    if not config.model.predicts_texture:
        raise UserError(
            f"--neighbor_weight {weight:g}: textures are swapped, but --prediction_type "
            f"{config.model.prediction_type} predicts none. Use --prediction_type texture or both."
        )
    return NeighborSwaps(
        Memory(len(data), config.model.texture_resolution, config.model.mesh_resolution, device),
        make_scene(data.vocabulary, config.model, device),
        data.labels.to(device),
        lambda row: data[row].image,
        criterion,
        weight=weight,
        seed=config.seed,
        corrections=corrections,
    )
