"""Threads of PyTorch on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Lets PyTorch compute in the calling thread alone; also a decorator.

    For stages that spend their time in the rasterizer, which has threads of its own: the idle
    threads of OpenMP spin, and take the cores from it.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
