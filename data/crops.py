"""Square crops of objects: colors, mask and part segmentation at the resolution of a stage."""

import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.definitions import PART_NAMES
from data.detections import Detection, Detections
from data.image_files import read_photograph
from data.run_lengths import Box4, decode_mask
from utils.cli import UserError

PADDING = 0.05  # of the bounding box, on each side
MIN_FREQUENCY = 0.25  # rarer parts are left out
LARGE = 4  # pixels of a photograph for each of its image, from where on it is filtered
_UNLABELED = 1e-8  # weight of "no part" beside the score of a part

PartMaps = Literal["none", "scores", "argmax"]


class Box(NamedTuple):
    """Square of whole pixels; it may reach beyond the image.

    Attributes:
        x: left edge, pixels.
        y: top edge, pixels.
        side: width and height, pixels.
    """

    x: int
    y: int
    side: int


class ObjectImage(NamedTuple):
    """One object (or, collated, a batch with B in front).

    Attributes:
        image: (4, h, w) RGB in [-1, 1] multiplied by the mask, and the mask in [0, 1].
        parts: (K + 2, h, w) background, object without part, parts; (0, h, w) if not asked for.
        index: position in the dataset.
    """

    image: Tensor
    parts: Tensor
    index: int  # type: ignore[assignment] - hides tuple.index, which nobody needs


def square_box(bbox: Box4) -> Box:
    """Returns the square around a bounding box (ends included) with 5 % padding on every side."""
    x1, y1, x2, y2 = bbox
    pad_x, pad_y = PADDING * (x2 - x1 + 1), PADDING * (y2 - y1 + 1)
    left, right = round(x1 - pad_x), round(x2 + pad_x)
    top, bottom = round(y1 - pad_y), round(y2 + pad_y)
    width, height = right - left + 1, bottom - top + 1
    # A square about the same center, rounded to whole pixels
    side = max(width, height)
    return Box(left - round((side - width) / 2), top - round((side - height) / 2), side)


def to_pixels(screen: Tensor, box: Box) -> Tensor:
    """Maps screen coordinates (..., 2), y up in [-1, 1], to pixels of the image, y down.

    The center of the pixel in column i has the coordinate i + 0.5.
    """
    x, y = screen.unbind(-1)
    return torch.stack([box.x + (1 + x) / 2 * box.side, box.y + (1 - y) / 2 * box.side], dim=-1)


def from_pixels(pixels: Tensor, box: Box) -> Tensor:
    """Maps pixels (..., 2) of the image to screen coordinates: the inverse of `to_pixels`."""
    x, y = pixels.unbind(-1)
    return torch.stack([(x - box.x) / box.side * 2 - 1, 1 - (y - box.y) / box.side * 2], dim=-1)


def part_vocabulary(detections: Detections, rows: Sequence[int] | None = None) -> list[str]:
    """Returns the sorted names of the frequent parts of a dataset, or of some rows of it."""
    items = detections.items if rows is None else [detections[row] for row in rows]
    parts = (part for item in items for part in item.parts)
    return sorted({part.name for part in parts if part.frequency >= MIN_FREQUENCY})


def object_image(detection: Detection, size: int, *, antialias: bool = False) -> Tensor:
    """Returns the exact crop (4, size, size): premultiplied RGB in [-1, 1], mask in [0, 1].

    Args:
        detection: the object; its photograph is read from the disk.
        size: resolution.
        antialias: filters before shrinking; off as in the published system.
    """
    return _premultiply(_crop_colors(detection, size, antialias))


def part_scores(detection: Detection, part_names: Sequence[str], box: Box) -> np.ndarray:
    """Returns soft part maps (K + 2, side, side) of a crop, weighted by the scores of the parts.

    Every part writes its score over its mask; the channels of a pixel add up to 1.
    """
    mask = _crop(decode_mask(detection.mask), box, fill=0)
    maps = np.zeros((len(part_names) + 2, box.side, box.side), np.float32)
    # "No part" has a little weight, which the score of any part exceeds
    maps[0], maps[1] = _UNLABELED * ~mask, _UNLABELED * mask
    for part in detection.parts:
        if part.name in part_names:
            region = _crop(decode_mask(part.mask), box, fill=0)
            maps[2 + part_names.index(part.name)][region] = part.score
    return maps / maps.sum(axis=0)


