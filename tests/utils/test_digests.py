"""Every single bit counts: files that differ in one from what was written are noticed."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.digests import append_digest, check_archive, check_json, file_digest, json_with_digest


def archive(kind: str, *, digest: bool) -> bytes:
    """A small archive of torch.save or numpy.savez."""
    file = io.BytesIO()
    if kind == "torch":
        torch.save({"weight": torch.arange(5.0), "step": 3}, file)
    else:
        np.savez(file, scale=np.arange(5.0), path=np.array(["a", "b"]))
    if digest:
        append_digest(file)
    return file.getvalue()


def noticed(content: bytes) -> bool:
    try:
        check_archive(io.BytesIO(content))
    except (ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
        return True
    return False


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_every_flipped_bit_of_an_archive_is_noticed(kind: str) -> None:
    content = archive(kind, digest=True)
    assert not noticed(content)
    assert all(noticed(flipped(content, bit)) for bit in range(8 * len(content)))


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_the_members_of_other_programs_archives_are_checked(kind: str) -> None:
    content = archive(kind, digest=False)
    assert not noticed(content)
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        starts = [info.header_offset for info in members.infolist()]
    numbers = content.index(np.arange(5.0, dtype="f4" if kind == "torch" else "f8").tobytes())
    bits = range(8 * numbers, 8 * numbers + 160)
    assert all(noticed(flipped(content, bit)) for bit in bits)
    assert all(noticed(flipped(content, 8 * start)) for start in starts)


@pytest.mark.parametrize("change", ["cut", "longer", "comment"])
def test_cut_and_extended_archives_are_noticed(change: str) -> None:
    content = archive("torch", digest=True)
    changed = {"cut": content[:-1], "longer": content + b"\0", "comment": content[:-71] + b"x" * 71}
    assert noticed(changed[change])


def test_other_programs_read_an_archive_with_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(archive("torch", digest=True))
    state = torch.load(path, weights_only=True, mmap=True)
    assert torch.equal(state["weight"], torch.arange(5.0))
    with np.load(io.BytesIO(archive("numpy", digest=True)), allow_pickle=False) as arrays:
        assert arrays["path"].tolist() == ["a", "b"]


def test_the_digest_of_a_file_is_its_sha_256(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * 2**20 + 5)
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_every_flipped_bit_of_a_json_document_is_noticed() -> None:
    content = {"info": {"category": "bird"}, "boxes": [[0.1, 1e-05, 7, "ä"]]}
    data = json_with_digest(content)
    assert json.loads(data) == content | {"sha256": json.loads(data)["sha256"]}
    for bit in range(8 * len(data)):
        changed = flipped(data, bit)
        with pytest.raises(ValueError):  # noqa: PT011 - not JSON, not text, or changed
            check_json(changed, json.loads(changed))
    check_json(data, json.loads(data))
    check_json(json.dumps(content).encode(), content)  # of another program, without a digest
