"""Batches are a pure function of (seed, step)."""

from itertools import chain, islice

import pytest
import torch

from data.samplers import StepSampler, balanced_weights

WEIGHTS = torch.tensor([1.0] * 10 + [5.0] * 3)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_ranks_split_what_one_process_sees(weights):
    whole = StepSampler(13, 8, seed=3, weights=weights)
    ranks = [StepSampler(13, 8, seed=3, weights=weights, rank=r, world_size=4) for r in range(4)]
    for step in (0, 1, 2, 50):
        assert [index for rank in ranks for index in rank.batch(step)] == whole.batch(step)
        assert torch.equal(torch.cat([rank.coins(step) for rank in ranks]), whole.coins(step))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_resumed_stream_continues_exactly(weights):
    stream = list(islice(StepSampler(13, 8, seed=3, weights=weights), 9))
    resumed = StepSampler(13, 8, seed=3, weights=weights, start_step=4)
    assert list(islice(resumed, 5)) == stream[4:]


def test_every_pass_contains_every_sample_once_in_a_new_order():
    sampler = StepSampler(6, 4, seed=0)
    stream = list(chain.from_iterable(islice(sampler, 6)))
    passes = [stream[i : i + 6] for i in range(0, 24, 6)]
    assert all(sorted(order) == list(range(6)) for order in passes)
    assert len(set(map(tuple, passes))) > 1
    assert [sampler.epoch(step) for step in range(5)] == [0, 0, 1, 2, 2]


def test_a_batch_may_exceed_the_data():
    batch = StepSampler(3, 8, seed=0).batch(1)
    assert len(batch) == 8
    assert set(batch) == {0, 1, 2}


def test_seeds_differ():
    assert StepSampler(100, 50, seed=0).batch(0) != StepSampler(100, 50, seed=1).batch(0)


def test_balanced_weights_draw_categories_equally():
    categories = torch.tensor([0] * 90 + [4] * 10)
    weights = balanced_weights(categories)
    assert weights[:90].sum() == pytest.approx(weights[90:].sum())
    sampler = StepSampler(100, 1000, seed=0, weights=weights)
    rare = sum(index >= 90 for index in sampler.batch(0))
    assert abs(rare - 500) < 60  # 4 standard deviations
    assert abs(sampler.coins(0).float().mean() - 0.5) < 0.07


@pytest.mark.parametrize(("size", "batch", "ranks"), [(0, 4, 1), (5, 0, 1), (5, 5, 2)])
def test_wrong_sizes_are_refused(size, batch, ranks):
    with pytest.raises(ValueError, match="expected positive numbers"):
        StepSampler(size, batch, seed=0, world_size=ranks)
    with pytest.raises(ValueError, match=r"expected shape \(5,\), got \(4,\)"):
        StepSampler(5, 5, seed=0, weights=torch.ones(4))
