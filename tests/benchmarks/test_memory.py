"""The memory of processes and of what they start, and the line through several sizes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.commands import execute
from benchmarks.memory import Cost, Growth, Peak
from tests.test_documentation import program
from utils.cli import UserError

MIB = 2**20
HELD = 150 * MIB

# Both hold the bytes in a second process; the first alone, the second together with its parent
CHILD = f"import time; held = bytearray({HELD}); time.sleep(1)"
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
FORK = f"import os, time; held = b'x' * {HELD}; os.fork(); time.sleep(1)"


def peak_of(program: str) -> int:
    """Returns the sampled peak of a Python program."""
    peak = Peak()
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while process.poll() is None:
            peak.sample(process.pid)
            time.sleep(0.02)
    return peak.bytes


def test_memory_of_processes_that_a_command_starts_counts():
    assert HELD < peak_of(GRANDCHILD) < HELD + 60 * MIB


def test_memory_that_processes_share_counts_once():
    assert HELD < peak_of(FORK) < HELD + 60 * MIB


@pytest.mark.parametrize(("forks", "expected"), [(False, 150), (True, 100)])
def test_a_fork_while_memory_is_read_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, forks: bool, expected: int
):
    processes = [1, 2]

    def read(pid: int, _: str, name: str) -> int:
        if forks and pid == 2 and len(processes) == 2:
            processes.append(3)
        return {1: 100, 2: 50}[pid] if name == "Pss:" else 10 * pid

    monkeypatch.setattr(memory, "descendants", lambda _: iter(processes))
    monkeypatch.setattr(memory, "_field", read)
    peak = Peak()
    peak.bytes = 100  # of a sample before
    peak.sample(1)
    assert peak.bytes == expected


def test_costs_on_a_line_are_continued_exactly():
    costs = {n: {"step1": Cost(2e8 + 3e4 * n, 5 + 0.25 * n)} for n in (100, 300, 1000)}
    growth = memory.extrapolate(costs, "step1", 50000)
    assert growth == pytest.approx((3e4, 1.7e9, 0.25))


@pytest.mark.parametrize(("limit", "verdict"), [(24, "fit"), (20, "do not fit")])
def test_the_verdict_names_the_stage_that_needs_most(limit, verdict):
    costs = {600: {"step1": Cost(1e9, 60), "step2": Cost(2e9, 60)}}
    growth = {"step1": Growth(1e4, 5e9, 0.1), "step2": Growth(4e5, 21.5e9, 0.2)}
    lines = list(memory.table(costs, growth, 50000, limit))
    assert lines[2].split() == ["step2", "2.00", "21.50", "400.0", "0.200"]
    assert lines[-1] == f"50,000 images {verdict} {limit} GB: step2 needs 21.5"


def test_collections_repeat_the_photographs_without_taking_space(tmp_path: Path):
    source = tmp_path / "made" / "datasets" / memory.NAME
    for folder, suffix in (("images", "jpg"), ("masks", "png"), ("parts", "png")):
        (source / folder).mkdir(parents=True)
        for number in range(2):
            (source / folder / f"{number}.{suffix}").write_text(f"{folder} {number}")
    (source / "parts.json").write_text("{}")
    (source / "parts" / "0.png").unlink()
    target = tmp_path / "repeated"
    for _ in range(2):  # the second time, all is there
        memory.make_collection(tmp_path, tmp_path / "made", target, 5)
    for folder, suffix in (("images", "jpg"), ("masks", "png"), ("parts", "png")):
        numbers = [1, 3] if folder == "parts" else range(5)
        paths = sorted((target / folder).iterdir())
        assert [path.name for path in paths] == [f"00000{i}.{suffix}" for i in numbers]
        assert [path.read_text() for path in paths] == [f"{folder} {i % 2}" for i in numbers]
        assert paths[1].samefile(source / folder / f"1.{suffix}")


@pytest.mark.parametrize("stage", memory.STAGES)
def test_the_commands_of_all_stages_are_accepted(stage: str):
    script, *words = memory.STAGES[stage](600, 1)
    name = words.pop(0) if script == "-m" else script.removesuffix(".py")
    program(name).build_parser().parse_args(words)


def test_commands_run_in_their_folder_and_tell_why_they_failed(tmp_path: Path):
    looks: list[int] = []
    code = "import os; print(os.getcwd(), os.environ['PYTHONPATH'])"
    assert execute(tmp_path / "code", tmp_path, "-c", code, watch=looks.append) > 0
    assert len(looks) > 0
    assert f"{tmp_path} {tmp_path / 'code'}" in (tmp_path / "log.txt").read_text()
    with pytest.raises(UserError, match=r"no such thing \(all output: .*log\.txt\)"):
        execute(tmp_path, tmp_path, "-c", "raise SystemExit('no such thing')")


def test_one_size_makes_no_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        memory.main(["--sizes", "60", "60"])
    assert "two different numbers" in capsys.readouterr().err
