"""Unpacks downloaded archives: plain files into a new folder, or nothing at all."""

import errno
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from utils.cli import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_GROWTH = 20  # times the size of the archive; photographs hardly shrink
_FREE_BYTES = 100_000_000  # that any archive may unpack to


def is_archive(path: Path) -> bool:
    """Returns whether a file is one that `extract` reads, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def extract(archive: Path, folder: Path) -> None:
    """Unpacks an archive into a folder, which appears when it is complete.

    Raises:
        UserError: if the archive is damaged, unpacks to far more than its size, or has members that
            are links or devices, or lead out of the folder; nothing is left behind then.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _check(archive)
        unfinished.mkdir(parents=True)
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as content:
                content.extractall(unfinished)
        else:
            with tarfile.open(archive) as content:
                content.extractall(unfinished, filter="data")
        os.replace(unfinished, folder)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        ValueError,
        NotImplementedError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"{archive} was not unpacked: {reason}. Get it from its source again."
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check(archive: Path) -> None:
    """Raises a ValueError for the first member that does not belong into an archive of data."""
    allowed = MAX_GROWTH * archive.stat().st_size + _FREE_BYTES
    total = 0
    for name, size, plain in _members(archive):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\\" in name:
            raise ValueError(f"its member {name!r} leads elsewhere")
        if not plain:
            raise ValueError(f"its member {name!r} is a link or a device")
        total += size
        if total > allowed:
            raise ValueError(f"it unpacks to more than {MAX_GROWTH} times its size")


def _members(archive: Path) -> Iterator[tuple[str, int, bool]]:
    """Yields name, unpacked size, and whether it is a file or folder, without unpacking."""
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as content:
            for info in content.infolist():
                kind = info.external_attr >> 28  # of Unix, 0 if unknown
                yield info.filename, info.file_size, kind in (0, 4, 8)
    else:
        with tarfile.open(archive) as content:
            for member in content:
                yield member.name, member.size, member.isreg() or member.isdir()
