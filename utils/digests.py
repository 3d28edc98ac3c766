"""Files that carry a digest of their own bytes, so that a single flipped bit is noticed.

Zip archives (.pth, .bin, .npz): PyTorch's reader never compares the checksums of the members, and no
reader looks at every header. The digest is the comment of the archive, the last field of the format.
JSON documents: it is their last entry. Other programs still read both. The digest guards against
damage, not against forgery.
"""

import hashlib
import io
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

from utils.files import to_json

_LABEL = b"sha256:"
_LENGTH = len(_LABEL) + 64  # of the comment: label and hexadecimal digits
_END = b"PK\x05\x06"  # opens the end record: 22 bytes, the last two are the length of the comment
_END_SIZE = 22
_CHUNK = 2**20


def append_digest(file: IO[bytes]) -> None:
    """Puts the digest of all bytes before it into the comment of an archive that has none yet.

    Args:
        file: a whole archive, open for reading and writing.
    """
    # The end record now announces the comment that follows it
    file.seek(-2, io.SEEK_END)
    file.write(struct.pack("<H", _LENGTH))
    file.write(_LABEL + _sha256(file, file.tell()).encode())


def check_archive(file: IO[bytes]) -> None:
    """Checks an archive against its digest; one of another program, against its members' checksums.

    Raises:
        zipfile.BadZipFile: if any byte is not as it was written.
    """
    # Ours end with an end record that announces a comment of this length
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_SIZE - _LENGTH))
    tail = file.read()
    end, comment = tail[:_END_SIZE], tail[_END_SIZE:]
    if end.startswith(_END) and end.endswith(struct.pack("<H", _LENGTH)):
        intact = comment == _LABEL + _sha256(file, size - _LENGTH).encode()
    else:
        # Other comments are refused: one could be ours with a damaged length or label
        plain = tail[-_END_SIZE:].startswith(_END) and tail.endswith(b"\0\0")
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            intact = plain and archive.testzip() is None
    file.seek(0)
    if not intact:
        raise zipfile.BadZipFile("the file has changed since it was written")


def json_with_digest(content: dict[str, Any], indent: int | None = None) -> bytes:
    """Returns a JSON document whose last entry, "sha256", is the digest of the others as written."""
    body = to_json(content, indent).encode()
    return body[:-1] + _json_end(body)


def check_json(data: bytes, content: dict[str, Any]) -> None:
    """Checks a JSON document against its digest, if it has one; no other entry may be text.

    Args:
        data: the document.
        content: what it holds.

    Raises:
        ValueError: if any byte is not as it was written.
    """
    # Without a digest no entry may be text: it could be the damaged digest
    size = len(_json_end(b""))
    if data[-size:] != _json_end(data[:-size] + b"}") and any(
        isinstance(value, str) for value in content.values()
    ):
        raise ValueError("the file has changed since it was written")


def _json_end(body: bytes) -> bytes:
    return f', "sha256": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return _sha256(file, file.seek(0, io.SEEK_END))


def _sha256(file: IO[bytes], size: int) -> str:
    """Returns the digest of the first `size` bytes; leaves the position behind them."""
    # In pieces: checkpoints have hundreds of megabytes
    digest = hashlib.sha256()
    file.seek(0)
    while size and (chunk := file.read(min(size, _CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()
