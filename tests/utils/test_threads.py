"""PyTorch's threads are put back."""

import pytest
import torch

from utils.threads import one_torch_thread


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
