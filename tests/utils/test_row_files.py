"""Tables on disk that are computed row by row."""

from pathlib import Path

import pytest
import torch

from utils.row_files import Column, Table, digest, open_folder

COLUMNS = {"pose": Column((3, 2)), "color": Column((4,), torch.uint8)}


def values(rows: list[int]) -> dict[str, torch.Tensor]:
    """Returns different values for every row."""
    number = torch.tensor(rows, dtype=torch.float32)
    pose = number[:, None, None] + torch.arange(6.0).reshape(3, 2) / 10
    return {"pose": pose, "color": number[:, None].expand(-1, 4).to(torch.uint8)}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    table = Table(tmp_path, 600, COLUMNS)
    table.write(list(range(600)), values(list(range(600))))
    for rows in ([], [5], [3, 4, 5, 9, 2, 2], list(range(600))):
        found, expected = table.read(rows), values(rows)
        assert all(torch.equal(found[name], expected[name]) for name in COLUMNS)


def test_a_table_that_is_opened_again_knows_what_is_finished(tmp_path: Path) -> None:
    table = Table(tmp_path, 5, COLUMNS)
    assert table.unfinished(range(5)) == [0, 1, 2, 3, 4]
    table.write([1, 3], values([1, 3]))
    table.columns["pose"].write([0], values([0])["pose"])  # killed before the second column
    again = Table(tmp_path, 5, COLUMNS)
    assert again.unfinished(range(5)) == [0, 2, 4]
    assert again.unfinished(range(1, 4)) == [2]


@pytest.mark.parametrize("position", [0, 30, 55, 83])
def test_a_damaged_row_counts_as_unfinished(tmp_path: Path, position: int) -> None:
    Table(tmp_path, 3, COLUMNS).write([0, 1, 2], values([0, 1, 2]))
    path = tmp_path / "pose.rows"
    content = bytearray(path.read_bytes())
    assert len(content) == 3 * (24 + 4)
    content[position] ^= 1
    path.write_bytes(content)
    assert Table(tmp_path, 3, COLUMNS).unfinished(range(3)) == [position // 28]


def test_a_table_of_another_shape_is_begun_anew(tmp_path: Path) -> None:
    Table(tmp_path, 3, COLUMNS).write([0, 1, 2], values([0, 1, 2]))
    assert Table(tmp_path, 4, COLUMNS).unfinished(range(4)) == [0, 1, 2, 3]


def test_rows_that_are_all_zero_can_be_finished(tmp_path: Path) -> None:
    table = Table(tmp_path, 2, {"a": Column((2,))})
    table.write([1], {"a": torch.zeros(1, 2)})
    assert table.unfinished(range(2)) == [0]


def test_tables_of_other_settings_are_removed(tmp_path: Path) -> None:
    first = open_folder(tmp_path, {"steps": 1})
    (first / "rows").write_text("kept")
    assert open_folder(tmp_path, {"steps": 1}) == first
    assert (first / "rows").exists()
    second = open_folder(tmp_path, {"steps": 2})
    assert not first.exists()
    (second / "rows").write_text("kept")
    open_folder(tmp_path, {"steps": 2}, resume=False)
    assert not (second / "rows").exists()


def test_a_digest_changes_with_any_tensor() -> None:
    a, b = torch.zeros(3), torch.ones(2)
    assert digest(a, b) == digest(a.clone(), b.clone())
    assert len({digest(a, b), digest(b, a), digest(a, b + 1)}) == 3
