"""Cameras that are learned with the meshes: one of several hypotheses is rendered per image and step.

In turn with the meshes, which are trained under the most probable cameras: the camera of a hypothesis, drawn by its
probability, moves until its silhouette fits the mask, and the loss that it has is what the network is
to foresee. Probabilities follow from foreseen losses (after Wu et al. 2023, https://arxiv.org/abs/2211.12497, section
3.2; all hypotheses have to be used, as in Monnier et al. 2022, https://arxiv.org/abs/2204.10310, section 3.3).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry import camera, quaternion
from geometry.camera import Pose, project
from models.companions.student import SectorPoses, mirrored
from models.layers import resize
from pipeline.reconstruction.cameras.network import (
    FINAL_TEMPERATURE,
    CameraNetwork,
    make_camera_network,
)
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Batch, Labels, ReconstructionData
from pipeline.reconstruction.model import Prediction, Scene, make_scene, mean_shapes
from rendering.rasterizer import SHARPNESS
from rendering.texture import render_textured
from utils import distributed, seeding, training
from utils.training import Term

SIZE = 64  # of the renderings
RATE = 1e-3  # of Adam, in the first quarter of a run
SETTLED = 0.5  # share of the run in which cameras see templates, to which the meshes are pinned
UNIFORM = 0.1  # share of the run in which hypotheses are drawn evenly
EXPLORED = 0.2  # share of the hypotheses that are drawn evenly in the second half
FIRST_TEMPERATURE = 0.1  # of foreseen losses
SOFTNESS = 10.0  # of silhouettes in the beginning, as a divisor of their sharpness
COLOR_WEIGHT, TILT_WEIGHT = 0.5, 0.005  # in the loss of a camera, beside 1 - IoU
REGRESSION_WEIGHT, COVERAGE_WEIGHT = 10.0, 0.02


class Plan(NamedTuple):
    """How cameras are learned at a step.

    Attributes:
        explored: share of the hypotheses that are drawn evenly.
        temperature: of the foreseen losses.
        sharpness: of silhouettes, per squared screen unit.
        settled: whether meshes are learned too.
    """

    explored: float
    temperature: float
    sharpness: float
    settled: bool


def plan(step: int, total: int) -> Plan:
    """Returns the plan of a step of a run of `total` steps."""
    progress = step / total
    # From the beginning to where cameras have settled: 0 to 1
    early = min(progress / SETTLED, 1)
    free = max(0.0, min(1.0, (progress - UNIFORM) / (SETTLED - UNIFORM)))
    cooling = FINAL_TEMPERATURE / FIRST_TEMPERATURE
    return Plan(
        1 - (1 - EXPLORED) * free,
        FIRST_TEMPERATURE * cooling**early,
        SHARPNESS * SOFTNESS ** (early - 1),
        progress >= SETTLED,
    )


class CameraLearning:
    """Proposes cameras for the meshes, and improves them."""

    def __init__(
        self, network: CameraNetwork, scene: Scene, count: int, total: int, seed: int
    ) -> None:
        """Collects what all steps share.

        Args:
            network: is changed by every step.
            scene: what the images share.
            count: K, number of images.
            total: steps of the run.
            seed: of all random numbers.
        """
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        self.scene, self.count, self.total, self.seed = scene, count, total, seed

    @property
    def members(self) -> dict[str, training.Stateful]:
        """What changes, by its name in a checkpoint; in files the network has the place of a student."""
        return {"student": self.network, "student_optimizer": self.optimizer}

    def propose(self, step: int, batch: Batch, labels: Labels) -> tuple[SectorPoses, Labels]:
        """Returns the cameras of a batch, and its labels with the most probable ones, without gradient."""
        now = plan(step, self.total)
        self.network.train().temperature.fill_(now.temperature)
        flip = batch.flip[:, None, None, None]
        seen = torch.where(flip, batch.image.flip(-1), batch.image)
        said = self.network(seen, labels.category)
        # Cameras of mirror images become those of the images
        pairs = zip(mirrored(said), said, strict=True)
        said = SectorPoses(
            *(torch.where(batch.flip.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in pairs)
        )
        best = chosen(self.network.poses(said), said.logits.argmax(1))
        best = Pose(*(member.detach() for member in best))
        pinned = labels.pinned if now.settled else torch.ones_like(labels.pinned)
        return said, labels._replace(pose=best, pinned=pinned)

    def __call__(
        self,
        step: int,
        batch: Batch,
        labels: Labels,
        said: SectorPoses,
        prediction: Prediction,
        rate: float,
    ) -> dict[str, Tensor]:
        """Updates the cameras once and returns their detached losses.

        Args:
            step: number of steps made before this one.
            batch: B crops.
            labels: theirs.
            said: the cameras that were proposed for them.
            prediction: the meshes of the estimator.
            rate: share of the learning rate, 1 at first.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * rate
        now = plan(step, self.total)
        probability = said.logits.softmax(1)
        drawn = draw(probability, now.explored, self.seed, step, batch.index, self.count)
        # Shapes and textures without gradient: cameras alone are to explain the image
        pose = chosen(self.network.poses(said), drawn)
        shape = prediction.vertices if now.settled else self.scene.shapes(labels)
        texture = None
        if prediction.texture is not None and step >= UNIFORM * self.total:
            texture = of_others(prediction.texture.detach(), labels.category)
        loss = self.losses(shape.detach(), texture, pose, batch.image, now.sharpness)
        loss = loss + TILT_WEIGHT * tilt(pose.rotation, self.network.tilts[labels.category])
        rows = torch.arange(len(drawn), device=drawn.device)
        foreseen = self.network.foreseen(said)[rows, drawn]
        terms = {
            "fit": Term(loss.mean()),
            "foresight": Term((foreseen - loss.detach()).square().mean(), REGRESSION_WEIGHT),
            "coverage": Term(coverage(probability), COVERAGE_WEIGHT),
        }
        self.optimizer.zero_grad(set_to_none=True)
        training.weighted_sum(terms).backward()
        distributed.average_gradients(self.network.parameters())
        self.optimizer.step()
        sure = probability.detach().amax(1).mean()
        return {f"camera_{name}": x for name, x in training.values(terms).items()} | {
            "camera_sure": sure
        }

    def losses(
        self, shape: Tensor, texture: Tensor | None, pose: Pose, image: Tensor, sharpness: float
    ) -> Tensor:
        """Returns what cameras (B, ...) cost: 1 - IoU and the color error inside of both silhouettes, (B,).

        Args:
            shape: (B, V, 3) object space.
            texture: (B, 3, R, R), or None for silhouettes alone.
            pose: of the B images.
            image: (B, 4, h, h) crops.
            sharpness: of silhouettes, per squared screen unit.
        """
        image = resize(image, (SIZE, SIZE))
        colors = shape.new_zeros(len(shape), 3, 2, 2) if texture is None else texture
        screen = project(shape, pose)
        shown = render_textured(self.scene.sphere, screen, colors, SIZE, sharpness=sharpness)
        assert shown.alpha is not None
        alpha, mask = shown.alpha.flatten(1), image[:, 3].flatten(1)
        both = (alpha * mask).sum(1)
        loss = 1 - both / (alpha + mask - alpha * mask).sum(1).clamp(min=1e-6)
        if texture is None:
            return loss
        inside = shown.coverage[:, 0] * image[:, 3]
        error = (shown.colors - image[:, :3]).abs().mean(1) / 2
        mean = (error * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        return loss + COLOR_WEIGHT * mean


def chosen(poses: Pose, choice: Tensor) -> Pose:
    """Returns one (B,) of the poses (B, H, ...) of each image."""
    rows = torch.arange(len(choice), device=choice.device)
    return camera.select(poses, (rows, choice))


def draw(
    probability: Tensor, explored: float, seed: int, step: int, index: Tensor, count: int
) -> Tensor:
    """Draws a hypothesis (B,) for each image of a batch: a function of seed, step and image.

    Args:
        probability: (B, H), sums of 1.
        explored: share that is drawn evenly instead.
        seed: of all steps.
        step: number of the step.
        index: (B,) rows of the images.
        count: of all images.
    """
    numbers = torch.rand(count, generator=seeding.torch_generator(seed, "hypotheses", step))
    numbers = numbers.to(probability)[index]
    last = probability.shape[1] - 1
    mixed = (1 - explored) * probability.detach() + explored / (last + 1)
    return (mixed.cumsum(1) <= numbers[:, None]).sum(1).clamp(max=last)


def of_others(texture: Tensor, category: Tensor) -> Tensor:
    """Returns for each image the mean texture (B, 3, R, R) of the others of its category in the step.

    An image would wear its own texture under any camera; that of the others agrees with it under the right
    one only. Images without others keep their own.
    """
    textures, categories = map(distributed.concatenate, (texture, category))
    first = distributed.rank() * len(texture)
    own = torch.arange(first, first + len(texture), device=texture.device)
    others = (categories == category[:, None]).to(texture)
    rows = torch.arange(len(own), device=texture.device)
    others[rows, own] = (others.sum(1) == 1).to(texture)
    return torch.einsum("bn,nchw->bchw", others / others.sum(1, keepdim=True), textures)


def tilt(rotation: Tensor, tilts: Tensor) -> Tensor:
    """Returns how far rotations (B, 4) are tilted beyond the usual (B,): squares, 1 at the bounds (B, 3)."""
    _, elevation, roll = quaternion.to_view(rotation)
    mean, most, widest = tilts.unbind(-1)
    return ((elevation - mean) / most).square() + (roll / widest).square()


def coverage(probability: Tensor) -> Tensor:
    """Returns how unevenly the hypotheses are used in a step: the mean of |mean of p_k - 1 / H|."""
    # All processes share the mean; the sign carries the gradient of the absolute value
    share = distributed.concatenate(probability.detach()).mean(0)
    even = 1 / probability.shape[1]
    return ((share - even).sign() * (probability.mean(0) - even)).mean()


def make_cameras(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device, total: int
) -> CameraLearning | None:
    """Returns how a run of `total` steps learns cameras; None if it has them from elsewhere."""
    if config.model.camera_source != "predicted":
        return None
    vocabulary = data.vocabulary
    network = make_camera_network(
        mean_shapes(data), vocabulary.views, config.model.num_hypotheses, config.seed
    )
    scene = make_scene(vocabulary, config.model, device, data.modes)
    return CameraLearning(network.to(device), scene, len(data), total, config.seed)
