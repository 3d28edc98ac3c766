"""Free memory and disk: the limits of containers, folders that are not there yet."""

import shutil

import pytest

from data import memory
from data.memory import free_memory, free_space


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Returns a function that sets what the system and its control group report."""

    def report(available_kb: int, limit: str, current: str) -> None:
        (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available_kb} kB\n")
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text(current)

    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    return report


@pytest.mark.parametrize(
    ("limit", "current", "expected"),
    [("max\n", "7\n", 1024_000), ("900000\n", "500000\n", 400_000), ("9\n", "10\n", 0)],
)
def test_the_smaller_of_system_and_container_counts(machine, limit, current, expected):
    machine(1000, limit, current)
    assert free_memory() == expected


def test_space_is_that_of_the_disk_that_a_folder_will_be_on(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert free_space(tmp_path / "a" / "b") == pytest.approx(free, rel=0.01)
