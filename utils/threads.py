"""CPU threads, those of PyTorch and the pool on which compiled loops run, and the memory they work in.

The pool has `TMG_THREADS` threads (default: the number of cores); it is created on first use, and anew
in forked children.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch

from utils.cli import UserError

_CHUNKS_PER_THREAD = 4  # small pieces even out the load
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Restricts PyTorch to the calling thread; also a decorator.

    For stages that spend their time in the rasterizer, which has its own threads: idle OpenMP
    threads spin and would compete with them for the cores.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def keep_freed_memory() -> None:
    """Lets the process keep the memory that it frees, for the next step of a training.

    The C library gives large blocks back to the system at once, and getting them again, page by page
    and filled with zeros, takes up to a fifth of a step. Without effect where the library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def num_threads() -> int:
    """Number of threads of the pool."""
    wanted = os.environ.get("TMG_THREADS") or str(os.cpu_count() or 1)
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UserError(f"TMG_THREADS: expected a positive number of threads, got {wanted!r}.")
    return int(wanted)


def map_chunks(function: Callable[[int, int], None], count: int) -> None:
    """Calls function(begin, end) for pieces of range(count) on all threads of the pool."""
    threads = min(num_threads(), count)
    if threads <= 1:
        function(0, count)
        return
    # Collecting the results waits for all pieces and raises their errors
    step = -(-count // (threads * _CHUNKS_PER_THREAD))
    begins = range(0, count, step)
    list(_executor(num_threads()).map(function, begins, (min(b + step, count) for b in begins)))


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="rasterizer")


# Threads do not survive a fork
os.register_at_fork(after_in_child=_executor.cache_clear)
