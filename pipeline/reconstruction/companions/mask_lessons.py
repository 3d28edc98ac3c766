"""How the mask head learns: from the photographs of a batch with their backgrounds, cut out at random.

It learns beside the mesh estimator with an optimizer of its own: the mesh estimator does not depend
on it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from data.crops import Box, cut_out, detection_photograph, resize_crop, square_box
from data.detections import Detection
from data.run_lengths import decode_mask
from models.companions.mask_head import INPUT_SIZE, MaskHead
from models.warping import recolor
from pipeline.reconstruction.companions.lessons import Draws
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import ReconstructionData
from utils import distributed, seeding, training
from utils.training import Term

KEY = "mask_head"  # of the entry in checkpoints and model files
RATE = 2e-3  # of Adam, in the first quarter of a run
REACH = 2.5  # side of the largest window beside that of the object's crop
REGION_SIZE = 160  # pixels of a photograph around its object that are kept
JITTER = 0.15  # of the crop, by which windows are off the object at least, at most
MEMORY_SHARE = 8  # times as much memory for crops as for photographs


class Regions:
    """The photographs of a collection around their objects, with masks; they are read on demand."""

    def __init__(self, detection: Callable[[int], Detection], memory: int) -> None:
        """Reads nothing yet.

        Args:
            detection: returns the object of a row.
            memory: bytes for what has been read; what does not fit is read again.
        """
        self._detection = detection
        self._capacity = memory // (4 * REGION_SIZE**2)
        self._kept: dict[int, Tensor] = {}

    def __getitem__(self, row: int) -> Tensor:
        """Returns RGB and mask (4, REGION_SIZE, REGION_SIZE) uint8; white beyond the photograph."""
        if row in self._kept:
            return self._kept[row]
        detection = self._detection(row)
        box = grown(square_box(detection.bbox), REACH)
        pixels = cut_out(detection_photograph(detection), decode_mask(detection.mask), box, 2 * REGION_SIZE)  # fmt: skip
        region = (resize_crop(pixels, REGION_SIZE) * 255).round().to(torch.uint8)
        if len(self._kept) < self._capacity:
            self._kept[row] = region
        return region


def grown(box: Box, factor: float) -> Box:
    """Returns a square of another size about the same center."""
    side = round(box.side * factor)
    return Box(box.x - (side - box.side) // 2, box.y - (side - box.side) // 2, side)


class MaskLessons:
    """A step of the mask head's training."""

    def __init__(
        self, head: MaskHead, regions: Regions, category: Tensor, *, weight: float, seed: int
    ) -> None:
        """Collects what all steps share.

        Args:
            head: is changed by every step.
            regions: of all K photographs.
            category: (K,) int64 theirs.
            weight: of the overlap beside the cross entropy.
            seed: of all random numbers.
        """
        self.head, self.regions, self.category = head, regions, category
        self.optimizer = torch.optim.Adam(head.parameters(), lr=RATE)
        self.weight, self.seed = weight, seed

    @property
    def members(self) -> dict[str, training.Stateful]:
        """What changes, by its name in a checkpoint."""
        return {KEY: self.head, f"{KEY}_optimizer": self.optimizer}

    def __call__(self, step: int, index: Tensor, rate: float) -> dict[str, Tensor]:
        """Updates the head once and returns its detached losses.

        Args:
            step: number of steps made before this one.
            index: (B,) rows of the photographs.
            rate: share of the learning rate, 1 at first.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * rate
        draws = Draws(seeding.torch_generator(self.seed, KEY, step), index.float())
        regions = torch.stack([self.regions[row] for row in index.tolist()]).to(index.device)
        image, mask = windows(regions.float() / 255, draws)
        self.head.train()
        terms = compute_terms(self.head(image, self.category[index]), mask, self.weight)
        self.optimizer.zero_grad(set_to_none=True)
        training.weighted_sum(terms).backward()
        distributed.average_gradients(self.head.parameters())
        self.optimizer.step()
        return {f"{KEY}_{name}": value for name, value in training.values(terms).items()}


def windows(regions: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Cuts windows out of regions (B, 4, r, r) in [0, 1]: whole objects, small or large, or parts of them.

    Returns:
        colors (B, 3, INPUT_SIZE, INPUT_SIZE) in [-1, 1], and masks (B, 1, INPUT_SIZE, INPUT_SIZE).
    """
    numbers = draws.uniform(8)
    # Half of the windows have the object inside, the others anything within the region
    size = REACH ** numbers[:, :1]
    inside = (size - 1) / 2 + JITTER
    free = torch.where(numbers[:, 1:2] < 0.5, inside, (REACH - size) / 2 + JITTER)
    center = (2 * numbers[:, 2:4] - 1) * free
    # In positions of the region, which spans REACH crops; half are mirrored
    scale = size / REACH
    mirrored = torch.where(numbers[:, 4:5] < 0.5, -scale, scale)
    zero = torch.zeros_like(scale)
    rows = (mirrored, zero, 2 * center[:, :1] / REACH, zero, scale, 2 * center[:, 1:] / REACH)
    affine = torch.cat(rows, dim=1).unflatten(1, (2, 3))
    shape = [len(regions), 4, INPUT_SIZE, INPUT_SIZE]
    grid = F.affine_grid(affine, shape, align_corners=False)
    # Beyond the region there is white, as beyond the photograph
    cut = F.grid_sample(torch.cat([1 - regions[:, :3], regions[:, 3:]], dim=1), grid, align_corners=False)  # fmt: skip
    colors, mask = 1 - 2 * cut[:, :3], cut[:, 3:]
    everything = torch.cat([colors, torch.ones_like(mask)], dim=1)
    return recolor(everything, numbers[:, 5:])[:, :3].clamp(-1, 1), mask


def compute_terms(logits: Tensor, mask: Tensor, weight: float) -> dict[str, Term]:
    """Compares masks (B, 1, h, w) with what was estimated: cross entropy, and one minus the overlap."""
    probability = logits.sigmoid()
    both = (probability * mask).sum((1, 2, 3))
    either = (probability + mask - probability * mask).sum((1, 2, 3))
    # A pixel of overlap for windows without object
    overlap = (both + 1) / (either + 1)
    return {
        "entropy": Term(F.binary_cross_entropy_with_logits(logits, mask)),
        "overlap": Term((1 - overlap).mean(), weight),
    }


def make_mask_lessons(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device
) -> MaskLessons | None:
    """Returns how a run teaches its mask head, whose weights are a function of the seed; None without."""
    weight = config.optimizer.mask_weight
    if not weight:
        return None
    seeding.seed_everything(config.seed, KEY)
    head = MaskHead(len(data.detections)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return MaskLessons(
        head.to(device),
        Regions(data.detection, config.data.cache_bytes // MEMORY_SHARE),
        data.labels.category.to(device),
        weight=weight,
        seed=config.seed,
    )
