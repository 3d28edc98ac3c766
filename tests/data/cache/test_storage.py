"""Plain tensors and arrays on disk: what comes back, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache.storage import (
    Origin,
    check_numbers,
    load_arrays,
    load_tensors,
    save_arrays,
    save_tensors,
)
from utils import checkpoint
from utils.cli import UserError

ORIGIN = Origin("detections", "templates")


def test_tensors_come_back_as_they_were_and_only_those_asked_for(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    content = {"turned": whole.T, "half": whole.half(), "names": ["a", "b"], "unwanted": whole}
    path = save_tensors(tmp_path / "new/a.bin", content, ORIGIN)
    read = load_tensors(path, ["turned", "names"], ORIGIN, "make it", ["half", "absent"])
    assert read.keys() == {"turned", "names", "half"}
    assert torch.equal(read["turned"], whole.T)
    assert read["half"].dtype == torch.float16
    assert read["names"] == ["a", "b"]


def test_a_view_of_a_large_tensor_is_stored_without_the_rest(tmp_path: Path) -> None:
    rows = torch.zeros(1000, 1000)[:2]
    path = save_tensors(tmp_path / "a.bin", {"rows": rows}, ORIGIN)
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (Origin("others", "templates"), r"other detections .*Make it again with: make it$"),
        (Origin("detections", "others"), r"other templates .*Make it again with: make it$"),
    ],
)
def test_what_was_made_from_something_else_is_refused(
    tmp_path: Path, origin: Origin, message: str
) -> None:
    path = save_tensors(tmp_path / "a.bin", {"x": torch.zeros(1)}, ORIGIN)
    with pytest.raises(UserError, match=message):
        load_tensors(path, ["x"], origin, "make it")


def test_files_of_unknown_origin_belong_to_published_detections_only(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.bin", {"x": torch.zeros(1)})
    load_tensors(tmp_path / "a.bin", ["x"], Origin("", "any"), "make it")
    with pytest.raises(UserError, match="other detections"):
        load_tensors(tmp_path / "a.bin", ["x"], Origin("mine", "any"), "make it")


def test_missing_entries_name_those_expected(tmp_path: Path) -> None:
    path = save_tensors(tmp_path / "a.bin", {"x": torch.zeros(1)}, ORIGIN)
    with pytest.raises(UserError, match=r"a\.bin: expected the entries x, y\. Make it with: make"):
        load_tensors(path, ["x", "y"], ORIGIN, "make it")
    with pytest.raises(UserError, match=r"b\.bin does not exist\. Create it with: make it"):
        load_tensors(tmp_path / "b.bin", ["x"], ORIGIN, "make it")


def test_arrays_come_back_as_they_were_and_only_those_asked_for(tmp_path: Path) -> None:
    arrays = {"a": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.array(["ä"])}
    path = save_arrays(tmp_path / "new/a.npz", arrays)
    read = load_arrays(path, ["b"], "make it", ["a", "absent"])
    assert read.keys() == {"a", "b"}
    assert np.array_equal(read["a"], arrays["a"])
    assert read["b"].tolist() == ["ä"]
    with pytest.raises(UserError, match=r"a\.npz: cannot be read \('c'\)\. make it"):
        load_arrays(path, ["c"], "make it")


@pytest.mark.parametrize("verify", [True, False])
def test_a_damaged_member_is_noticed_where_it_is_read(tmp_path: Path, verify: bool) -> None:
    arrays = {"a": np.arange(100.0), "b": np.arange(100.0, 200.0)}
    path = save_arrays(tmp_path / "a.npz", arrays)
    content = bytearray(path.read_bytes())
    content[content.index(arrays["b"].tobytes()) + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz: cannot be read"):
        load_arrays(path, ["b"], "make it", verify=verify)
    if verify:
        with pytest.raises(UserError, match=r"a\.npz: cannot be read \(the file has changed"):
            load_arrays(path, ["a"], "make it")
    else:
        assert np.array_equal(load_arrays(path, ["a"], "", verify=False)["a"], arrays["a"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": torch.zeros(3, 4)},
            r"f: x is float32 \(3, 4\), expected finite numbers \(K, 5\)\. r",
        ),
        (
            {"y": np.zeros((2, 1))},
            r"f: y is float64 \(2, 1\), expected finite numbers \(K = 3, 1\)",
        ),
        ({"y": np.array([["1"]] * 3)}, r"f: y is <U1 \(3, 1\)"),
        ({"x": torch.full((3, 5), torch.nan)}, "f: x is"),
        ({"x": torch.full((3, 5), torch.inf, dtype=torch.bfloat16)}, "f: x is"),
        ({"x": torch.zeros(0, 5), "y": np.zeros((0, 1))}, r"f: x is float32 \(0, 5\)"),
        ({"x": torch.zeros(3)}, r"f: x is float32 \(3,\)"),
        ({"x": "text"}, r"f: x is <U4 \(\)"),
    ],
)
def test_numbers_are_checked_for_kind_and_shape(changes: dict, message: str) -> None:
    content = {"x": torch.zeros(3, 5), "y": np.zeros((3, 1), int), "z": np.array(True)}
    shapes: dict[str, tuple] = {"x": ("K", 5), "y": ("K", 1), "z": ()}
    check_numbers(Path("f"), content, shapes, "remedy")
    with pytest.raises(UserError, match=message):
        check_numbers(Path("f"), content | changes, shapes, "remedy")
