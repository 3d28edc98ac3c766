"""Tests of the full-matrix Adam optimizer and of the moving averages."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.optimizers import FullMatrixAdam, update_ema


def test_full_matrix_adam_follows_the_reference_trajectory(shared: Path) -> None:
    golden = np.load(shared / "reference/golden/adamfull.npz")
    parameters = torch.from_numpy(golden["P0"]).double()
    optimizer = FullMatrixAdam(parameters, lr=0.1)
    for gradient, expected in zip(golden["G"], golden["out64"], strict=True):
        parameters = optimizer.step(parameters, torch.from_numpy(gradient).double())
        torch.testing.assert_close(parameters, torch.from_numpy(expected), rtol=0, atol=1e-8)


def test_full_matrix_adam_equals_a_plain_matrix_root() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    optimizer = FullMatrixAdam(torch.zeros(3, 4, dtype=torch.float64), lr=0.5)
    moved = optimizer.step(torch.zeros(3, 4, dtype=torch.float64), gradient)
    for row, g in zip(moved, gradient, strict=True):
        # For C = c g g^T the inverse root acts on g as 1 / sqrt(c |g|^2 + eps)
        norm = (0.05 * g.square().sum() + 1e-8).sqrt()
        expected = -0.5 * (0.05**0.5) / 0.1 * 0.1 * g / norm
        torch.testing.assert_close(row, expected)


def test_selected_rows_continue_as_if_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(6, 5, 8, generator=generator)
    full = torch.randn(5, 8, generator=generator)
    optimizer, pruned = FullMatrixAdam(full), FullMatrixAdam(full)
    index = torch.tensor([3, 0])
    for gradient in gradients[:3]:
        full = optimizer.step(full, gradient)
        pruned.step(full, gradient)
    pruned.select(index)
    few = full[index]
    for gradient in gradients[3:]:
        full = optimizer.step(full, gradient)
        few = pruned.step(few, gradient[index])
    assert torch.equal(full[index], few)


def test_a_zero_gradient_moves_nothing() -> None:
    start = torch.ones(2, 8)
    assert torch.equal(FullMatrixAdam(start).step(start, torch.zeros(2, 8)), start)


def test_wrong_shapes_are_refused() -> None:
    optimizer = FullMatrixAdam(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="expected shape"):
        optimizer.step(torch.zeros(3, 8), torch.zeros(3, 8))


def test_moving_average_blends_weights_and_statistics_but_copies_the_rest() -> None:
    def network(value: float) -> nn.Module:
        net = nn.BatchNorm1d(3)
        net.register_buffer("weight_u", torch.full((3,), value))
        for tensor in net.state_dict().values():
            tensor.fill_(value)
        return net

    ema, model = network(0.0), network(2.0)
    update_ema(ema, model, 0.75)
    state = ema.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.allclose(state[name], torch.tensor(0.5))
    assert torch.equal(state["weight_u"], torch.full((3,), 2.0))
    assert state["num_batches_tracked"] == 2
