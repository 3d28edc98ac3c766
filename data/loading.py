"""Batches of a data set, loaded while earlier ones are used: in a thread, or in worker processes."""

import atexit
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from multiprocessing.process import BaseProcess
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.samplers import StepSampler
from utils import distributed
from utils.cli import UserError
from utils.interrupts import StopRequest

SHARED_MEMORY = "/dev/shm"  # where worker processes put their batches
_PREFETCH = 2  # batches that a worker is ahead, the default of PyTorch
_HELD = 2  # batches that the training process holds
_DYING_SECONDS = 1  # between the end of a worker's connection and that of the worker

logger = logging.getLogger(__name__)


def load_batches(
    dataset: Dataset[Any], sampler: StepSampler, num_workers: int
) -> Generator[tuple[Tensor, ...]]:
    """Yields the collated batches of a sampler without end, in the same order however they are loaded.

    Args:
        dataset: its items are named tuples of tensors.
        sampler: which items.
        num_workers: processes that load, as far as there are cores and shared memory; 0 for a thread.

    Raises:
        UserError: if an item cannot be read, or a worker has been killed.
    """
    yield from _load(dataset, sampler, sampler.batch(sampler.start_step), num_workers)


def load_once(dataset: Dataset[Any], batch_size: int, num_workers: int) -> Generator[Any]:
    """Yields the collated items of a data set in their order, the last batch with what is left.

    Args:
        dataset: as for `load_batches`, of a known length.
        batch_size: items of a batch.
        num_workers: likewise.

    Raises:
        UserError: likewise.
    """
    rows = range(len(dataset))  # type: ignore[arg-type] - has a length, as is said above
    batches = [list(rows[start : start + batch_size]) for start in rows[::batch_size]]
    if batches:
        yield from _load(dataset, batches, batches[0], min(num_workers, len(batches)))


def _load(
    dataset: Dataset[Any], batches: Iterable[list[int]], first: Sequence[int], num_workers: int
) -> Generator[Any]:
    """Yields the batches of some rows; none is larger than the first."""
    workers = min(num_workers, _usable_cores())
    if workers:
        workers = _affordable(dataset, first, workers)
    loader = DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, worker_init_fn=_ignore_signals
    )
    yield from _from_workers(loader) if workers else _from_thread(iter(loader))


def _from_thread(loader: Iterator[Any]) -> Generator[Any]:
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, loader, None)
        while (batch := upcoming.result()) is not None:
            upcoming = pool.submit(next, loader, None)
            yield batch


def _from_workers(loader: DataLoader[Any]) -> Generator[Any]:
    # PyTorch's handler would raise at any point of the training; a request for a batch raises as well
    handler, others = signal.getsignal(signal.SIGCHLD), multiprocessing.active_children()
    # Python drops what is raised while it forks: the signal is obeyed after that
    with StopRequest():
        batches = iter(loader)
    signal.signal(signal.SIGCHLD, handler)

    # Workers ignore SIGTERM, with which Python would end them before it waits for them
    workers = [child for child in multiprocessing.active_children() if child not in others]
    end = partial(_end, workers)
    atexit.register(end)
    try:
        while (batch := _next(batches, workers)) is not None:
            yield batch
    finally:
        end()
        atexit.unregister(end)


def _next(batches: Iterator[Any], workers: Sequence[BaseProcess]) -> Any:
    """Returns the next batch; None after the last one."""
    try:
        return next(batches, None)
    except UserError as error:  # PyTorch puts the worker's traceback around the message
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
    except (RuntimeError, OSError, EOFError):  # the last two where half a batch has been sent
        for worker in workers:
            worker.join(_DYING_SECONDS)
        if all(worker.is_alive() for worker in workers):
            raise
        raise UserError(
            "A process that loads data was killed, probably because memory has run out. "
            "Run the same command again with a smaller --num_workers to continue."
        ) from None


def _end(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()
        worker.join()


def _usable_cores() -> int:
    """Returns the cores that this process may use, fewer than there are in many containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _affordable(dataset: Dataset[Any], first: Sequence[int], workers: int) -> int:
    """Returns how many workers the shared memory has room for, and says so if they are fewer."""
    if not os.path.isdir(SHARED_MEMORY):
        return workers
    item = dataset[first[0]]
    batch = len(first) * sum(member.nbytes for member in item if isinstance(member, Tensor))
    free = shutil.disk_usage(SHARED_MEMORY).free // distributed.world_size()
    affordable = max(0, int((free / batch - _HELD) // _PREFETCH))
    if affordable < workers:
        _warn(affordable, workers)
    return min(affordable, workers)


@cache
def _warn(affordable: int, workers: int) -> None:
    """Says how little room there is; once, and not at every pass over the data."""
    logger.warning(
        "%s has room for %d of %d processes that load data; more need a larger one (docker run "
        "--shm-size 8g)",
        *(SHARED_MEMORY, affordable, workers),
    )


def _ignore_signals(worker: int) -> None:
    """The training process ends its workers, whoever else gets a signal that is meant for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
