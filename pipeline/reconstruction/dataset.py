"""What the mesh estimator learns from: crops, poses and templates of one dataset, or of all."""

import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from data.cache import pose_files, template_files
from data.cache.folders import record_of
from data.crops import ObjectImage, ObjectImages
from data.definitions import expand_dataset
from data.detections import Detection, Detections, load_detections
from data.loading import load_batches
from data.samplers import StepSampler, balanced_weights
from geometry import camera
from geometry.camera import Pose
from pipeline.reconstruction.cameras import sources
from pipeline.reconstruction.splits import SplitOptions, part_of
from utils import distributed
from utils.cli import UserError


class Labels(NamedTuple):
    """Everything known about the images beside their pixels; of all K images, or of a batch.

    Attributes:
        pose: members (K, ...); that of the fitted shape, where there is one.
        template: (K,) int64 template that the image was matched with.
        category: (K,) int64 position of its dataset in the run's list.
        pinned: (K,) bool, whether the mesh is to stay at its template (semi-supervision).
        shape: (K, M) coefficients of the modes by which the object deviates from its template.
    """

    pose: Pose
    template: Tensor
    category: Tensor
    pinned: Tensor
    shape: Tensor

    def select(self, index: Tensor) -> "Labels":
        """Returns the labels of some images."""
        return Labels(camera.select(self.pose, index), *(member[index] for member in self[1:]))

    def to(self, device: torch.device) -> "Labels":
        """Moves every member to a device."""
        return Labels(camera.to_device(self.pose, device), *(x.to(device) for x in self[1:]))


class Batch(NamedTuple):
    """Crops of a training step, on its device.

    Attributes:
        image: (B, 4, h, h) as in `ObjectImage`.
        parts: (B, P + 1, h, h) part channels with the background first; (B, 0, h, h) if not wanted.
        index: (B,) int64 rows of the labels.
        flip: (B,) bool, images that the network sees mirrored; the mesh of a symmetric object
            stays the same.
    """

    image: Tensor
    parts: Tensor
    index: Tensor  # type: ignore[assignment] - hides tuple.index, which nobody needs
    flip: Tensor


class Vocabulary(NamedTuple):
    """What the inputs and outputs of a network stand for.

    Attributes:
        categories: names of the C categories, by their number.
        part_names: the common part list of all categories without its channel 0 (no part).
        selection: (C, P, Cg) 0 or 1; row p of category c marks its channel in the common list.
        templates: (T, V, 3) of all categories, one after another.
        template_category: (T,) int64 category of each template.
        views: (C, 5) float64 prior of the views of each category, as `data.definitions.ViewPrior`.
    """

    categories: list[str]
    part_names: list[str]
    selection: Tensor
    templates: Tensor
    template_category: Tensor
    views: Tensor


