"""Images of objects that are seen from several sides, and which of them a step looks at."""

import itertools
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.crops import PADDING, Box
from data.detections import Detection, load_detections
from data.image_files import read_photograph
from data.multiview.objects import Object, load_objects
from data.run_lengths import decode_mask
from data.samplers import StepSampler
from utils import distributed
from utils.cli import UserError
from utils.progress import progress
from utils.seeding import torch_generator

MAX_VIEWS = 5  # of an object in a step
USUAL_SHARE = 0.75  # of the side of a picture, the larger side of an object
COLOR_SPREAD, MAX_SHIFT = 0.4, 0.04  # of gains of colors; of shifts, in sides of the image
PARTS = {"train": ("train",), "test": ("valid",), "all": ("train", "valid")}


class Batch(NamedTuple):
    """V views of each of B objects; the first ones are those that the points come from.

    Attributes:
        image: (B, V, 4, h, h), colors in [-1, 1] times the mask, then the mask; augmented.
        mask: (B, V, h, h) of the views, where the camera sees them.
        row: (B, V) int64, positions of the views in `PointData.images`.
        mirrored: (B,) whether the views of an object are mirror images.
    """

    image: Tensor
    mask: Tensor
    row: Tensor
    mirrored: Tensor


class PointData:
    """Objects of a part of a collection, with their images in memory.

    Attributes:
        objects: rows of each are positions in `images`.
        images: (N, 4, h, h) uint8 color and mask.
        detections: of the whole collection.
        source: (N,) rows of the images in the detections.
    """

    def __init__(self, dataset: str, part: str, size: int) -> None:
        """Reads the images.

        Args:
            dataset: prepared renderings.
            part: "train", "test" or "all".
            size: h, to which images are resized.

        Raises:
            UserError: if the collection is not prepared, or has too few views of each object.
        """
        self.detections = load_detections(dataset)
        found = [o for o in load_objects(self.detections, 2) if o.part in PARTS[part]]
        if not found:
            raise UserError(f"{dataset}: no object of part {part} has two views that can be used.")
        self.source = torch.tensor([row for each in found for row in each.rows])
        position = itertools.count()
        self.objects = [each._replace(rows=[next(position) for _ in each.rows]) for each in found]
        items = [self.detections[int(row)] for row in self.source]
        self.images = torch.stack(
            [_read(item, size) for item in progress(items, description="images")]
        )

    def select(self, rows: Tensor) -> Tensor:
        """Returns images (..., 4, h, h) of rows (...) as the network takes them."""
        return to_input(self.images[rows])


def to_input(pixels: Tensor) -> Tensor:
    """Turns uint8 colors and masks (..., 4, h, h) into what the network takes."""
    values = pixels.float() / 255
    mask = values[..., 3:, :, :]
    return torch.cat([(2 * values[..., :3, :, :] - 1) * mask, mask], dim=-3)


def _read(item: Detection, size: int) -> Tensor:
    if item.height != item.width:
        raise UserError(
            f"{item.image_path}: has {item.width} x {item.height} pixels, expected a square: all views "
            "have the same camera but for its position."
        )
    return to_pixels(read_photograph(item.image_path), decode_mask(item.mask), size)


def to_pixels(colors: np.ndarray, mask: np.ndarray, size: int) -> Tensor:
    """Resizes colors (h, h, 3) uint8 and their mask (h, h) to (4, size, size) uint8."""
    alpha = torch.from_numpy(mask.astype(np.float32))
    image = torch.from_numpy(colors.astype(np.float32)).permute(2, 0, 1) * alpha
    layers = torch.cat([image, 255 * alpha[None]])[None]
    small = F.interpolate(layers, (size, size), mode="bilinear", antialias=True)[0]
    # Colors of pixels at the border are means over what belongs to the object
    share = (small[3:] / 255).clamp(min=1e-3)
    return torch.cat([small[:3] / share, small[3:]]).clamp(0, 255).round().to(torch.uint8)


def framed(pixels: np.ndarray, box: Box, size: int, whole: int | None) -> Tensor:
    """Returns the picture (4, size, size) uint8 that a camera of renderings would take of an object.

    Args:
        pixels: (side, side, 4) uint8, color and mask within the box.
        box: of the object and its padding, in pixels of its photograph.
        size: of the picture.
        whole: side of the photograph, if that is the picture; None brings the object to the usual size.
    """
    # Paste the box into an empty picture, both with the pixels of the box
    scale = len(pixels) / box.side
    side = round(scale * (box.side / (1 + 2 * PADDING) / USUAL_SHARE if whole is None else whole))
    first = [round(scale * x) for x in (box.y, box.x)] if whole else [(side - len(pixels)) // 2] * 2
    canvas = np.zeros((side, side, 4), np.uint8)
    target = tuple(slice(max(0, x), max(0, x + len(pixels))) for x in first)
    source = tuple(slice(max(0, -x), max(0, side - x)) for x in first)
    canvas[target] = pixels[source]
    return to_pixels(canvas[..., :3], canvas[..., 3] > 127, size)


def batches(
    data: PointData, batch_size: int, seed: int, device: torch.device, step: int
) -> Generator[Batch]:
    """Yields this process's batches from a step on.

    Args:
        data: the objects.
        batch_size: objects of a step over all processes.
        seed: of their order, the choice of views, and the augmentation.
        device: where the batches go.
        step: where to begin.
    """
    rank, processes = distributed.rank(), distributed.world_size()
    sampler = StepSampler(len(data.objects), batch_size, seed, rank=rank, world_size=processes)
    number = num_views(data.objects)
    for at in itertools.count(step):
        drawn = [_draw(data, data.objects[i], number, seed, at) for i in sampler.batch(at)]
        yield Batch(*(torch.stack(x).to(device) for x in zip(*drawn, strict=True)))


def num_views(objects: Sequence[Object]) -> int:
    """Returns how many views of each object a step looks at."""
    return min(MAX_VIEWS, *(len(each.rows) for each in objects))


def _draw(data: PointData, chosen: Object, count: int, seed: int, step: int) -> Batch:
    """Returns different views of an object, without the first axis; a function of its name and the step."""
    generator = torch_generator(seed, "views", step, chosen.name)
    row = torch.tensor(chosen.rows)[torch.randperm(len(chosen.rows), generator=generator)[:count]]
    image = data.select(row)
    # Mirrored pictures of all sides show another object, the mirror image
    mirrored = torch.rand((), generator=generator) < 0.5
    if mirrored:
        image = image.flip(-1)
    return Batch(augment(image, generator), image[:, 3], row, mirrored)


def augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Varies the colors of an object and shifts its views (V, 4, h, h) a little, masks with them.

    Hues stay about the same: red lamps tell the rear of a car.
    """
    gain = 1 + COLOR_SPREAD * (2 * torch.rand(3, 1, 1, generator=generator) - 1)
    painted = torch.cat([(image[:, :3] * gain).clamp(-1, 1), image[:, 3:]], dim=1)
    reach = round(MAX_SHIFT * image.shape[-1])
    # Rows and columns that leave at one side are empty, and enter at the other
    moves = torch.randint(-reach, reach + 1, (len(image), 2), generator=generator).tolist()
    return torch.stack(
        [view.roll(move, (-2, -1)) for view, move in zip(painted, moves, strict=True)]
    )