def part_labels(detection: Detection, part_names: Sequence[str], box: Box) -> np.ndarray:
    """Returns hard part maps (K + 2, side, side) of a crop, one-hot.

    Inside the object, the part that comes last in `PART_NAMES` wins; in a collection with names of
    its own, the one that comes last in its parts.json.
    """
    labels = _crop(decode_mask(detection.mask), box, fill=0).astype(np.int64)
    inside = labels > 0
    # Parts are painted in the order of priority, later ones over earlier ones
    wanted = [part for part in detection.parts if part.name in part_names]
    if set(part_names) <= set(PART_NAMES):
        wanted.sort(key=lambda part: PART_NAMES.index(part.name))
    for part in wanted:
        region = _crop(decode_mask(part.mask), box, fill=0) & inside
        labels[region] = 2 + part_names.index(part.name)
    return (labels == np.arange(len(part_names) + 2)[:, None, None]).astype(np.float32)


def network_input(pixels: np.ndarray, size: int) -> Tensor:
    """Returns the image (4, size, size) that networks see of an object, as `ObjectImages` gives it.

    Args:
        pixels: (side, side, 4) uint8, from `cut_out`.
        size: resolution.
    """
    # Much larger photographs than a collection has are filtered, or noise would be all that is seen
    colors = resize_crop(pixels, size, antialias=len(pixels) > LARGE * size)
    return _premultiply(_to_bytes(colors).float() / 255)


