"""What stage 2 compares poses with: masks and part maps of a dataset, given or learned."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from data.cache.learned_parts import LearnedParts
from data.crops import ObjectImages, part_vocabulary
from data.detections import Detections
from models.backbones import load_backbone
from pipeline.poses import part_discovery
from pipeline.poses.candidates import Candidates
from pipeline.poses.part_model import SemanticModel, Targets
from pipeline.poses.step1 import images_per_batch, load_batches
from pipeline.poses.step2_config import SemanticsConfig

IMAGES_PER_BATCH = 4  # per device: part maps are large

logger = logging.getLogger(__name__)


class Photographs:
    """Masks and part maps of a dataset, read again in every round.

    Attributes:
        part_names: the K parts: the frequent ones, or the learned ones once there are any.
    """

    def __init__(
        self, config: SemanticsConfig, detections: Detections, device: torch.device
    ) -> None:
        """Reads nothing yet."""
        self.part_names = part_vocabulary(detections) if config.parts_source == "maps" else []
        self._config, self._detections, self._device = config, detections, device
        self._learned: LearnedParts | None = None
        # Read before anything is computed, so that a mistake shows at once
        self._backbone = load_backbone(config.parts_features) if config.parts_features else None
        if not self.part_names:
            logger.info("no part maps: poses are chosen by colors and the prior of the category")
        elif bare := self._count_without_parts():
            logger.info("%d images show no part: the mask takes the place of their parts", bare)

    def _count_without_parts(self) -> int:
        names = set(self.part_names)
        return sum(
            names.isdisjoint(part.name for part in item.parts) for item in self._detections.items
        )

    def learn(self, candidates: Candidates, rows: Tensor, model: SemanticModel) -> None:
        """Takes parts that are learned from the rows of these candidates in the place of given ones."""
        options = (
            getattr(self._config, field.name) for field in fields(part_discovery.PartsConfig)
        )
        best = candidates.best().select(rows)
        teaching = part_discovery.Teaching(rows, best.parameters, best.choice)
        config = part_discovery.PartsConfig(*options)
        self._learned = part_discovery.learn_parts(
            config, self._detections, teaching, model, self._backbone, self._device
        )
        self.part_names = self._learned.names

    def batches(self, rows: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Targets]]:
        """Yields positions in `rows` (n,), and images (n, 4, h, w) and targets there."""
        config = self._config
        dataset = ObjectImages(
            self._detections,
            config.image_resolution,
            rows=rows,
            parts="scores" if self.part_names and self._learned is None else "none",
            part_names=self.part_names,
            cache=False,
        )
        size = images_per_batch(config.batch_size, IMAGES_PER_BATCH)
        for item in load_batches(dataset, size, config.num_workers):
            image = item.image.to(self._device)
            parts, trust = image[:, 3:], 1.0
            if self._learned is not None:
                at = torch.tensor(rows)[item.index]
                parts, trust = self._learned.targets(at, image[:, 3]), part_discovery.TRUST
            elif self.part_names:
                parts = item.parts[:, 1:].to(self._device)
            yield item.index, image, Targets(image[:, 3], parts, trust)
