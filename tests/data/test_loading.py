"""Batches come in the same order however they are loaded, and workers fail in one line."""

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from data import loading
from data.loading import load_batches, load_once
from data.samplers import StepSampler
from tests.conftest import REPOSITORY
from utils.cli import UserError

Usage = namedtuple("Usage", ["total", "used", "free"])


class Item(NamedTuple):
    value: Tensor
    process: Tensor
    row: int


class Numbers(Dataset[Item]):
    """Items of 1 MiB; `fatal` is read by a process that is killed, `absent` cannot be read."""

    def __init__(self, fatal: int | None = None, absent: int | None = None) -> None:
        self.fatal, self.absent = fatal, absent

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Item:
        if index == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.absent:
            raise UserError(f"{index}.jpg does not exist.")
        return Item(torch.full((2**18,), float(index)), torch.tensor(os.getpid()), index)


def sampler(step: int = 0) -> StepSampler:
    return StepSampler(10, 4, seed=0, start_step=step)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_of_the_sampler_from_a_step_on(workers: int) -> None:
    batches = load_batches(Numbers(), sampler(3), workers)
    for step in range(3, 6):
        values, processes, _ = next(batches)
        assert values[:, 0].tolist() == sampler().batch(step)
        assert (processes == os.getpid()).all() == (workers == 0)
    batches.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_pass_over_the_data_keeps_their_order_and_ends(workers: int) -> None:
    batches = [
        (*item.value[:, 0].int().tolist(), item.row.tolist())
        for item in load_once(Numbers(), 4, workers)
    ]
    assert batches == [(0, 1, 2, 3, [0, 1, 2, 3]), (4, 5, 6, 7, [4, 5, 6, 7]), (8, 9, [8, 9])]
    assert multiprocessing.active_children() == []
    (whole,) = load_once(Numbers(), 100, workers)
    assert whole.row.tolist() == list(range(10))
    assert list(load_once(Subset(Numbers(), []), 4, workers)) == []


@pytest.mark.parametrize(("free", "affordable"), [(100, 4), (24, 2), (15, 0)])
def test_as_many_workers_load_as_the_shared_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int, affordable: int
) -> None:
    """A batch is 4 MiB; a worker is two batches ahead, and the training process holds two."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
    monkeypatch.setattr(loading, "SHARED_MEMORY", "/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free * 2**20 + 1000))
    loading._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            load_batches(Numbers(), sampler(), 4).send(None)
        batches = load_batches(Numbers(), sampler(), 4)
        owners = {int(next(batches)[1][0]) for _ in range(8)}
        batches.close()
    assert owners == {os.getpid()} if affordable == 0 else len(owners) == affordable
    assert len(caplog.messages) == (affordable < 4)
    if affordable < 4:
        assert f"has room for {affordable} of 4 processes" in caplog.text


def test_what_a_worker_cannot_read_is_told_without_its_traceback() -> None:
    with pytest.raises(UserError, match=r"^7\.jpg does not exist\.$"):
        for _ in load_batches(Numbers(absent=7), sampler(), 1):
            pass


def test_no_worker_outlives_an_error_whose_traceback_is_kept() -> None:
    with pytest.raises(UserError) as kept:
        for _ in load_batches(Numbers(absent=7), sampler(), 2):
            pass
    assert multiprocessing.active_children() == []
    assert kept.traceback


def test_a_program_ends_its_workers_though_it_keeps_the_batches() -> None:
    """Python waits for all its processes at the end, and these ignore its request to end."""
    program = (
        "from tests.data.test_loading import Numbers, load_batches, sampler\n"
        "batches = load_batches(Numbers(), sampler(), 1)\n"
        "print(int(next(batches).process[0]))\n"
        "import builtins; builtins.kept = batches\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.stdout), 0)


def test_a_killed_worker_ends_the_training_with_one_line() -> None:
    with pytest.raises(UserError, match=r"process that loads data was killed.*smaller --num_w"):
        for _ in load_batches(Numbers(fatal=7), sampler(), 1):
            pass


def test_workers_ignore_the_signals_of_their_group_and_end_with_the_loop() -> None:
    batches = load_batches(Numbers(), sampler(), 1)
    worker = int(next(batches)[1][0])
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
    time.sleep(0.1)
    assert {int(next(batches)[1][0]) for _ in range(5)} == {worker}
    batches.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