class ObjectImages(Dataset[ObjectImage]):
    """The crops of a dataset's objects, in the order of the rows.

    Colors, masks and part maps are rounded to 8 bits, kept in memory or not, so that the cache
    changes nothing but the time. A crop in it takes 4 size^2 bytes and a little for its part maps;
    it fills up in the process that reads (use no worker processes with it).

    Attributes:
        capacity: number of crops that the cache has room for.
    """

    def __init__(
        self,
        detections: Detections,
        size: int,
        *,
        rows: Sequence[int] | Tensor | None = None,
        parts: PartMaps = "none",
        part_names: Sequence[str] | None = None,
        cache_bytes: int = 0,
        antialias: bool = False,
    ) -> None:
        """Chooses rows and resolution; reads nothing yet.

        Args:
            detections: all objects.
            size: resolution of the crops.
            rows: rows to use, such as the indices of the estimated poses; default all.
            parts: "scores" for soft part maps, "argmax" for one-hot ones (both softened by resizing).
            part_names: channels of the part maps; default the frequent parts of the rows.
            cache_bytes: memory for crops that have been read; those beyond it are read again.
            antialias: filters before shrinking; off as in the published system.

        Raises:
            UserError: if there are not that many objects.
        """
        self.detections = detections
        self.size = size
        self.rows = list(range(len(detections))) if rows is None else [int(row) for row in rows]
        # Poses of other detections would quietly show other objects
        if max(self.rows, default=0) >= len(detections) > 0:
            raise UserError(
                f"{detections.dataset} has {len(detections)} objects, but poses refer to row "
                f"{max(self.rows)}. Poses and detections do not belong together: get both again."
            )
        self.parts: PartMaps = parts
        self.part_names = list(part_names or part_vocabulary(detections, self.rows))
        self.antialias = antialias
        self.capacity = min(len(self.rows), cache_bytes // (4 * size**2))
        # One block, whose pages are allocated as they are filled: many small ones would fragment
        self._colors = torch.from_numpy(np.zeros((self.capacity, 4, size, size), np.uint8))
        self._slots: dict[int, int] = {}
        self._maps: list[bytes] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ObjectImage:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in 0..{len(self) - 1}")
        colors, maps = self._entry(index)
        return ObjectImage(_premultiply(colors.float() / 255), maps.float() / 255, index)

    def box(self, index: int) -> Box:
        """Returns the crop of an item in pixels of its photograph."""
        return square_box(self.detections[self.rows[index]].bbox)

    def _entry(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns 8-bit colors and mask (4, h, w), and part maps (P, h, w)."""
        if index in self._slots:
            slot = self._slots[index]
            return self._colors[slot], self._unpack(self._maps[slot])
        detection = self.detections[self.rows[index]]
        colors = _to_bytes(_crop_colors(detection, self.size, self.antialias))
        maps = self._part_maps(detection)
        # The cache fills in the order of reading, and drops nothing
        if len(self._slots) < self.capacity:
            slot = self._slots[index] = len(self._slots)
            self._colors[slot] = colors
            self._maps.append(zlib.compress(maps.numpy().tobytes(), 1))
        return colors, maps

    def _part_maps(self, detection: Detection) -> Tensor:
        if self.parts == "none":
            return torch.zeros(0, self.size, self.size, dtype=torch.uint8)
        paint = part_scores if self.parts == "scores" else part_labels
        maps = torch.from_numpy(paint(detection, self.part_names, square_box(detection.bbox)))
        return _to_bytes(_resize(maps, self.size, self.antialias))

    def _unpack(self, maps: bytes) -> Tensor:
        count = 0 if self.parts == "none" else -1
        values = np.frombuffer(bytearray(zlib.decompress(maps)), np.uint8)
        return torch.from_numpy(values.reshape(count, self.size, self.size))


def _crop_colors(detection: Detection, size: int, antialias: bool) -> Tensor:
    """Returns colors and mask (4, size, size) in [0, 1]; white beyond the image."""
    mask = decode_mask(detection.mask)
    pixels = cut_out(detection_photograph(detection), mask, square_box(detection.bbox))
    return resize_crop(pixels, size, antialias)


def detection_photograph(detection: Detection) -> np.ndarray:
    """Reads the photograph (h, w, 3) uint8 of an object.

    Raises:
        UserError: if it is unreadable, or another one than at its preparation.
    """
    photograph = read_photograph(detection.image_path)
    # Boxes and masks are in pixels of the photograph as it was prepared
    if photograph.shape[:2] != (detection.height, detection.width):
        got = f"{photograph.shape[1]} x {photograph.shape[0]}"
        raise UserError(
            f"{detection.image_path}: expected {detection.width} x {detection.height} pixels as at "
            f"its preparation, got {got}. Prepare the dataset again."
        )
    return photograph


def cut_out(
    photograph: np.ndarray, mask: np.ndarray, box: Box, largest: int | None = None
) -> np.ndarray:
    """Cuts a square out of a photograph; the colors of the background stay.

    Args:
        photograph: (h, w, 3) uint8.
        mask: (h, w) bool.
        box: the square.
        largest: side to which larger squares are filtered and shrunk; None keeps their pixels.

    Returns:
        (side, side, 4) uint8 RGB and mask, 255 = object; white beyond the photograph.
    """
    colors = _crop(photograph, box, fill=255)
    inside = _crop(mask, box, fill=0).astype(np.uint8) * np.uint8(255)
    if largest is None or box.side <= largest:
        return np.dstack([colors, inside])
    # Colors and mask apart, or the background would take the colors of the object
    small = (
        Image.fromarray(part).resize((largest, largest), Image.Resampling.BILINEAR)
        for part in (colors, inside)
    )
    return np.dstack([np.asarray(part) for part in small])


def resize_crop(pixels: np.ndarray, size: int, antialias: bool = True) -> Tensor:
    """Resizes RGB and mask (side, side, 4) uint8 to (4, size, size) in [0, 1].

    Args:
        pixels: from `cut_out`.
        size: resolution.
        antialias: filters before shrinking.
    """
    # Colors and mask are resized together, so that their edges agree
    scaled = torch.from_numpy(pixels.astype(np.float32) / 255)
    return _resize(scaled.permute(2, 0, 1), size, antialias)


def _crop(array: np.ndarray, box: Box, fill: int) -> np.ndarray:
    """Cuts a box out of an array (h, w, ...), with `fill` beyond its borders."""
    height, width = array.shape[:2]
    out = np.full((box.side, box.side, *array.shape[2:]), fill, array.dtype)
    # The part of the box that lies inside the array
    top, bottom = max(box.y, 0), min(box.y + box.side, height)
    left, right = max(box.x, 0), min(box.x + box.side, width)
    if top < bottom and left < right:
        target = out[top - box.y : bottom - box.y, left - box.x : right - box.x]
        target[...] = array[top:bottom, left:right]
    return out


def _resize(maps: Tensor, size: int, antialias: bool) -> Tensor:
    """Resizes (C, h, w) bilinearly to (C, size, size).

    In float64: single precision misplaces the samples by some 1e-5 of a pixel.
    """
    wide = maps.double()[None]
    return F.interpolate(wide, (size, size), mode="bilinear", antialias=antialias)[0].float()


def _premultiply(colors: Tensor) -> Tensor:
    """Turns RGB and mask (4, h, w) in [0, 1] into (2 RGB - 1) * mask, and mask."""
    rgb, mask = colors[:3], colors[3:]
    return torch.cat([(2 * rgb - 1) * mask, mask])


def _to_bytes(values: Tensor) -> Tensor:
    return (values * 255).round().clamp(0, 255).to(torch.uint8)
