"""The object in a photograph without mask, found by the mask head of a model, from coarse to fine.

The head sees squares: the whole photograph, and smaller ones all over it, since an object may be much
smaller than its photograph. The most promising squares move onto what was found in them.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor

from data.crops import Box, cut_out, resize_crop, square_box
from data.image_files import UnreadablePicture
from data.run_lengths import mask_box
from models.companions.mask_head import INPUT_SIZE, MaskHead, estimate_masks

ESTIMATED_MASK = "mask.png"  # in the folder of the photograph
SIZE = 640  # pixels of the longer side in which objects are looked for
SHARES = (1, 2, 4)  # of the longer side in the side of a square
PROMISING = 6  # squares that move on
MOVES = 3
MARGIN = 1.3  # side of a square beside that of the crop of what was found in it
AREA_POWER = 0.25  # of the area beside the certainty, by which squares are ranked
# Below which nothing was found: 2 of 16 unseen horses, both outlined wrongly, and 14 of 18 photographs of
# cars, in which a head of horses looked for horses
LEAST_CERTAINTY = 0.65


class MaskFinder(NamedTuple):
    """The mask head of a model in use on photographs of one of its categories.

    Attributes:
        head: in evaluation mode.
        category: number of the category.
        name: its name.
    """

    head: MaskHead
    category: int
    name: str

    def find(self, path: Path, photograph: np.ndarray) -> tuple[np.ndarray, str]:
        """Finds the object in a photograph (h, w, 3) uint8.

        Returns:
            Its mask (h, w) bool, and a warning that begins after the path.

        Raises:
            UnreadablePicture: if the head sees none.
        """
        mask, certainty = find_mask(self.head, self.category, photograph)
        if not mask.any():
            raise UnreadablePicture(
                path,
                f"has no mask, and the model sees no {self.name} in it (certainty {certainty:.2f}, "
                f"expected {LEAST_CERTAINTY:g}): give one with --mask",
            )
        text = "has no mask: the model takes what it sees as the object (certainty {:.2f}). Look at {}, and correct it for --mask"
        return mask, text.format(certainty, ESTIMATED_MASK)


class Sighting(NamedTuple):
    """What the head sees in a square of a photograph.

    Attributes:
        box: the square, in pixels.
        probability: (INPUT_SIZE, INPUT_SIZE) that a place belongs to the object.
        certainty: in [0, 1], the overlap of the mask with its probabilities.
        area: of the mask, in pixels of the photograph.
    """

    box: Box
    probability: Tensor
    certainty: float
    area: float

    @property
    def rank(self) -> float:
        """How promising it is."""
        return self.certainty * self.area**AREA_POWER


def find_mask(head: MaskHead, category: int, photograph: np.ndarray) -> tuple[np.ndarray, float]:
    """Finds the object in a photograph.

    Args:
        head: in evaluation mode.
        category: its number.
        photograph: (h, w, 3) uint8.

    Returns:
        The mask (h, w) bool, in one piece, empty if nothing was found; and its certainty in [0, 1].
    """
    height, width = photograph.shape[:2]
    factor = min(1.0, SIZE / max(height, width))
    small = _resized(photograph, round(height * factor), round(width * factor))
    # The squares in which most was seen move on, those that have met count once
    seen = look(head, category, small, squares(*small.shape[:2]))
    best = sorted(seen, key=lambda sighting: -sighting.rank)[:PROMISING]
    for _ in range(MOVES):
        boxes = list(dict.fromkeys(moved(sighting) for sighting in best if sighting.area))
        best = look(head, category, small, boxes)
    found = max(best, key=lambda sighting: sighting.rank, default=None)
    if found is None or found.certainty < LEAST_CERTAINTY:
        return np.zeros((height, width), bool), 0.0 if found is None else found.certainty
    return _mask(found, factor, height, width), found.certainty


def squares(height: int, width: int) -> list[Box]:
    """Returns squares all over a photograph that overlap by half, of a few sizes."""
    longer, boxes = max(height, width), []
    for share in SHARES:
        side = longer // share
        for y in _starts(height, side):
            boxes += [Box(x, y, side) for x in _starts(width, side)]
    return boxes


def _starts(length: int, side: int) -> list[int]:
    """Returns where squares begin that cover a length evenly, each half of the one before."""
    count = max(1, -(-2 * (length - side) // side) + 1)
    if count == 1:
        return [(length - side) // 2]
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def look(head: MaskHead, category: int, photograph: np.ndarray, boxes: list[Box]) -> list[Sighting]:
    """Returns what the head sees in squares of a photograph (h, w, 3) uint8."""
    if not boxes:
        return []
    inside = np.ones(photograph.shape[:2], bool)
    pixels = [cut_out(photograph, inside, box, 4 * INPUT_SIZE) for box in boxes]
    crops = torch.stack([resize_crop(x, INPUT_SIZE) for x in pixels])
    device = next(head.parameters()).device
    numbers = torch.full((len(boxes),), category, device=device)
    found = estimate_masks(head, 2 * crops[:, :3].to(device) - 1, numbers).cpu()
    # Nothing lies beyond the photograph
    return [_sighting(box, x[0]) for box, x in zip(boxes, found * crops[:, 3:], strict=True)]


def _sighting(box: Box, probability: Tensor) -> Sighting:
    mask = torch.from_numpy(largest_piece((probability > 0.5).numpy()))
    either = probability.maximum(mask.float()).sum().clamp(min=1e-6)
    certainty = float((probability * mask).sum() / either)
    area = float(mask.sum()) * (box.side / INPUT_SIZE) ** 2
    return Sighting(box, probability * mask, certainty, area)


def moved(sighting: Sighting) -> Box:
    """Returns the square around what was seen."""
    scale = sighting.box.side / INPUT_SIZE
    x1, y1, x2, y2 = mask_box((sighting.probability > 0.5).numpy())
    crop = square_box((x1, y1, x2, y2))
    side = max(1, round(MARGIN * crop.side * scale))
    center_x, center_y = (sighting.box.x + (crop.x + crop.side / 2) * scale, sighting.box.y + (crop.y + crop.side / 2) * scale)  # fmt: skip
    return Box(round(center_x - side / 2), round(center_y - side / 2), side)


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Returns the largest piece of a mask (h, w) bool."""
    labels, count = ndimage.label(mask)  # type: ignore[misc] - two values without output=
    if count < 2:
        return mask
    piece: np.ndarray = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return piece


def _mask(sighting: Sighting, factor: float, height: int, width: int) -> np.ndarray:
    """Returns what was seen as a mask (h, w) of the photograph, which was shrunk by a factor."""
    # Probabilities where the pixels of the photograph are
    box = sighting.box
    x = ((torch.arange(width) + 0.5) * factor - box.x) / box.side * 2 - 1
    y = ((torch.arange(height) + 0.5) * factor - box.y) / box.side * 2 - 1
    columns, rows = x.abs() < 1, y.abs() < 1
    where = torch.stack(torch.meshgrid(x[columns], y[rows], indexing="xy"), dim=-1)
    inside = F.grid_sample(sighting.probability[None, None], where[None], align_corners=False)
    mask = np.zeros((height, width), bool)
    mask[np.ix_(rows.numpy(), columns.numpy())] = (inside[0, 0] > 0.5).numpy()
    return largest_piece(mask)


def _resized(photograph: np.ndarray, height: int, width: int) -> np.ndarray:
    picture = Image.fromarray(photograph)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
