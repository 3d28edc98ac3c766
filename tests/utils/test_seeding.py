import itertools
import random

import numpy as np
import pytest
import torch

from utils import seeding

STREAMS = [(), (0,), (0, 0), (1,), ("noise",), ("noise", 0), ("noise", 1), (1, "noise")]


def draw_globally(*stream):
    seeding.seed_everything(7, *stream)
    return [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002


@pytest.fixture(autouse=True)
def _keep_global_state():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def test_the_same_stream_gives_the_same_numbers():
    for stream in STREAMS:
        assert draw_globally(*stream) == draw_globally(*stream)
        first, second = (seeding.torch_generator(3, *stream) for _ in range(2))
        assert torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=second))
        first, second = (seeding.numpy_generator(3, *stream) for _ in range(2))
        assert first.random() == second.random()


@pytest.mark.parametrize(
    "draw",
    [
        draw_globally,
        lambda *stream: torch.rand(1, generator=seeding.torch_generator(7, *stream)).item(),
        lambda *stream: seeding.numpy_generator(7, *stream).random(),
    ],
)
def test_different_streams_give_different_numbers(draw):
    drawn = [draw(*stream) for stream in STREAMS]
    assert all(a != b for a, b in itertools.combinations(drawn, 2))


def test_streams_are_uncorrelated():
    draws = [torch.randn(2000, generator=seeding.torch_generator(1, "x", i)) for i in range(6)]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(6)
    assert correlation.abs().max() < 0.1


def test_a_generator_leaves_the_global_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    torch.rand(3, generator=seeding.torch_generator(1))
    assert torch.equal(torch.rand(1), expected)
