"""PyTorch's threads are put back."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from utils.threads import keep_freed_memory, one_torch_thread


@one_torch_thread()
def fail_alone() -> None:
    raise ValueError(f"{torch.get_num_threads()} thread")


def test_the_number_of_threads_is_restored_even_after_an_error() -> None:
    count = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="1 thread"):
        fail_alone()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(count)


def test_large_blocks_stay_with_the_process_where_the_library_can_do_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict[int, int] = {}
    library = SimpleNamespace(mallopt=settings.__setitem__)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    keep_freed_memory()
    assert settings == {-4: 0, -1: 2**31 - 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    # As on macOS
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_freed_memory()
