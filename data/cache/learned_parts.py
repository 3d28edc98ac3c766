"""Part maps that were learned from a collection: the file between their discovery and their use."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data.cache.folders import cache_folder
from data.cache.storage import check_numbers, load_arrays, save_arrays
from utils.cli import UserError


class LearnedParts(NamedTuple):
    """Part maps of all N detections.

    Attributes:
        maps: (N, K, s, s) uint8, 255 = certain; the K maps of a pixel of the object add up to 255.
        boxes: (N, 3) int64 crops: left, top and side in pixels of the photograph.
    """

    maps: Tensor
    boxes: Tensor

    @property
    def names(self) -> list[str]:
        """Names of the parts."""
        return [f"part_{number + 1}" for number in range(self.maps.shape[1])]

    def targets(self, rows: Tensor, masks: Tensor) -> Tensor:
        """Returns part maps (n, K + 1, h, w) of rows (n,), in the form of given ones.

        Args:
            rows: of the detections.
            masks: (n, h, w) of their crops; the parts of a pixel add up to it.

        Returns:
            Channel 0, the object without part, is empty.
        """
        small = self.maps[rows].to(masks.device).float()
        maps = functional.interpolate(small, masks.shape[1:], mode="bilinear", align_corners=False)
        share = (maps + 1e-3) / (maps + 1e-3).sum(dim=1, keepdim=True)
        return functional.pad(share, (0, 0, 0, 0, 1, 0)) * masks[:, None]


def learned_parts_path(dataset: str, mode: str, num_parts: int) -> Path:
    """Returns the path of the part maps that were learned for a dataset."""
    return cache_folder(dataset) / f"parts_learned_K{num_parts}_{mode}.npz"


def save_learned_parts(path: Path, parts: LearnedParts, fingerprint: str, settings: str) -> Path:
    """Writes part maps, stamped with the detections and the settings that they came from."""
    arrays = {"maps": parts.maps.numpy(), "boxes": parts.boxes.numpy()}
    stamps = {"fingerprint": np.asarray(fingerprint), "settings": np.asarray(settings)}
    return save_arrays(path, arrays | stamps)


def load_learned_parts(path: Path, fingerprint: str, settings: str) -> LearnedParts | None:
    """Reads part maps; None if there are none of these detections and settings."""
    if not path.exists():
        return None
    names = ("maps", "boxes", "fingerprint", "settings")
    remedy = "Delete it and run the command again."
    arrays = load_arrays(path, names, remedy)
    # Of other detections or options: to be learned again
    if (str(arrays["fingerprint"]), str(arrays["settings"])) != (fingerprint, settings):
        return None
    check_numbers(path, arrays, {"maps": ("N", "K", "s", "s"), "boxes": ("N", 3)}, remedy)
    if arrays["maps"].dtype != np.uint8 or arrays["boxes"].dtype != np.int64:
        raise UserError(f"{path}: maps and boxes are not whole numbers of 8 and 64 bits. {remedy}")
    return LearnedParts(torch.from_numpy(arrays["maps"]), torch.from_numpy(arrays["boxes"]))
