"""Atomic writes, so that files are complete or absent, and one-line errors for missing files."""

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.cli import UserError

# Of an installed package; the repository's commands find everything below the working directory
PACKAGE = None if __package__ == "utils" else Path(__file__).parents[1]


def shipped(path: Path) -> Path:
    """Returns where to read a file or folder that the project ships, such as templates.

    A path below the working directory comes first; an installed package has its own copy.
    """
    if PACKAGE is None or path.exists() or not (PACKAGE / path).exists():
        return path
    return PACKAGE / path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a hidden temporary name beside `path` that takes its place when the block succeeds.

    The folder is made if it is missing. The name keeps the suffix, because `numpy.savez` and Pillow
    choose the format by it. Whatever ends the block early (an exception, a full disk, Ctrl-C)
    removes the temporary file and leaves an older `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden and random, so that processes do not meet; in the same folder, so that renaming is atomic
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        # The content reaches the disk before the name does, so that a power failure leaves no empty file
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # Errors about a full disk, or about the temporary name, name the file
        if isinstance(error, OSError) and (
            error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename == str(temporary)
        ):
            error.filename = str(path)
        raise


@contextmanager
def exclusive(path: str | Path, what: str) -> Iterator[None]:
    """Holds a lock file, so that no second process does the same work at the same time.

    The lock is a record lock, which ends with this process however that ends; workers that it has
    forked don't prolong it. The file stays: taking it away would let two processes lock two files.

    Args:
        path: the file; its folder is made if it is missing.
        what: what is locked, the first words of the error.

    Raises:
        UserError: if another process holds it; names that process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened for appending, so that the name of the present holder survives
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"{what} is in use by process {holder}. Wait until it has ended, or end it with: "
                f"kill {holder}"
            ) from None
        # The lock is held: name this process, for the errors of others
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a binary file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns JSON text; arrays and tensors become lists, their scalars numbers, paths strings."""
    return json.dumps(value, indent=indent, default=_plain)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON document atomically, indented by two spaces."""
    write_bytes(path, (to_json(value, indent=2) + "\n").encode())


def read_json(path: str | Path, remedy: str = "Write it again.") -> Any:
    """Reads a JSON document.

    Raises:
        UserError: if the file is missing or not JSON; ends with `remedy`.
    """
    # Deep nesting exhausts the parser, which is damage like any other
    text = require_file(path, remedy).read_bytes()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). {remedy}") from None


def require_file(path: str | Path, remedy: str) -> Path:
    """Returns the path of a file or folder that exists.

    Raises:
        UserError: if there is none; ends with `remedy`, a sentence such as "Create it with: ...".
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist. {remedy}")
    return path


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