class ReconstructionData(Dataset[ObjectImage]):
    """The images with estimated poses of one dataset, or of several ones after another.

    The part channels of an image are those of its own dataset (background, object without part,
    parts by name), padded with zeros to the largest number; `selection` maps them to the
    channels of the common part list.

    Attributes:
        dataset: its name, or `all`.
        detections: one set per dataset.
        origins: fingerprints of the detections and templates of each dataset.
        part_names: the common part list without its channel 0 (object without part).
        selection: (C, P, Cg) 0 or 1; row p of category c marks the channel of the common list.
        templates: (T, V, 3) of all datasets, one after another.
        template_category: (T,) int64 dataset of each template.
        modes: (T, M, V, 3) by which the objects deviate from the templates; M may be 0.
        labels: of all K images.
        confidence: (K,) probability that the pose of each is right.
    """

    def __init__(
        self,
        dataset: str,
        mode: str,
        size: int,
        *,
        semi_fraction: float,
        parts: bool,
        part: SplitOptions | None = None,
        cache_bytes: int = 0,
        poses_from: str = "estimated",
    ) -> None:
        """Reads detections, poses and templates; the images are read on demand.

        Args:
            dataset: a dataset, or `all`.
            mode: singletpl or multitpl.
            size: resolution of the crops.
            semi_fraction: share of the images of each template that is pinned to it.
            parts: whether part maps are wanted.
            part: which photographs; default all.
            cache_bytes: memory for crops that have been read, over all datasets.
            poses_from: one of pipeline.reconstruction.cameras.sources.SOURCES.

        Raises:
            UserError: if an artifact of an earlier stage is missing, or no photograph is left.
        """
        self.dataset = dataset
        self.detections = [load_detections(name) for name in expand_dataset(dataset)]
        templates = [template_files.templates_of(d, mode) for d in self.detections]
        records = [record_of(d.dataset, d.category) for d in self.detections]
        self._views = torch.tensor([record.views for record in records], dtype=torch.float64)
        # Poses are accepted only for these detections and these templates
        self.origins = [
            pose_files.origin_of(d, t) for d, t in zip(self.detections, templates, strict=True)
        ]
        poses = [
            _select(sources.poses_of(poses_from, d, mode, t), d, part)
            for d, t in zip(self.detections, templates, strict=True)
        ]
        # The memory for crops is shared in proportion to the images
        total = sum(len(p.indices) for p in poses)
        self._images = [
            ObjectImages(
                d,
                size,
                rows=p.indices,
                parts="argmax" if parts else "none",
                cache_bytes=cache_bytes * len(p.indices) // total,
            )
            for d, p in zip(self.detections, poses, strict=True)
        ]
        # One numbering for the images, parts and templates of all datasets
        self._rows = [(k, i) for k, images in enumerate(self._images) for i in range(len(images))]
        self.part_names, self.selection = common_parts([x.part_names for x in self._images])
        self.templates = torch.cat(templates)
        self.template_category = torch.arange(len(templates)).repeat_interleave(
            torch.tensor([len(x) for x in templates])
        )
        self.modes, shape = common_modes(poses, templates)
        # Meshes are pinned to templates where these overlap with the masks, which step 2 knows alone
        fraction = semi_fraction if poses_from == "estimated" else 0.0
        self.labels = _labels(poses, templates, shape, fraction)
        self.confidence = torch.cat([p.confidence[:, 0] for p in poses])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def capacity(self) -> int:
        """Number of crops that can be kept in memory."""
        return sum(images.capacity for images in self._images)

    def __getitem__(self, index: int) -> ObjectImage:
        k, row = self._rows[index]
        item = self._images[k][row]
        # Batches need equal channels, so that datasets with fewer parts are padded
        missing = self.selection.shape[1] + 1 - len(item.parts)
        if len(item.parts) and missing:
            padding = item.parts.new_zeros(missing, *item.parts.shape[1:])
            return ObjectImage(item.image, torch.cat([item.parts, padding]), index)
        return ObjectImage(item.image, item.parts, index)

    @property
    def vocabulary(self) -> Vocabulary:
        """What a network that is trained on the images knows."""
        return Vocabulary(
            [detections.category for detections in self.detections],
            self.part_names,
            self.selection,
            self.templates,
            self.template_category,
            self._views,
        )

    def detection(self, index: int) -> Detection:
        """Returns the detection behind an image."""
        number, row = self.source(index)
        return self.detections[number][row]

    def own_parts(self, number: int) -> list[str]:
        """Returns the names behind channels 2, 3, ... of the part maps of a dataset."""
        return self._images[number].part_names

    def source(self, index: int) -> tuple[int, int]:
        """Returns the number of an image's dataset and its row among the detections."""
        number, item = self._rows[index]
        return number, self._images[number].rows[item]


