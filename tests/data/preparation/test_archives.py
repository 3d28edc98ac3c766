"""Archives that cost more than they weigh are refused; time and memory stay small."""

import gzip
import io
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from data.preparation import archives
from data.preparation.archives import extract
from utils.cli import UserError


def header(name: str = "a", size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def attributes(**values: str) -> bytes:
    """Returns a global PAX header."""
    lines = b""
    for key, value in values.items():
        line = f" {key}={value}\n"
        length = len(line) + len(str(len(line) + 2))
        lines += f"{length}{line}".encode()
    return header("x", len(lines), b"g") + padded(lines)


def packed(*parts: bytes) -> bytes:
    return gzip.compress(b"".join(parts) + bytes(1024), 1)


def zipped(change: dict[bytes, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        target.writestr("name", b"content")
    content = out.getvalue()
    for old, new in (change or {}).items():
        content = content.replace(old, new)
    return content


def encrypted() -> bytes:
    content = bytearray(zipped())
    content[6] = content[content.index(b"PK\1\2") + 8] = 1
    return bytes(content)


BOMBS = {
    "attributes of a gigabyte.tgz": packed(header("x", 2**30, b"x"), bytes(2**26)),
    "a name of a gigabyte.tgz": packed(header("x", 2**30, b"L"), bytes(2**26)),
    "a sparse file of a terabyte.tgz": packed(header("x", 2**10, b"S"), bytes(2**10)),
    "names of names.tgz": packed(*[header("x", 1, b"L"), padded(b"a")] * 5000),
    "attributes without end.tgz": packed(
        attributes(**{f"key{i}": "x" for i in range(200)}), *[header()] * 9
    ),
    "ten thousand folders.tgz": packed(*[header("a", 0, tarfile.DIRTYPE)] * 10_000),
    "nul.zip": zipped({b"name": b"na\0e"}),
    "only nul.zip": zipped({b"name": b"\0\0\0\0"}),
    "lzma.zip": zipped(method=zipfile.ZIP_LZMA),
    "encrypted.zip": encrypted(),
    "cut.zip": zipped()[:-30],
    "cut.tgz": packed(header("a", 9), padded(b"123456789"))[:-20],
    "another checksum.tgz": packed(header("a", 9), padded(b"123456789"))[:-6] + b"abcdef",
    "no archive.tar": b"\x1f\x8b",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_one_line_at_little_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "_FREE_BYTES", 2**20)
    archive = tmp_path / name
    archive.write_bytes(BOMBS[name])
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(UserError, match=r"was not unpacked: .*Download it again") as refusal:
            extract(archive, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - began < 10
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("suffix", ["zip", "tgz"])
def test_numbers_of_members_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    monkeypatch.setattr(archives, "_ZIP_DIRECTORY_BYTES", 5 * 48)
    archive = tmp_path / f"many.{suffix}"
    for count in (5, 9):
        if suffix == "tgz":
            archive.write_bytes(packed(*[header(str(i)) for i in range(count)]))
        else:
            with zipfile.ZipFile(archive, "w") as target:
                for i in range(count):
                    target.writestr(str(i), b"")
        if count == 5:
            extract(archive, tmp_path / "few")
            assert len(list((tmp_path / "few").iterdir())) == 5
        else:
            with pytest.raises(UserError, match=r"more than 5 members|one of its headers"):
                extract(archive, tmp_path / "many")


def test_a_full_disk_is_named_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(OSError, match=r"No space left on device: .*out"):
        extract(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]
