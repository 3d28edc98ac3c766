"""The student: learns to see in crops the poses that step 2 has found, and estimates those of new ones.

It learns beside the mesh estimator, from the same batches and what is predicted for them, with an
optimizer of its own: the mesh estimator does not depend on it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry import camera, quaternion
from geometry.camera import Pose
from models.companions.student import SectorPoses, StudentNetwork, mirrored, sector_weights
from pipeline.reconstruction.companions import lessons
from pipeline.reconstruction.companions.lessons import Draws, Lesson
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Batch, Labels, ReconstructionData
from pipeline.reconstruction.model import Prediction, Scene, make_scene
from utils import distributed, seeding, training
from utils.training import Term

RATE = 1e-3  # of Adam, in the first quarter of a run
LESSONS = 3  # from every batch, changed at random each time: the student learns more slowly
MIN_SPREAD = 0.01  # of numbers that are the same in all poses


class Teaching:
    """A step of the student's training."""

    def __init__(
        self,
        student: StudentNetwork,
        scene: Scene,
        labels: Labels,
        confidence: Tensor,
        *,
        weight: float,
        seed: int,
    ) -> None:
        """Collects what all steps share.

        Args:
            student: is changed by every step.
            scene: what the images share.
            labels: of all K images.
            confidence: (K,) in [0, 1], how much the pose of each counts.
            weight: of rotations beside the other terms of the loss.
            seed: of all random numbers.
        """
        self.student = student
        self.optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
        self.scene, self.labels, self.weight, self.seed = scene, labels, weight, seed
        self.confidence = confidence / confidence.mean().clamp(min=1e-6)

    @property
    def members(self) -> dict[str, training.Stateful]:
        """What changes, by its name in a checkpoint."""
        return {"student": self.student, "student_optimizer": self.optimizer}

    def __call__(
        self, step: int, batch: Batch, labels: Labels, prediction: Prediction, rate: float
    ) -> dict[str, Tensor]:
        """Updates the student in a few lessons and returns its detached losses in the last one.

        Args:
            step: number of steps made before this one.
            batch: B crops.
            labels: theirs.
            prediction: what the mesh estimator has made of them.
            rate: share of the learning rate, 1 at first.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * rate
        # Corrected poses belong to the graph of the mesh estimator
        labels = labels._replace(pose=Pose(*(member.detach() for member in labels.pose)))
        terms: dict[str, Term] = {}
        for number in range(step * LESSONS, (step + 1) * LESSONS):
            terms = self._teach(self.lesson(number, batch, labels, prediction))
        return {f"student_{name}": value for name, value in training.values(terms).items()}

    def _teach(self, lesson: Lesson) -> dict[str, Term]:
        """Updates the student once."""
        self.student.train()
        said = self.student(lesson.image, lesson.category)
        terms = compute_terms(
            said,
            lesson.pose.rotation,
            self.student.normalized(lesson.pose),
            lesson.weight,
            self.weight,
        )
        self.optimizer.zero_grad(set_to_none=True)
        training.weighted_sum(terms).backward()
        distributed.average_gradients(self.student.parameters())
        self.optimizer.step()
        return terms

    def lesson(self, number: int, batch: Batch, labels: Labels, prediction: Prediction) -> Lesson:
        """Returns the examples of a lesson: photographs and, where textures are predicted, renderings."""
        draws = Draws(seeding.torch_generator(self.seed, "student", number), labels.pose.scale)
        weight = self.confidence[batch.index]
        parts = [lessons.photographs(batch.image, labels, weight, draws)]
        if prediction.texture is not None:
            parts += [
                lessons.renderings(self.scene, prediction, labels, self.labels, draws)
                for _ in range(lessons.RENDERINGS)
            ]
        return lessons.joined(parts)


def make_teaching(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device
) -> Teaching | None:
    """Returns how a run teaches its student, whose weights are a function of the seed; None if it has none."""
    weight = config.optimizer.student_weight
    if not weight or config.model.camera_source == "predicted":
        return None
    student = make_student(data.labels, len(data.detections), config.seed).to(device)
    return Teaching(
        student,
        make_scene(data.vocabulary, config.model, device),
        data.labels.to(device),
        data.confidence.to(device),
        weight=weight,
        seed=config.seed,
    )


def make_student(labels: Labels, num_categories: int, seed: int) -> StudentNetwork:
    """Returns an untrained student that knows the usual scales, translations and z0 of a collection.

    Args:
        labels: of all images.
        num_categories: of the run.
        seed: of its weights.
    """
    seeding.seed_everything(seed, "student")
    student = StudentNetwork(num_categories)
    # Mirror images are as usual as the images
    both = camera.concatenate([labels.pose, camera.mirror(labels.pose)])
    numbers = student.normalized(both)  # of mean 0 and spread 1: as they are
    student.mean.copy_(numbers.mean(0))
    student.spread.copy_(numbers.std(0).clamp(min=MIN_SPREAD))
    return student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compute_terms(
    said: SectorPoses, rotation: Tensor, numbers: Tensor, weight: Tensor, rotation_weight: float
) -> dict[str, Term]:
    """Compares what the student says about B images with their poses.

    The rotation's term 1 - <q, q'>^2 is that of a rotation, not of a quaternion: q and -q are alike
    (Insafutdinov & Dosovitskiy 2018, https://arxiv.org/abs/1810.09381, section 3.3).

    Args:
        said: for the B images.
        rotation: (B, 4) unit quaternions.
        numbers: (B, 4) log scale, translation and z0, normalized.
        weight: (B,) of the images.
        rotation_weight: of rotations beside the other terms.
    """
    # Images between two sectors belong to both
    share = sector_weights(quaternion.to_view(rotation)[0])
    surprise = -(share * said.logits.log_softmax(1)).sum(1)
    turn = (share * quaternion.squared_distance(said.rotation, rotation[:, None])).sum(1)
    rest = (share * (said.numbers - numbers[:, None]).square().mean(2)).sum(1)
    return {
        "sector": Term((weight * surprise).mean()),
        "rotation": Term((weight * turn).mean(), rotation_weight),
        "camera": Term((weight * rest).mean()),
    }


class PoseEstimate(NamedTuple):
    """Poses of B crops.

    Attributes:
        pose: members (B, ...), the most probable ones.
        alternatives: members (B, K, ...), from the most to the least probable.
        probability: (B, K) of the alternatives; sums of 1.
    """

    pose: Pose
    alternatives: Pose
    probability: Tensor


@torch.no_grad()
def estimate_pose(student: StudentNetwork, image: Tensor, category: Tensor) -> PoseEstimate:
    """Estimates the poses of crops; mirror images get mirrored poses.

    Args:
        student: in evaluation mode.
        image: (B, 4, h, h) crops as the mesh estimator takes them.
        category: (B,) int64.
    """
    # The same question twice, the second time about the mirror image
    first = student(image, category)
    second = mirrored(student(image.flip(-1), category))
    probability = (first.logits.softmax(1) + second.logits.softmax(1)) / 2
    sign = (first.rotation * second.rotation).sum(2, keepdim=True).sign()
    rotation = quaternion.normalize(first.rotation + sign * second.rotation)
    mean = SectorPoses(probability.log(), rotation, (first.numbers + second.numbers) / 2)
    # The most probable sector first
    order = probability.argsort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(image), device=image.device)[:, None]
    alternatives = camera.select(student.poses(mean), (rows, order))
    first_of_all = Pose(*(member[:, 0] for member in alternatives))
    return PoseEstimate(first_of_all, alternatives, probability[rows, order])
