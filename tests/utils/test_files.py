import errno
import os

import numpy as np
import pytest
import torch

from utils import files
from utils.cli import UserError


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    for text in (b"old", b"new"):
        files.write_bytes(path, text)
    assert content(path.parent) == {"a.txt": b"new"}


@pytest.mark.parametrize("failure", [ValueError("ours"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_half_written(tmp_path, failure):
    files.write_bytes(tmp_path / "a.txt", b"old")

    def fail_halfway():
        with files.atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail_halfway()
    assert content(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, step):
    files.write_bytes(tmp_path / "a.txt", b"old")

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(tmp_path / "a.txt", b"new")
    assert content(tmp_path) == {"a.txt": b"old"}


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        files.write_bytes(tmp_path / "a.txt", b"new")
    assert error.value.filename == str(tmp_path / "a.txt")


def test_the_temporary_name_keeps_the_suffix_that_numpy_looks_at(tmp_path):
    with files.atomic_path(tmp_path / "a.npz") as temporary:
        np.savez(temporary, x=np.arange(3))
    assert list(content(tmp_path)) == ["a.npz"]


def test_json_holds_arrays_tensors_and_paths_as_plain_values(tmp_path):
    value = {"a": np.arange(2), "b": torch.tensor(1.5), "c": tmp_path, "d": np.float32(0.5)}
    files.write_json(tmp_path / "a.json", value)
    expected = {"a": [0, 1], "b": 1.5, "c": str(tmp_path), "d": 0.5}
    assert files.read_json(tmp_path / "a.json") == expected


def test_what_json_cannot_hold_is_a_type_error():
    with pytest.raises(TypeError, match="object cannot be written"):
        files.to_json(object())


def test_damaged_and_missing_files_are_mistakes_with_a_remedy(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": \xff')
    with pytest.raises(UserError, match=r"not valid JSON .* Make it again"):
        files.read_json(tmp_path / "a.json", "Make it again.")
    with pytest.raises(UserError, match=r"b\.json does not exist\. Make it"):
        files.require_file(tmp_path / "b.json", "Make it.")