def common_parts(vocabularies: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """Merges the part names of several categories.

    Args:
        vocabularies: part names of each of C categories.

    Returns:
        All names in order of first appearance, and the selection (C, P, Cg) with P = 1 + the
        largest number of parts and Cg = 1 + the number of names: channel 0 stands for "no part".
    """
    names = list(dict.fromkeys(name for vocabulary in vocabularies for name in vocabulary))
    # Channel 0 means "no part" in every category
    rows = 1 + max(len(vocabulary) for vocabulary in vocabularies)
    selection = torch.zeros(len(vocabularies), rows, 1 + len(names))
    selection[:, 0, 0] = 1
    for table, vocabulary in zip(selection, vocabularies, strict=True):
        for row, name in enumerate(vocabulary, start=1):
            table[row, 1 + names.index(name)] = 1
    return names, selection


def pinned_images(template: Tensor, iou: Tensor, fraction: float) -> Tensor:
    """Marks the images (K,) that overlap best with their template: that share of each template's.

    Args:
        template: (K,) template of each image.
        iou: (K,) overlap of the silhouettes.
        fraction: share in [0, 1].
    """
    pinned = torch.zeros_like(template, dtype=torch.bool)
    # Of each template by itself, so that all of them keep some anchors
    for number in template.unique():
        rows = torch.nonzero(template == number)[:, 0]
        best = iou[rows].argsort(descending=True, stable=True)
        pinned[rows[best[: int(len(rows) * fraction)]]] = True
    return pinned


def endless_batches(
    data: ReconstructionData,
    batch_size: int,
    seed: int,
    num_workers: int,
    device: torch.device,
    step: int,
) -> Generator[Batch]:
    """Yields this process's batches from a step on; balanced over categories if there are several.

    Args:
        data: the images.
        batch_size: images of a step over all processes.
        seed: of the order and the flips.
        num_workers: processes that read; 0 for a thread.
        device: where the batches go.
        step: where to begin.
    """
    # Several datasets are drawn from equally often, whatever their sizes
    several = len(data.detections) > 1
    sampler = StepSampler(
        len(data),
        batch_size,
        seed,
        weights=balanced_weights(data.labels.category) if several else None,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        start_step=step,
    )
    with closing(load_batches(data, sampler, num_workers)) as loaded:
        for number, batch in zip(itertools.count(step), loaded, strict=False):
            members = (*batch, sampler.coins(number))
            yield Batch(*(x.to(device, non_blocking=True) for x in members))


def common_modes(
    poses: Sequence[pose_files.EstimatedPoses], templates: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Joins the modes of shape of several datasets, padded with zeros to the largest number M.

    Args:
        poses: of each dataset.
        templates: (T, V, 3) of each dataset.

    Returns:
        The modes (T, M, V, 3) of all templates, and the coefficients (K, M) of all images.
    """
    modes, coefficients = [], []
    for some, vertices in zip(poses, templates, strict=True):
        count, size = vertices.shape[:2]
        found = some.shapes
        modes.append(vertices.new_zeros(count, 0, size, 3) if found is None else found.modes)
        none = some.iou.new_zeros(len(some.iou), 0)
        coefficients.append(none if found is None else found.coefficients)
    # Modes that a dataset lacks move nothing
    most = max(x.shape[1] for x in coefficients)
    return (
        torch.cat([F.pad(x, (0, 0, 0, 0, 0, most - x.shape[1])) for x in modes]),
        torch.cat([F.pad(x, (0, most - x.shape[1])) for x in coefficients]),
    )


def _select(
    poses: pose_files.EstimatedPoses, detections: Detections, part: SplitOptions | None
) -> pose_files.EstimatedPoses:
    """Returns the poses of a part of the photographs; UserError if there are none."""
    if part is None or part.split == "all":
        return poses
    index = torch.nonzero(part_of(detections, part)[poses.indices])[:, 0]
    if not len(index):
        count = f"{len(poses.indices)} photographs with poses"
        raise UserError(
            f"--split {part.split}: none of the {count} of {detections.dataset} belongs to it."
        )
    return poses.select(index)


def _labels(
    poses: Sequence[pose_files.EstimatedPoses],
    templates: Sequence[Tensor],
    shape: Tensor,
    fraction: float,
) -> Labels:
    # Templates are numbered through, those of each dataset after those before
    first = 0
    chosen, categories = [], []
    for number, (poses_of_one, templates_of_one) in enumerate(zip(poses, templates, strict=True)):
        chosen.append(poses_of_one.template_weights.argmax(1) + first)
        categories.append(torch.full_like(chosen[-1], number))
        first += len(templates_of_one)
    template = torch.cat(chosen)
    iou = torch.cat([(p.iou if p.shapes is None else p.shapes.iou)[:, 0] for p in poses])
    return Labels(
        pose=camera.concatenate([p.fitted_pose for p in poses]),
        template=template,
        category=torch.cat(categories),
        pinned=pinned_images(template, iou, fraction),
        shape=shape,
    )
