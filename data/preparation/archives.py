"""Unpacks downloaded archives: plain files into a new folder, or nothing at all.

Time and memory are bounded by the size of an archive, whatever its headers say.
"""

import errno
import gzip
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, NamedTuple

from utils.cli import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_GROWTH = 20  # times the size of the archive; photographs hardly shrink
MAX_MEMBERS = 300_000  # ImageNet's 14 categories have 20,000 photographs
_FREE_BYTES = 100_000_000  # that any archive may unpack to
_HEADER_BYTES = 512  # of a member of a tar archive
_ZIP_DIRECTORY_BYTES = 2**24  # the list of all members, which zipfile reads at once
_TAR_READ_BYTES = 2**16  # tarfile reads names and attributes at once, files in smaller pieces
_DAMAGE = (  # what reading a damaged or hostile archive ends with
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError),
    *(LookupError, RuntimeError, RecursionError, OverflowError, MemoryError, OSError),
)


class Member(NamedTuple):
    """Entry of an archive.

    Attributes:
        name: path within the archive.
        size: bytes when unpacked.
        plain: whether it is a file or folder that zlib or nothing has compressed.
    """

    name: str
    size: int
    plain: bool


class _Limited:
    """A file that refuses to read more than some bytes at once."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit = file, limit

    def read(self, size: int = -1) -> bytes:
        content = b"" if size > self._limit else self._file.read(size if size >= 0 else self._limit)
        if size > self._limit or (size < 0 and self._file.read(1)):
            raise ValueError(f"one of its headers has more than {self._limit} bytes")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def is_archive(path: Path) -> bool:
    """Returns whether a file is one that `extract` reads, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def extract(archive: Path, folder: Path) -> None:
    """Unpacks an archive into a folder, which appears when it is complete.

    Raises:
        UserError: if the archive is damaged, unpacks to far more than its size or to too many files,
            or has members that are links or devices, or lead out of the folder; nothing is left
            behind then.
    """
    # Beside the target, so that renaming is atomic
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        # A first pass checks all members before anything is written
        with _opened(archive) as content:
            _check(content, MAX_GROWTH * archive.stat().st_size + _FREE_BYTES)
        unfinished.mkdir(parents=True)
        with _opened(archive) as content:
            if isinstance(content, zipfile.ZipFile):
                content.extractall(unfinished)
            else:
                content.extractall(unfinished, filter="data")
        os.replace(unfinished, folder)
    except _DAMAGE as error:
        # A full disk is no fault of the archive
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(folder)) from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{archive} was not unpacked: {reason}. Download it again.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    with open(archive, "rb") as file:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(_Limited(file, _ZIP_DIRECTORY_BYTES)) as content:  # type: ignore[arg-type]
                yield content
            return
        # The first bytes say whether it is compressed, whatever the suffix
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        limited = _Limited(stream, _TAR_READ_BYTES)  # type: ignore[arg-type]
        with tarfile.open(fileobj=limited, mode="r:") as content:  # type: ignore[call-overload]
            yield content


def _check(content: zipfile.ZipFile | tarfile.TarFile, allowed: int) -> None:
    """Raises a ValueError for the first member that does not belong into an archive of data."""
    total = 0
    for number, (name, size, plain) in enumerate(_members(content)):
        # Names must stay inside the folder on every operating system
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\\" in name:
            raise ValueError(f"its member {name!r} leads elsewhere")
        if not plain or "\0" in name:
            raise ValueError(f"its member {name!r} is a link, a device, or of an unusual kind")
        total += size + _HEADER_BYTES
        if total > allowed:
            raise ValueError(f"it unpacks to more than {MAX_GROWTH} times its size")
        if number >= MAX_MEMBERS:
            raise ValueError(f"it has more than {MAX_MEMBERS} members")
    # A checksum stands at the end of what gzip has packed
    while isinstance(content, tarfile.TarFile) and (rest := content.fileobj.read(_TAR_READ_BYTES)):  # type: ignore[union-attr]
        total += len(rest)
        if total > allowed:
            raise ValueError(f"it unpacks to more than {MAX_GROWTH} times its size")


def _members(content: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    """Yields the members without unpacking them."""
    if isinstance(content, zipfile.ZipFile):
        for info in content.infolist():
            kind = info.external_attr >> 28  # of Unix, 0 if unknown
            known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            yield Member(info.orig_filename, info.file_size, kind in (0, 4, 8) and known)
        return
    for member in content:
        if len(content.pax_headers) > 100:  # copied for every member
            raise ValueError("it has too many attributes")
        # A sparse file is larger than its bytes
        plain = (member.isreg() or member.isdir()) and not member.issparse()
        yield Member(member.name, member.size, plain)
