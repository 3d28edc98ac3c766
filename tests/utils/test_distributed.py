import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from utils import distributed
from utils.cli import Terminated, UserError

CPU = torch.device("cpu")


def take_part(device: torch.device, size: int) -> dict:
    """Uses every collective once."""
    distributed.barrier()
    total = distributed.all_reduce_(torch.tensor([1.0 + distributed.rank()]))
    return {
        "world": distributed.world_size(),
        "sum": total.item(),
        "shards": distributed.gather(list(distributed.shard(size))),
        "main": distributed.gather(distributed.is_main()),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }


def fail_on_the_last(device: torch.device) -> None:
    if not distributed.is_main():
        raise UserError("the last process found no images: caf\udce9.")
    distributed.barrier()


def fail_with_a_defect(device: torch.device) -> None:
    raise ZeroDivisionError("ours")


def take_too_much(device: torch.device) -> None:
    if not distributed.is_main():
        torch.empty(2**60)
    distributed.barrier()


def wait_forever(device: torch.device) -> None:
    distributed.barrier()
    if distributed.is_main():
        print("waiting", flush=True)  # noqa: T201 - tells the test that all processes are up
    time.sleep(600)


def test_one_device_runs_in_the_calling_process():
    result = distributed.launch(take_part, [CPU], 3)
    assert result["world"] == 1
    assert result["sum"] == 1
    assert result["shards"] == [[0, 1, 2]]
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_two_processes_share_the_work_and_return_the_first_result():
    result = distributed.launch(take_part, [CPU, CPU], 5)
    assert result["world"] == 2
    assert result["sum"] == 3
    assert result["shards"] == [[0, 1], [2, 3, 4]]
    assert result["main"] == [True, False]


@pytest.mark.slow
def test_a_users_mistake_in_one_process_ends_all_and_arrives_unchanged(monkeypatch, tmp_path):
    folder = tmp_path / "a b é #%20\udce9"  # names that an address would spell differently
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(UserError, match=r"^the last process found no images: caf\udce9\.$"):
        distributed.launch(fail_on_the_last, [CPU, CPU])


@pytest.mark.slow
def test_a_process_that_runs_out_of_memory_is_told_in_one_line():
    with pytest.raises(
        UserError, match=r"^memory has run out \(.*--batch_size.*fewer processes\.$"
    ):
        distributed.launch(take_too_much, [CPU, CPU])


@pytest.mark.slow
def test_a_defect_in_a_process_arrives_with_its_text():
    with pytest.raises(Exception, match="ZeroDivisionError: ours"):
        distributed.launch(fail_with_a_defect, [CPU, CPU])


@pytest.mark.slow
def test_interrupting_the_parent_alone_ends_the_processes_with_one_line():
    program = (
        "import signal, torch\nfrom tests.utils import test_distributed as t\n"
        "from utils import cli, distributed\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored below a job with &
        "if __name__ == '__main__':\n"
        "    cli.run(lambda: distributed.launch(t.wait_forever, [t.CPU, t.CPU]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)  # returns once the children have closed theirs
    assert process.returncode == 130
    assert errors == "interrupted: run the same command again to continue\n"


def test_the_default_device_is_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.resolve_devices(None) == [CPU]
    assert distributed.resolve_devices(("cpu", "cpu")) == [CPU, CPU]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.resolve_devices(None) == [torch.device("cuda", 0)]
    assert distributed.resolve_devices((1, 0)) == [torch.device("cuda", i) for i in (1, 0)]


@pytest.mark.parametrize(
    ("count", "there"),
    [(0, "this machine has no GPU"), (1, "has 1 GPU (0-0)"), (2, "has 2 GPUs (0-1)")],
)
def test_an_absent_gpu_is_refused_and_the_present_ones_are_named(monkeypatch, count, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError) as refusal:
        distributed.resolve_devices((0, 3))
    assert str(refusal.value).startswith("--gpu_ids 0,3: ")
    assert there in str(refusal.value)
    assert "--gpu_ids cpu" in str(refusal.value)


@pytest.mark.parametrize("count", [0, 1, 5, 7])
def test_shards_cover_everything_once(monkeypatch, count):
    covered = []
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        covered += distributed.shard(count)
    assert covered == list(range(count))


@pytest.mark.parametrize(
    ("asked", "device", "flags", "used"),
    [
        (True, "cpu", "flags : avx2 avx512_bf16 fma", True),
        (True, "cpu", "Features : asimd bf16 i8mm", True),
        (True, "cpu", "flags : avx2 avx512f fma", False),
        (True, "cuda", "flags : avx2 avx512f fma", True),
        (True, "cpu", None, True),  # no Linux
        (False, "cpu", "flags : avx512_bf16", False),
    ],
)
def test_processors_without_units_for_bfloat16_do_without(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    asked: bool,
    device: str,
    flags: str | None,
    used: bool,
) -> None:
    path = tmp_path / "cpuinfo"
    if flags is not None:
        path.write_text(flags)
    assert distributed.use_bfloat16(asked, [torch.device(device)], path) is used
    assert ("--bfloat16 is left out" in caplog.text) is (asked and not used)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ((), type(None)),
        (("terminated",), Terminated),
        (("interrupted",), KeyboardInterrupt),
        (("terminated", "interrupted"), KeyboardInterrupt),  # the others were ended because of it
    ],
)
def test_ctrl_c_that_only_children_have_noticed_is_reported_as_such(
    tmp_path: Path, left: tuple[str, ...], expected: type
) -> None:
    for name in left:
        (tmp_path / name).touch()
    assert type(distributed._asked_to_end(tmp_path)) is expected
