"""Random numbers as a function of (seed, stream), so that resumed and distributed runs agree.

A stream names the purpose of the numbers: words and counters such as ("noise", step, rank). Streams of
a seed are independent of each other (`numpy.random.SeedSequence`, stable between versions).
"""

import random

import numpy as np
import torch


def seed_everything(seed: int, *stream: int | str) -> None:
    """Seeds the global generators of torch (all devices), numpy and random."""
    # Different words for each library
    words = _sequence(seed, stream).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(_as_int64(words[2:]))


def torch_generator(seed: int, *stream: int | str) -> torch.Generator:
    """Returns a CPU generator of torch."""
    return torch.Generator().manual_seed(_as_int64(_sequence(seed, stream).generate_state(2)))


def numpy_generator(seed: int, *stream: int | str) -> np.random.Generator:
    """Returns a generator of numpy."""
    return np.random.default_rng(_sequence(seed, stream))


def _sequence(seed: int, stream: tuple[int | str, ...]) -> np.random.SeedSequence:
    # As spawn key, not as entropy: entropy (1,) and (1, 0) would give the same numbers
    key = [int.from_bytes(x.encode(), "little") if isinstance(x, str) else int(x) for x in stream]
    return np.random.SeedSequence(seed, spawn_key=key)


def _as_int64(words: np.ndarray) -> int:
    return (int(words[0]) << 31) ^ int(words[1])
