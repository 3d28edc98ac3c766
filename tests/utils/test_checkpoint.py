import argparse
import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import checkpoint
from utils.cli import UserError


class Hostile:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_checkpoint_returns_what_was_saved(tmp_path):
    state = {"step": 3, "generator": {"w": torch.arange(3.0)}, "curve": [0.5, (1, "a")]}
    checkpoint.save(tmp_path / "a.pth", state)
    loaded = checkpoint.load(tmp_path / "a.pth", torch.device("cpu"))
    assert torch.equal(loaded["generator"].pop("w"), state["generator"].pop("w"))
    assert loaded == state


@pytest.mark.parametrize("value", [torch.__version__, Path("a"), np.float32(1), Hostile()])
def test_what_could_not_be_loaded_is_not_saved(tmp_path, value):
    with pytest.raises(TypeError, match="could not be loaded"):
        checkpoint.save(tmp_path / "a.pth", {"args": [{"value": value}]})
    assert not (tmp_path / "a.pth").exists()


def test_numbered_checkpoints_are_sorted_by_step_and_the_latest_is_the_highest(tmp_path):
    for step in (20000, 3, 10_000_000):
        checkpoint.save(checkpoint.path_of(tmp_path, step), {"step": step})
    (tmp_path / ".checkpoint_0000009.ab.tmp.pth").touch()
    (tmp_path / "checkpoint_latest.pth").touch()
    assert [step for step, _ in checkpoint.numbered(tmp_path)] == [3, 20000, 10_000_000]
    assert checkpoint.resolve(tmp_path, "latest").name == "checkpoint_10000000.pth"
    assert checkpoint.resolve(tmp_path, "3").name == "checkpoint_0000003.pth"
    assert checkpoint.resolve(tmp_path, 20000).name == "checkpoint_0020000.pth"


def test_a_released_folder_has_only_an_unnumbered_checkpoint(tmp_path):
    (tmp_path / "checkpoint_latest.pth").touch()
    assert checkpoint.resolve(tmp_path, "latest").name == "checkpoint_latest.pth"


@pytest.mark.parametrize("which", ["latest", "7", "best"])
def test_a_missing_checkpoint_is_a_mistake_that_names_those_there_are(tmp_path, which):
    if which != "latest":
        checkpoint.save(checkpoint.path_of(tmp_path, 3), {})
    with pytest.raises(UserError, match=rf"no checkpoint '{which}'.*: (3|none)\. Train it"):
        checkpoint.resolve(tmp_path, which)
    with pytest.raises(UserError, match=r"does not exist\. Train it first"):
        checkpoint.load(tmp_path / "absent.pth")


def test_options_of_a_checkpoint_are_those_that_differ():
    now = {"width": 1.0, "norm_g": "batch", "seed": 1}
    state = {"args": {"width": 0.5, "norm_g": "batch", "other": 3}}
    assert checkpoint.stored_options("a.pth", state, now) == {"width": 0.5}
    assert checkpoint.stored_options("a.pth", {}, now) == {}
    for value in ("1", None, torch.ones(2), [1]):
        with pytest.raises(UserError, match=r"a\.pth was trained with width="):
            checkpoint.stored_options("a.pth", {"args": {"width": value}}, now)


def damaged(kind: str, intact: bytes) -> bytes:
    middle = len(intact) // 2
    return {
        "empty": b"",
        "text": b"not a checkpoint",
        "cut": intact[:middle],
        "head": intact[middle:],
        "overwritten": intact[:64] + bytes(200) + intact[264:],
        "list": pickle.dumps([1, 2], protocol=2),
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "head", "overwritten", "list"])
def test_damaged_files_are_refused_with_one_line(tmp_path, kind):
    path = tmp_path / "a.pth"
    checkpoint.save(path, {"w": torch.arange(1000)})
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(
        UserError, match=r"a\.pth (is damaged|cannot be read|holds a list)"
    ) as refusal:
        checkpoint.load(path)
    assert "\n" not in str(refusal.value)


def test_one_flipped_bit_is_noticed_also_in_files_without_a_digest(tmp_path):
    path = tmp_path / "a.pth"
    state = {"w": torch.arange(1000)}
    for write in (checkpoint.save, lambda path, state: torch.save(state, path)):
        write(path, state)
        assert torch.equal(checkpoint.load(path)["w"], state["w"])
        content = bytearray(path.read_bytes())
        content[content.index(state["w"].numpy().tobytes()) + 100] ^= 16
        path.write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            checkpoint.load(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("item", [Hostile(), argparse.Namespace(a=1)])
def test_objects_are_refused_and_nothing_is_executed(tmp_path, monkeypatch, item, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": item}, "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="was not loaded") as refusal:
        checkpoint.load("a.pth")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "a.pth", {"step": 1})

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.pth'"):
        checkpoint.save(tmp_path / "a.pth", {"step": 2})
    assert checkpoint.load(tmp_path / "a.pth") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
