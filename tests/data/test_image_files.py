"""Photographs of every format are read, and everything else is named for what it is."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from data import image_files
from data.image_files import (
    UnreadablePicture,
    photograph_size,
    read_mask,
    read_photograph,
    turn_as_photograph,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", image_files.SUFFIXES)
def test_every_format_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    ramp = np.add.outer(np.arange(36), np.arange(60)).astype(np.uint8)
    smooth = Image.fromarray(np.dstack([ramp, 2 * ramp, 200 - ramp]))
    smooth.save(path, "JPEG" if suffix == ".jfif" else None, quality=95)
    pixels = read_photograph(path)
    assert photograph_size(path) == pixels.shape[:2] == (36, 60)
    assert np.abs(pixels.astype(int) - np.array(smooth)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_are_turned_as_pictures(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        expected = np.array(ImageOps.exif_transpose(picture))
    assert np.array_equal(turn_as_photograph(PIXELS, orientation), expected)
    assert np.array_equal(read_photograph(tmp_path / "a.png"), expected)
    assert photograph_size(tmp_path / "a.png") == expected.shape[:2]
    assert image_files.read_orientation(tmp_path / "a.png") == orientation


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\nshowpage\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (EPS, "is a PostScript drawing: convert it to PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC picture: convert it to JPEG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "is a camera's raw picture: convert it to JPEG"),
        (b"GIF89a\x01\0\x01\0\0\0\0;", "is a GIF picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"", "cannot be read (it is damaged, or no picture)"),
        (bytes(100), "cannot be read (it is damaged, or no picture)"),
    ],
)
def test_other_files_are_named(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_photograph, read_mask, photograph_size):
        with pytest.raises(UnreadablePicture) as refusal:
            read(tmp_path / "a.jpg")
        assert reason in refusal.value.reason


def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        pytest.fail("a picture started a program")

    monkeypatch.setattr(subprocess, "Popen", started)
    for suffix in ("jpg", "png", "eps"):
        (tmp_path / f"a.{suffix}").write_bytes(EPS)
        with pytest.raises(UnreadablePicture):
            read_photograph(tmp_path / f"a.{suffix}")


def png_of_size(width: int, height: int) -> bytes:
    """Returns the beginning of a PNG file that says it has so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (15_000, 10_000, "has 150 megapixels, expected at most 134 megapixels: make it smaller"),
        (2**31 - 1, 2**31 - 1, "cannot be read (expected at most 134 megapixels"),
    ],
)
def test_large_pictures_are_refused_before_they_are_decoded(
    width: int, height: int, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(png_of_size(width, height) + b"\0\0\0\0IDAT")
    for read in (read_photograph, read_mask, photograph_size):
        with pytest.raises(UnreadablePicture) as refusal:
            read(tmp_path / "a.jpg")
        assert refusal.value.reason.startswith(reason)


def test_no_warning_of_the_library_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of_size(10_000, 9_500) + b"\0\0\0\0IDAT")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert not image_files.has_alpha(tmp_path / "a.png")
    assert shown == []


@pytest.mark.slow
def test_reading_takes_no_more_memory_than_is_said(tmp_path: Path) -> None:
    width, height = 8_000, 5_000
    Image.new("RGB", (width, height), "red").save(tmp_path / "a.jpg", quality=50)
    code = (
        "import resource\nfrom data.image_files import read_photograph\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        f"before = peak(); read_photograph({str(tmp_path / 'a.jpg')!r}); print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 12 * width * height + 20e6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
def test_damaged_pictures_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    if kind not in image_files.FORMATS:
        pytest.skip(f"this Pillow does not read {kind}")
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    whole, rng = buffer.getvalue(), np.random.default_rng(1)
    outcomes = set()
    for number in range(40):
        content = bytearray(whole)
        for position in rng.integers(0, len(whole), 3):
            content[position] ^= 1 << int(rng.integers(8))
        content = content if number % 2 else content[: int(rng.integers(len(whole)))]
        (tmp_path / "a.jpg").write_bytes(content)
        try:
            outcomes.add(read_photograph(tmp_path / "a.jpg").dtype.name)
        except UnreadablePicture as error:
            outcomes.add(f"refused in {len(str(error).splitlines())} line")
    assert "refused in 1 line" in outcomes
    assert outcomes <= {"refused in 1 line", "uint8"}
