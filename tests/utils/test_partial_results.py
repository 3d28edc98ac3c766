"""Rows of a long computation survive an interruption, under equal settings only."""

import pytest
import torch

from utils.partial_results import PartialResults

SETTINGS = {"seed": 1, "sizes": (64, 128)}


def values(rows: list[int]) -> dict[str, torch.Tensor]:
    """Tensors that tell their rows: a scalar and a matrix each."""
    number = torch.tensor(rows, dtype=torch.float64)
    return {"score": number, "pose": number[:, None, None] * torch.ones(2, 3)}


@pytest.fixture
def results(tmp_path):
    """Rows 3, 0 and 2 of four are finished."""
    partial = PartialResults(tmp_path / ".partial", SETTINGS, range(4))
    partial.add([3, 0], values([3, 0]))
    partial.add([2], values([2]))
    return partial


def test_a_later_run_finds_the_finished_rows(results):
    again = PartialResults(results.folder, SETTINGS, range(4))
    assert sorted(again.rows) == [0, 2, 3]
    for row, members in again.rows.items():
        expected = values([row])
        assert all(torch.equal(members[name], expected[name][0]) for name in expected)


def test_gathered_rows_are_in_order_whatever_order_they_came_in(results):
    results.add([1], values([1]))
    gathered, expected = results.gather(), values([0, 1, 2, 3])
    assert gathered.keys() == expected.keys()
    assert all(torch.equal(gathered[name], expected[name]) for name in expected)


def test_gathering_unfinished_rows_is_a_defect(results):
    with pytest.raises(AssertionError, match="unfinished"):
        results.gather()


def test_rows_of_other_settings_are_removed(results):
    assert PartialResults(results.folder, SETTINGS | {"seed": 2}, range(4)).rows == {}
    assert list(results.folder.iterdir()) == []
    assert PartialResults(results.folder, SETTINGS, range(4)).rows == {}


def test_a_process_takes_its_own_shard_from_files_of_any_division(results):
    assert sorted(PartialResults(results.folder, SETTINGS, range(0, 4, 2)).rows) == [0, 2]
    assert sorted(PartialResults(results.folder, SETTINGS, range(1, 4, 2)).rows) == [3]


def test_removal_leaves_nothing(results):
    results.remove()
    assert not results.folder.exists()
    results.remove()  # a second time is no error
