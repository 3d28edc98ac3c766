"""How far the student's poses are from the true ones, where a collection has them."""

from typing import ClassVar

from torch import Tensor

from data.ground_truth import load_ground_truth
from geometry import quaternion
from pipeline.reconstruction.metrics.interface import (
    MeanMetric,
    Measured,
    Setting,
    Unavailable,
)
from pipeline.reconstruction.student import estimate_pose

RIGHT = 30.0  # degrees


class TrueRotations:
    """The true rotations of photographs, as far as their collections have them."""

    def __init__(self, setting: Setting) -> None:
        """Reads them."""
        self._data = setting.data
        self._truths = [load_ground_truth(d) for d in setting.detections]

    def angle(self, index: int, rotation: Tensor) -> float | None:
        """Returns the angle in degrees from a rotation (4,) to the true one of an image, None if unknown."""
        number, row = self._data.source(index)
        truth = self._truths[number]
        if truth is None or not truth.known[row]:
            return None
        return float(quaternion.angle_between(rotation.cpu(), truth.rotation[row]))


class StudentPoses(MeanMetric):
    """Rotation errors of the student, from single photographs."""

    titles: ClassVar = {
        "student_agrees": f"share of the student's rotations within {RIGHT:.0f} degrees of those of step 2",
        "student_right": f"share of them within {RIGHT:.0f} degrees of the true ones",
        "student_degrees": "mean angle between them and the true ones, degrees",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.student is None:
            raise Unavailable(
                "--metrics pose: the model has no student. Train it with a --student_weight above 0."
            )
        self._student = setting.student
        self._truth = TrueRotations(setting)

    def measure(self, batch: Measured) -> dict[str, list[float]]:
        """Compares with the poses that taught it, and with the true ones as far as they are known."""
        estimate = estimate_pose(self._student, batch.image, batch.labels.category)
        found = estimate.pose.rotation
        angle = quaternion.angle_between(found, batch.labels.pose.rotation)
        true = [self._truth.angle(int(i), q) for i, q in zip(batch.index, found, strict=True)]
        known = [angle for angle in true if angle is not None]
        return {
            "student_agrees": (angle < RIGHT).double().tolist(),
            "student_right": [float(angle < RIGHT) for angle in known],
            "student_degrees": known,
        }
