"""Photographs, masks and part maps of a collection, read a few at a time in every pass."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from data.crops import ObjectImages
from data.detections import Detections
from data.loading import load_once
from pipeline.poses.options import CollectionOptions, ComputeOptions
from utils import distributed

IMAGES_PER_BATCH = 4  # per device: part maps are large
ON_GPU = 8  # times as many on a GPU, which small batches leave idle


class Photographs(NamedTuple):
    """Crops of n objects.

    Attributes:
        rows: (n,) of the detections.
        images: (n, 4, h, w) RGB in [-1, 1], 0 outside the object, and mask.
        parts: (n, K + 1, h, w) given part maps, channel 0 = object without part, 0 outside; without
            part names (n, 0, h, w).
    """

    rows: Tensor
    images: Tensor
    parts: Tensor

    @property
    def masks(self) -> Tensor:
        """Masks (n, h, w) in [0, 1]."""
        return self.images[:, 3]

    def select(self, index: Tensor) -> "Photographs":
        """Returns the photographs at an index."""
        return Photographs(self.rows[index.cpu()], self.images[index], self.parts[index])


class Reader:
    """Reads the photographs of a collection, with the maps of the named parts.

    Attributes:
        part_names: the K given parts.
        device: where the photographs go.
    """

    def __init__(
        self,
        detections: Detections,
        collection: CollectionOptions,
        compute: ComputeOptions,
        part_names: Sequence[str],
        device: torch.device,
    ) -> None:
        """Reads nothing yet."""
        self.part_names, self.device = list(part_names), device
        self._detections, self._size = detections, collection.image_resolution
        self._compute = compute

    def batches(self, rows: Sequence[int]) -> Iterator[Photographs]:
        """Yields the photographs of the rows, in their order."""
        # Nothing is kept: each pass reads a photograph once
        dataset = ObjectImages(
            self._detections,
            self._size,
            rows=rows,
            parts="scores" if self.part_names else "none",
            part_names=self.part_names,
        )
        size = images_per_batch(self._compute.batch_size, IMAGES_PER_BATCH, self.device)
        with closing(load_once(dataset, size, self._compute.num_workers)) as loaded:
            for item in loaded:
                at = torch.tensor(rows)[item.index]
                yield Photographs(at, item.image.to(self.device), item.parts[:, 1:].to(self.device))


def images_per_batch(batch_size: int, automatic: int, device: torch.device) -> int:
    """Returns this process's share of the batch size over all; -1 chooses.

    Args:
        batch_size: over all processes, or -1.
        automatic: what is chosen for a processor.
        device: of this process.
    """
    if batch_size > 0:
        return max(1, batch_size // distributed.world_size())
    return automatic * (ON_GPU if device.type == "cuda" else 1)
