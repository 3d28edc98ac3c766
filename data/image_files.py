"""Picture files become arrays: photographs of any pixel format, masks and label maps."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.cli import UserError


class UnreadablePicture(UserError):
    """A picture file is missing, truncated, or not what it should be.

    Attributes:
        reason: the end of a sentence that begins with the path.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(
            f"{path} {reason}. Replace or remove the file, then prepare the data again."
        )
        self.reason = reason


def read_photograph(path: str | Path) -> np.ndarray:
    """Returns an image (h, w, 3) uint8, turned as its EXIF data says; gray, RGBA, CMYK are converted."""
    picture = _open(path)
    if picture.mode.startswith("I;16"):
        gray = _high_bytes(picture)
        return np.stack([gray] * 3, axis=-1)
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise UnreadablePicture(path, f"has pixels of the unsupported format {picture.mode}")
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def read_mask(path: str | Path) -> np.ndarray:
    """Returns the brightness (h, w) uint8 of a mask; above 127 means object."""
    picture = _open(path)
    return (
        _high_bytes(picture) if picture.mode.startswith("I;16") else np.array(picture.convert("L"))
    )


def read_labels(path: str | Path) -> np.ndarray:
    """Returns a label map (h, w) uint8; for palette pictures the indices, not the colors."""
    picture = _open(path)
    if picture.mode not in ("L", "P", "1"):
        reason = f"is no label map: expected 8-bit gray or palette pixels, got {picture.mode}"
        raise UnreadablePicture(path, reason)
    return np.array(picture, dtype=np.uint8)


def _open(path: str | Path) -> Image.Image:
    """Decodes a whole file, so that a truncated one is found here."""
    if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for
        raise UnreadablePicture(path, "is no file")
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError as error:
        raise UnreadablePicture(path, "does not exist") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        details = str(error).replace(str(path), "the file")
        raise UnreadablePicture(path, f"cannot be read ({details})") from error


def _high_bytes(picture: Image.Image) -> np.ndarray:
    return (np.array(picture, dtype=np.uint16) >> 8).astype(np.uint8)
