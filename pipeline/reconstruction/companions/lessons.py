"""What the student learns from: photographs, changed at random, and renderings, with their poses.

The renderings show meshes that the estimator has just predicted, in other proportions and with
textures of each other, from views of other photographs: there are more of these than photographs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry import camera
from geometry.camera import Pose, framed, project
from models.companions.student import INPUT_SIZE
from models.layers import resize
from models.warping import recolor
from pipeline.reconstruction.dataset import Labels
from pipeline.reconstruction.model import Prediction, Scene
from rendering.texture import render_textured
from utils import distributed

TURN = 30.0  # degrees in the image plane, at most
GROWTH = 0.1  # of the logarithm of the scale, at most
SHIFT = 0.05  # screen units, at most
STRETCH = 0.25  # of the logarithms of the proportions of a rendered mesh, at most
SWAPPED = 0.5  # share of the rendered meshes that wear the texture of another one
RENDERINGS = 1  # of every photograph in a lesson: a lesson takes an eighth of a narrow step


class Lesson(NamedTuple):
    """B examples.

    Attributes:
        image: (B, 4, h, h) colors in [-1, 1] times the mask, then the mask, at the student's size.
        pose: members (B, ...), under which the images show their objects.
        category: (B,) int64.
        weight: (B,) of the losses.
    """

    image: Tensor
    pose: Pose
    category: Tensor
    weight: Tensor


def joined(parts: Sequence[Lesson]) -> Lesson:
    """Returns the examples of several lessons as one."""
    images, poses, categories, weights = zip(*parts, strict=True)
    return Lesson(
        torch.cat(images), camera.concatenate(poses), torch.cat(categories), torch.cat(weights)
    )


class Similarity(NamedTuple):
    """Changes of B images: mirrored or not, then turned and scaled about the center, then shifted.

    Attributes:
        mirrored: (B,) bool.
        turn: (B,) degrees, counter-clockwise.
        factor: (B, 1) of scale.
        shift: (B, 2) screen units, x right and y up.
    """

    mirrored: Tensor
    turn: Tensor
    factor: Tensor
    shift: Tensor

    def images(self, image: Tensor) -> Tensor:
        """Changes images (B, C, h, h); what comes from outside is 0."""
        image = torch.where(self.mirrored[:, None, None, None], image.flip(-1), image)
        # Where each pixel comes from: the inverse, in positions that are x right and y down
        angle = torch.deg2rad(self.turn)
        cos, sin = angle.cos(), angle.sin()
        back = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
        back = back / self.factor[..., None]
        down = self.shift * self.shift.new_tensor([1.0, -1.0])
        affine = torch.cat([back, -(back @ down[..., None])], dim=-1)
        grid = F.affine_grid(affine, list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, align_corners=False)

    def poses(self, pose: Pose) -> Pose:
        """Returns the poses (B, ...) under which changed images show their symmetric objects."""
        pairs = zip(camera.mirror(pose), pose, strict=True)
        pose = Pose(*(torch.where(self.mirrored[:, None], new, old) for new, old in pairs))
        return camera.similarity(pose, self.turn, self.factor, self.shift)


class Draws:
    """Random numbers of a step: drawn for all processes, of which each takes its share."""

    def __init__(self, generator: torch.Generator, like: Tensor) -> None:
        """Begins a step.

        Args:
            generator: in the same state in all processes.
            like: floating-point tensor of B rows, one for each sample, whose type and device the
                numbers get.
        """
        self._generator, self._like = generator, like

    def uniform(self, columns: int) -> Tensor:
        """Returns (B, columns) in [0, 1)."""
        count = len(self._like)
        whole = torch.rand(count * distributed.world_size(), columns, generator=self._generator)
        return whole[distributed.rank() * count :][:count].to(self._like)

    def similarities(self, turn: float = TURN) -> Similarity:
        """Returns B changes of images, uniform within their bounds; half of them mirror."""
        numbers = self.uniform(5)
        signed = 2 * numbers - 1
        return Similarity(
            mirrored=numbers[:, 4] < 0.5,
            turn=turn * signed[:, 0],
            factor=(GROWTH * signed[:, 1:2]).exp(),
            shift=SHIFT * signed[:, 2:4],
        )


def photographs(image: Tensor, labels: Labels, weight: Tensor, draws: Draws) -> Lesson:
    """Changes crops (B, 4, h, h), of these labels and weights (B,)."""
    change = draws.similarities()
    small = change.images(resize(image, (INPUT_SIZE, INPUT_SIZE)))
    return Lesson(
        recolor(small, draws.uniform(3)), change.poses(labels.pose), labels.category, weight
    )


def renderings(
    scene: Scene, prediction: Prediction, labels: Labels, collection: Labels, draws: Draws
) -> Lesson:
    """Renders meshes that were predicted for a batch, from views of other photographs.

    Args:
        scene: what the images share.
        prediction: for the B images, with textures.
        labels: of the B images.
        collection: labels of all images, whose poses are drawn from.
        draws: random numbers for B samples.
    """
    assert prediction.texture is not None
    # Other proportions, in which the meshes stay symmetric, and textures of each other
    stretch = (STRETCH * (2 * draws.uniform(3) - 1)).exp()
    vertices = prediction.vertices.detach() * stretch[:, None]
    texture = _swapped(prediction.texture.detach(), labels.category, draws.uniform(2))
    # Views of the same category, framed like photographs
    rows = rows_of_category(collection.category, labels.category, draws.uniform(1)[:, 0])
    view = draws.similarities().poses(camera.select(collection.pose, rows))
    pose = draws.similarities(turn=0).poses(framed(vertices, view))
    # The surface is opaque, so that its coverage is the mask
    shown = render_textured(scene.sphere, project(vertices, pose), texture, INPUT_SIZE, soft=False)
    image = recolor(torch.cat([shown.colors, shown.coverage], dim=1), draws.uniform(3))
    return Lesson(image, pose, labels.category, torch.ones_like(stretch[:, 0]))


def rows_of_category(all_categories: Tensor, category: Tensor, numbers: Tensor) -> Tensor:
    """Returns a row (B,) of each category (B,) among all (K,), chosen by numbers in [0, 1)."""
    order = all_categories.argsort(stable=True)
    counts = all_categories.bincount()
    starts = counts.cumsum(0) - counts
    offset = (numbers * counts[category]).long().minimum(counts[category] - 1)
    return order[starts[category] + offset]


def _swapped(texture: Tensor, category: Tensor, numbers: Tensor) -> Tensor:
    """Replaces some textures (B, 3, R, R) by those of others in the batch, of the same category."""
    # The batch of all processes, so that their number changes nothing
    own = resize(texture, (INPUT_SIZE, INPUT_SIZE))
    textures, categories = map(distributed.concatenate, (own, category))
    other = (numbers[:, 0] * len(textures)).long()
    swap = (numbers[:, 1] < SWAPPED) & (categories[other] == category)
    return torch.where(swap[:, None, None, None], textures[other], own)
