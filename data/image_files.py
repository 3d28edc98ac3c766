"""Picture files become arrays: photographs of any pixel format, masks and label maps.

Only a few formats are opened, whatever a file is called, so that no picture starts another program,
and none above `MAX_PIXELS` is decoded: reading takes at most 14 bytes for each pixel, 1.9 GB in all.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from data import mask_styles
from data.mask_styles import Choice, Numbers, Rule, Source
from utils.cli import UserError


def _reads_avif() -> bool:
    try:
        return features.check_module("avif")
    except ValueError:  # a Pillow that has never heard of it
        return False


FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", *(("AVIF",) if _reads_avif() else ()))
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp"),
    *((".avif",) if _reads_avif() else ()),
)
RAW_SUFFIXES = (
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"),
)
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
MAX_PIXELS = 2**27  # 134 megapixels
_TOO_LARGE = f"expected at most {MAX_PIXELS / 1e6:.0f} megapixels: make it smaller, and its mask"
# First bytes of files that are often mistaken for photographs, and what to do about them
_OTHER_KINDS = (
    (b"version https://git-lfs", "is a pointer of Git LFS: fetch the file with git lfs pull"),
    (b"GIF8", "is a GIF picture: convert it to PNG"),
    (b"%!PS", "is a PostScript drawing: convert it to PNG"),
    (b"\xc5\xd0\xd3\xc6", "is a PostScript drawing: convert it to PNG"),
    (b"%PDF", "is a PDF document: export its pictures as JPEG"),
    (b"8BPS", "is a Photoshop document: export it as PNG"),
    (b"\x00\x00\x00\x0cjP", "is a JPEG 2000 picture: convert it to JPEG"),
    (b"\x00\x00\x00\x0cJXL", "is a JPEG XL picture: convert it to JPEG"),
    (b"\xff\x0a", "is a JPEG XL picture: convert it to JPEG"),
    (b"FUJIFILM", "is a camera's raw picture: develop it to JPEG"),
    (b"<", "is a web page or a drawing, no photograph: download it again"),
)
_BRANDS = {  # of files that have "ftyp" at byte 4
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "is a HEIC picture"),
    **dict.fromkeys((b"avif", b"avis"), "is an AVIF picture, which this Pillow does not read"),
    b"crx ": "is a camera's raw picture",
}


class UnreadablePicture(UserError):
    """A picture file is missing, truncated, or not what it should be.

    Attributes:
        path: of the file.
        reason: the end of a sentence that begins with the path.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(
            f"{path} {reason}. Replace or remove the file, then prepare the data again."
        )
        self.path, self.reason = path, reason


def read_photograph(path: str | Path) -> np.ndarray:
    """Returns an image (h, w, 3) uint8, turned as its EXIF data says; gray, RGBA, CMYK are converted."""
    picture = _decode(path)
    # All stages work with 8 bits
    if picture.mode.startswith("I;16"):
        gray = (np.array(picture, dtype=np.uint16) >> 8).astype(np.uint8)
        return np.stack([gray] * 3, axis=-1)
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        reason = f"has pixels of the unsupported format {picture.mode}: convert it to 8-bit RGB"
        raise UnreadablePicture(path, reason)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode != "RGB":
        picture = picture.convert("RGB")  # the same name, so that one of them is kept in memory
    return np.array(picture)


def photograph_size(path: str | Path) -> tuple[int, int]:
    """Returns height and width of a photograph as `read_photograph` turns it; decodes PNG only."""
    with _opened(path) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) >= 5 else (height, width)


def read_orientation(path: str | Path) -> int:
    """Returns the EXIF orientation: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 on its side."""
    with _opened(path) as picture:
        return _orientation(picture)


def turn_as_photograph(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array (h, w, ...) of a picture as stored to what EXIF says is upright."""
    # Orientations from 5 on exchange rows and columns
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    # The axes that are then reversed
    axes = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(array, axes)


def has_alpha(path: str | Path) -> bool:
    """Returns whether a picture may be transparent somewhere, without decoding it."""
    with _opened(path) as picture:
        return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def read_mask(path: str | Path, rules: dict[Source, Rule] | None = None) -> np.ndarray:
    """Returns a mask (h, w) uint8: 255 = object, 0 = background.

    Args:
        path: of the file.
        rules: what the numbers of each source mean; for sources without a rule the file decides.
    """
    numbers = read_mask_numbers(path)
    rule = (rules or {}).get(numbers.source)
    if rule is None:
        rule = mask_styles.decide(numbers.source, [mask_styles.observe(numbers.values)])
    return mask_styles.apply(rule, numbers).astype(np.uint8) * np.uint8(255)


def read_mask_numbers(path: str | Path, choice: Choice = "auto") -> Numbers:
    """Returns what a mask file says about each pixel, before it is decided what that means."""
    picture = _decode(path)
    try:
        return mask_styles.numbers_of(picture, choice)
    except ValueError as error:
        raise UnreadablePicture(path, f"is no mask: {error}") from None


def read_labels(path: str | Path) -> np.ndarray:
    """Returns a label map (h, w) uint8; for palette pictures the indices, not the colors."""
    picture = _decode(path)
    if picture.mode not in ("L", "P", "1"):
        reason = f"is no label map: expected 8-bit gray or palette pixels, got {picture.mode}"
        raise UnreadablePicture(path, reason)
    return np.array(picture, dtype=np.uint8)


def _orientation(picture: Image.Image) -> int:
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def _decode(path: str | Path) -> Image.Image:
    """Decodes a whole file, so that a truncated one is found here, and turns it upright."""
    with _opened(path) as picture:
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Opens a file; whatever its decoder fails with becomes an UnreadablePicture."""
    if Path(path).is_dir():
        raise UnreadablePicture(path, "is a folder, no picture")
    if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for
        raise UnreadablePicture(path, "is no file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, checked below, and damaged metadata
            with Image.open(path, formats=FORMATS) as picture:
                _check_size(path, picture.width, picture.height)
                yield picture
    except FileNotFoundError as error:
        raise UnreadablePicture(path, "does not exist") from error
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePicture(path, f"cannot be read ({_TOO_LARGE})") from error
    except UnidentifiedImageError as error:
        reason = _other_kind(path) or "cannot be read (it is damaged, or no picture)"
        raise UnreadablePicture(path, reason) from error
    except Exception as error:  # decoders raise errors of any type for damaged files
        details = " ".join(str(error).replace(str(path), "the file").split())
        raise UnreadablePicture(path, _other_kind(path) or f"cannot be read ({details})") from error


def _check_size(path: str | Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadablePicture(path, f"has {width * height / 1e6:.0f} megapixels, {_TOO_LARGE}")


def _other_kind(path: str | Path) -> str | None:
    """Returns what a file is if no format fits, and what to do about it; None if unknown."""
    with open(path, "rb") as file:
        head = file.read(64)
    # Containers of phones and cameras are recognized by their brand
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return f"{_BRANDS[head[8:12]]}: convert it to JPEG"
    # Text may start with a byte order mark and blanks
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for start, kind in _OTHER_KINDS if (text or head).startswith(start)), None)
