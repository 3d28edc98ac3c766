"""Plain data comes out of pickles as it went in; everything else is refused before it runs."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data.published import unpickling
from data.published.unpickling import MAX_BYTES, is_pickled, load_pickled, loads
from tests import hostile
from utils import checkpoint
from utils.cli import UserError


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_data_survives(protocol: int) -> None:
    content = {
        "array": np.arange(6, dtype=">f4").reshape(2, 3, order="F"),
        "half": torch.arange(6).half().reshape(2, 3).T,
        "scalar": np.float32(1.5),
        "texts": np.array(["ab", "c"]),
        "records": [{"counts": b"\xff\x00", "size": [1, 2]}, (None, True, 2**70, 0.1)],
        "objects": np.array([{"a": 1}, None], dtype=object),
    }
    read = loads(pickle.dumps(content, protocol))
    assert np.array_equal(read["array"], content["array"])
    assert read["half"].tolist() == content["half"].tolist()
    assert read["half"].dtype == np.float16
    assert read["scalar"] == 1.5
    assert read["texts"].tolist() == ["ab", "c"]
    assert read["records"] == content["records"]
    assert read["objects"] == [{"a": 1}, None]


def test_a_file_of_the_predecessors_predecessor_equals_its_plain_copy(shared: Path) -> None:
    path = shared / "data/upstream/cub_poses_metadata_pickled.npz"
    assert is_pickled(path)
    plain = np.load(shared / "data/upstream/poses_plain_cub.npz")
    read = load_pickled(path)
    assert read.keys() == set(plain.files)
    for name in plain.files:
        assert np.array_equal(np.asarray(read[name]), plain[name])


def test_a_gigabyte_of_empty_lists_is_refused_while_it_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpickling, "MAX_INSTRUCTIONS", 10)
    assert loads(b"\x80\x02(" + b"]" * 5 + b"t.") == ([],) * 5
    with pytest.raises(pickle.UnpicklingError, match="more than 10 instructions"):
        loads(b"\x80\x02(" + b"]" * 10 + b"t.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["npy", "npz", "pth"])
@pytest.mark.parametrize("name", hostile.PICKLES)
def test_hostile_pickles_are_refused_in_one_line_and_do_nothing(
    folder: Path, name: str, kind: str
) -> None:
    content = hostile.PICKLES[name]
    wrapped = {"npy": hostile.npy, "npz": lambda x: hostile.npz(hostile.npy(x)), "pth": hostile.pth}
    path = folder / f"file.{kind}"
    path.write_bytes(wrapped[kind](content))
    start = time.monotonic()
    with pytest.raises(UserError) as refusal:
        checkpoint.load(path) if kind == "pth" else load_pickled(path)
    assert time.monotonic() - start < 20
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert sorted(p.name for p in folder.iterdir()) == [path.name, "kept"]


def test_members_that_unpack_to_too_much_are_refused(folder: Path) -> None:
    make = hostile.ARCHIVES["npz of 4 GB"][1]
    (folder / "a.npz").write_bytes(make())
    with pytest.raises(UserError, match=f"at most {MAX_BYTES} are expected"):
        load_pickled(folder / "a.npz")


def test_damaged_pickles_are_read_or_refused_and_never_crash(folder: Path) -> None:
    content = {"scale": torch.rand(5, 1), "rotation": np.zeros((5, 4)), "path": ["a", "b"]}
    intact = pickle.dumps(content, 3)
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(400):
        damaged = np.frombuffer(intact, np.uint8).copy()
        damaged[rng.integers(len(damaged), size=2)] = rng.integers(256, size=2)
        (folder / "a.npy").write_bytes(hostile.npy(damaged.tobytes()))
        try:
            load_pickled(folder / "a.npy")
        except UserError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > 200
    assert not any("\n" in line for line in refusals)


def test_shared_elements_count_every_time() -> None:
    content = b"\x80\x02}X\x05\x00\x00\x00scale%bs."
    assert unpickling.loads(content % hostile.tuples(3)) == {"scale": (((1, 1), (1, 1)),) * 2}
    with pytest.raises(pickle.UnpicklingError, match="more than 20000000 elements"):
        unpickling.loads(content % hostile.tuples(60))
