"""What all measures of the evaluation have in common."""

import abc
from collections import defaultdict
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.detections import Detections
from models.companions.student import StudentNetwork
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Labels, ReconstructionData
from pipeline.reconstruction.model import Prediction, Scene
from utils import distributed
from utils.cli import UserError


class Setting(NamedTuple):
    """What is measured.

    Attributes:
        config: options, with the architecture of the model.
        data: photographs with poses.
        scene: what they share.
        student: of the model, if it has one.
    """

    config: ReconstructionConfig
    data: ReconstructionData
    scene: Scene
    student: StudentNetwork | None = None

    @property
    def detections(self) -> list[Detections]:
        """One set of detections per dataset."""
        return self.data.detections


class Measured(NamedTuple):
    """A batch of B photographs and what the model makes of them.

    Attributes:
        index: (B,) int64 rows of the data.
        image: (B, 4, h, h) crops.
        labels: of the crops.
        prediction: meshes, under the poses of the labels.
        colors: (B, 3, h, h) rendered colors in [-1, 1], or None if none are predicted.
        alpha: (B, 1, h, h) rendered silhouettes.
    """

    index: Tensor  # type: ignore[assignment] - hides tuple.index, which nobody needs
    image: Tensor
    labels: Labels
    prediction: Prediction
    colors: Tensor | None
    alpha: Tensor


class Unavailable(UserError):
    """A measure that a collection has no truth for, or a model no output."""


class Metric(abc.ABC):
    """A measure: sees every batch once, on any of the processes, then yields its figures.

    The constructor takes the setting and raises `Unavailable` if the measure has no meaning there.

    Attributes:
        titles: what each figure is, by its name in metrics.jsonl.
        on_request: whether it is measured only where --metrics names it.
    """

    titles: ClassVar[dict[str, str]]
    on_request: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    @abc.abstractmethod
    def add(self, batch: Measured) -> None:
        """Takes a batch into account."""

    @abc.abstractmethod
    def figures(self) -> dict[str, float]:
        """Returns the figures over the batches of all processes, by name; all processes call it."""

    def lines(self, figures: dict[str, float]) -> list[str]:
        """Returns what is printed about the figures of this measure."""
        return [f"{value:<10.4f} {self.titles[name]}" for name, value in figures.items()]

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns pictures (H, W, 3) uint8 by name; all processes call it."""
        return {}


class MeanMetric(Metric):
    """A measure of single photographs, averaged over them."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._values: dict[str, list[float]] = defaultdict(list)

    @abc.abstractmethod
    def measure(self, batch: Measured) -> dict[str, list[float]]:
        """Returns values of a batch by name; a photograph may have several of a name, or none."""

    def add(self, batch: Measured) -> None:
        for name, values in self.measure(batch).items():
            self._values[name] += values

    def figures(self) -> dict[str, float]:
        # Not every process has photographs with true shapes, so that the names may differ
        parts = distributed.gather(dict(self._values))
        columns = {n: [v for part in parts for v in part.get(n, [])] for n in self.titles}
        return {name: float(np.mean(column)) for name, column in columns.items() if column}


def color_error(colors: Tensor, image: Tensor) -> Tensor:
    """Returns the mean absolute error (B,) of colors (B, 3, h, w) in the masks of crops (B, 4, h, w)."""
    # Colors in [-1, 1] differ by 2 at most
    error, mask = (colors - image[:, :3]).abs().mean(1, keepdim=True) / 2, image[:, 3:]
    return (error * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1e-6)


def as_array(x: Tensor) -> np.ndarray:
    """Returns a tensor as numbers of double precision."""
    return x.to("cpu", torch.float64).numpy()
