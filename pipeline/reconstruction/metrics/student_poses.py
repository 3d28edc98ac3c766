"""How far the student's poses are from the true ones, where a collection has them."""

from typing import ClassVar

import torch
from torch import Tensor

from data.ground_truth import load_ground_truth
from geometry import quaternion
from geometry.common_frame import common_frame
from pipeline.reconstruction.metrics.interface import (
    MeanMetric,
    Measured,
    Setting,
    Unavailable,
)
from pipeline.reconstruction.student import estimate_pose
from utils import distributed

RIGHT = 30.0  # degrees


class TrueRotations:
    """The true rotations of photographs, as far as their collections have them."""

    def __init__(self, setting: Setting) -> None:
        """Reads them."""
        self._data = setting.data
        self._truths = [load_ground_truth(d) for d in setting.detections]

    def angle(self, index: int, rotation: Tensor) -> float | None:
        """Returns the angle in degrees from a rotation (4,) to the true one of an image, None if unknown."""
        true = self.rotation(index)
        return None if true is None else float(quaternion.angle_between(rotation.cpu(), true))

    def rotation(self, index: int) -> Tensor | None:
        """Returns the true rotation (4,) of an image, None if unknown."""
        number, row = self._data.source(index)
        truth = self._truths[number]
        return truth.rotation[row] if truth is not None and truth.known[row] else None


class StudentPoses(MeanMetric):
    """Rotation errors of the student, from single photographs."""

    titles: ClassVar = {
        "student_agrees": f"share of the student's rotations within {RIGHT:.0f} degrees of those of step 2",
        "student_right": f"share of them within {RIGHT:.0f} degrees of the true ones",
        "student_degrees": "mean angle between them and the true ones, degrees",
        "student_right_in_common": f"share within {RIGHT:.0f} degrees after the best common rotation",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.student is None:
            raise Unavailable(
                "--metrics pose: the model has no student. Train it with a --student_weight above 0."
            )
        self._student = setting.student
        self._truth = TrueRotations(setting)
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def measure(self, batch: Measured) -> dict[str, list[float]]:
        """Compares with the poses that taught it, and with the true ones as far as they are known."""
        estimate = estimate_pose(self._student, batch.image, batch.labels.category)
        found = estimate.pose.rotation
        angle = quaternion.angle_between(found, batch.labels.pose.rotation)
        true = [self._truth.rotation(int(i)) for i in batch.index]
        pairs = [(q.cpu(), r) for q, r in zip(found, true, strict=True) if r is not None]
        self._pairs += pairs
        known = [float(quaternion.angle_between(*pair)) for pair in pairs]
        # Predicted poses are the student's own
        predicted = self._setting.config.model.poses_from == "predicted"
        return {
            "student_agrees": [] if predicted else (angle < RIGHT).double().tolist(),
            "student_right": [float(angle < RIGHT) for angle in known],
            "student_degrees": known,
        }

    def figures(self) -> dict[str, float]:
        """Adds the share in the common frame, which takes the pairs of all processes."""
        pairs = [pair for some in distributed.gather(self._pairs) for pair in some]
        figures = super().figures()
        if pairs:
            found, true = (torch.stack(rotations) for rotations in zip(*pairs, strict=True))
            found = common_frame(found, true).apply(found)
            right = quaternion.angle_between(found, true) < RIGHT
            figures["student_right_in_common"] = float(right.double().mean())
        return figures
