"""MATLAB files give plain arrays, and damaged ones an error instead of a crash."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from data.preparation.matlab import read_structures
from utils.cli import UserError


def write(path: Path) -> None:
    rows = np.zeros(2, dtype=[("name", object), ("values", object), ("inner", object)])
    for i, row in enumerate(rows):
        row["name"], row["values"], row["inner"] = f"a{i}", np.eye(2 + i), {"b": 1}
    savemat(path, {"rows": rows})


def test_fields_of_all_elements_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.mat")
    rows = read_structures(tmp_path / "a.mat", "rows", ("name", "values"), "")
    assert [str(row["name"]) for row in rows] == ["a0", "a1"]
    assert [row["values"].shape for row in rows] == [(2, 2), (3, 3)]


def rename(content: bytes) -> bytes:
    return content.replace(b"rows", b"cols")


@pytest.mark.parametrize("spoil", [rename, lambda x: x[:200], lambda x: b"rubbish" * 50])
def test_other_files_are_refused_in_one_line(tmp_path: Path, spoil) -> None:
    path = tmp_path / "a.mat"
    write(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=r"a\.mat: cannot be read .* Again\.") as refusal:
        read_structures(path, "rows", ("name",), "Again.")
    assert "\n" not in str(refusal.value)


def test_structures_in_structures_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mat")
    with pytest.raises(UserError, match="structures or cells"):
        read_structures(tmp_path / "a.mat", "rows", ("inner",), "")


def test_a_crash_of_the_reader_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mat")
    program = tmp_path / "crash"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    with pytest.raises(UserError, match="status -11"):
        read_structures(tmp_path / "a.mat", "rows", ("name",), "")
