"""Masks made by this program: their PNG files record the source and, if nothing was found, why."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data.image_files import FORMATS, UnreadablePicture, read_mask_numbers
from utils.files import atomic_path

_OWN = "not made here"


class MadeMask(NamedTuple):
    """What is known of a mask file.

    Attributes:
        origin: identifies the source and its options; something else for files of other programs,
            and for those that were changed since.
        reason: why there is no object; "" if there is one.
        empty: whether no pixel is above 0.
    """

    origin: str
    reason: str
    empty: bool


def write_made_mask(path: Path, made: MadeMask, mask: np.ndarray) -> None:
    """Writes a mask (h, w) bool with its origin."""
    pixels = np.where(mask, 255, 0).astype(np.uint8)
    info = PngInfo()
    info.add_itxt("Origin", made.origin)
    info.add_itxt("Reason", made.reason)
    info.add_itxt("Pixels", _digest(pixels))
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, pnginfo=info)


def read_made_mask(path: Path) -> MadeMask | None:
    """Returns what is known of a mask file; None if there is none.

    A file that cannot be read counts as one of another program, and the preparation reports it.
    """
    try:
        values = read_mask_numbers(path).values
        with Image.open(path, formats=FORMATS) as picture:
            texts = {key: str(value) for key, value in picture.info.items()}
    except UnreadablePicture:
        return MadeMask(_OWN, "", empty=False) if path.exists() else None
    # The texts survive a change of the pixels in some programs, their digest does not
    empty = not values.any()
    made = values.dtype == np.uint8 and texts.get("Pixels") == _digest(values)
    if not made or "Origin" not in texts:
        return MadeMask(_OWN, "", empty)
    return MadeMask(texts["Origin"], texts.get("Reason", ""), empty)


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
