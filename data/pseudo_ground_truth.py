"""Pseudo-ground-truth as training data: texture, visibility and displacement map in UV space."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.cache import pseudo_files
from data.cache.label_files import Labels
from data.definitions import folder_names
from geometry.uv_maps import mirror_map

_SEG_SHARPNESS = 100.0  # makes the stored probabilities nearly one-hot


class UVSample(NamedTuple):
    """One sample (or, collated, a batch with B in front).

    Attributes:
        texture: (3, R, R) in [-1, 1], 0 where unseen.
        alpha: (1, R, R) in [0, 1], 1 = seen.
        mesh: (3, S, S) displacement map.
        seg: (K + 1, h, w) part probabilities; (0, 1, 1) if not asked for.
        category: () int64, position in the category list of the run; (S,) with labels.
        row: () int64, row of the pose metadata.
    """

    texture: Tensor
    alpha: Tensor
    mesh: Tensor
    seg: Tensor
    category: Tensor
    row: Tensor


class PseudoGroundTruth(Dataset[UVSample]):
    """The exported pseudo-ground-truth of a dataset, or of several one after another.

    Item i belongs to row i of the metadata.

    Attributes:
        metadata: poses and categories of the items; in the place of categories (K, S) labels, once
            these were chosen.
        label_names: labels of each chosen set, by its name.
        mesh_resolution: S, side of the displacement maps.
    """

    def __init__(
        self,
        dataset: str,
        resolution: int,
        mode: str,
        *,
        segmentation: bool = False,
        mesh_resolution: int = 32,
    ) -> None:
        """Checks that the export is complete; items are read on access.

        Raises:
            UserError: if metadata or items are missing, their displacement maps have another resolution,
                or the part maps of several datasets have different channels.
        """
        self.metadata = pseudo_files.load_metadata(dataset, mode)
        self.label_names: dict[str, list[str]] = {}
        self.segmentation, self.mesh_resolution = segmentation, mesh_resolution
        self._places: list[tuple[str, int, str, int]] = []
        # Items of several datasets lie in the folder of each
        names = folder_names(dataset)
        per_name = self.metadata.category.bincount(minlength=len(names)).tolist()
        for name, count in zip(names, per_name if len(names) > 1 else [len(self)], strict=True):
            pseudo_files.check_pseudo_ground_truth(name, resolution, mode, count, mesh_resolution)
            self._places += [(name, resolution, mode, index) for index in range(count)]
        if segmentation and len(names) > 1:
            pseudo_files.check_common_parts(dataset, resolution, mode)

    def keep(self, rows: Sequence[int]) -> None:
        """Restricts the items to some rows of the metadata, which then count from 0."""
        index = torch.tensor(rows, dtype=torch.int64)
        tensors = {
            name: value[index]
            for name, value in self.metadata._asdict().items()
            if isinstance(value, Tensor)
        }
        paths = [self.metadata.paths[row] for row in rows]
        self.metadata = self.metadata._replace(**tensors, paths=paths)
        self._places = [self._places[row] for row in rows]

    def photograph(self, index: int) -> Tensor:
        """Returns the photograph of an item, (3, 299, 299) in [-1, 1], 0 outside the object."""
        image = pseudo_files.load_pseudo_arrays(*self._places[index], ["image"])["image"]
        return torch.from_numpy(image[:3].astype(np.float32))

    def choose_labels(self, labels: Labels) -> None:
        """Takes labels in the place of the categories."""
        self.metadata = self.metadata._replace(category=labels.values)
        self.label_names = labels.names

    def __len__(self) -> int:
        return len(self.metadata.category)

    def __getitem__(self, index: int) -> UVSample:
        # Part maps are large and read only for models that need them
        names = ["texture", "texture_alpha", "mesh", "category"] + ["seg"] * self.segmentation
        arrays = pseudo_files.load_pseudo_arrays(*self._places[index], names)
        category = arrays.pop("category")
        # First to single precision, in which numbers are checked three times as fast
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
        everything = arrays | {"category": category}
        pseudo_files.check_item(*self._places[index], everything, self.mesh_resolution)
        maps = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.segmentation:
            seg = torch.softmax(_SEG_SHARPNESS * maps["seg"], dim=0)
        else:
            seg = torch.zeros(0, 1, 1)
        return UVSample(
            maps["texture"],
            maps["texture_alpha"],
            maps["mesh"],
            seg,
            self.metadata.category[index].clone(),
            torch.tensor(index),
        )


def held_out_rows(paths: Sequence[str], share: float) -> list[int]:
    """Returns the rows of the photographs that are kept for evaluation, evenly spaced among all.

    A function of the paths alone; several objects of one photograph stay together.

    Args:
        paths: of the photograph of each row.
        share: of the photographs, in [0, 1); at least one unless it is 0.
    """
    # Number i of n is held out where i * share passes an integer
    different = sorted(set(paths))
    counts = [int(i * share + 1e-9) for i in range(len(different) + 1)]
    steps = zip(different, itertools.pairwise(counts), strict=True)
    held = {path for path, (before, after) in steps if after > before}
    if share > 0 and not held:
        held = {different[-1]}
    return [row for row, path in enumerate(paths) if path in held]


def mirror_samples(batch: UVSample, chosen: Tensor) -> UVSample:
    """Mirrors some samples of a batch left-right in UV space.

    Args:
        batch: collated samples.
        chosen: (B,) bool, such as `StepSampler.coins`.

    Returns:
        The batch, with the maps of the chosen samples mirrored.
    """
    # Without segmentation the part map is empty and stays so
    pick = chosen.to(batch.texture.device)[:, None, None, None]
    mirrored = {
        name: torch.where(pick, mirror_map(maps), maps)
        for name, maps in batch._asdict().items()
        if name in ("texture", "alpha", "mesh", "seg") and maps.shape[1] > 0
    }
    return batch._replace(**mirrored)
