"""Tests of the layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.layers import (
    BatchNorm,
    SpectralConv2d,
    convolve3,
    make_norm,
    positional_encoding,
    replicate_pad,
    resize,
    upsample,
)


def test_positional_encoding_equals_the_published_one(shared: Path) -> None:
    golden = np.load(shared / "reference/golden/networks.npz")
    for size in (32, 128):
        expected = torch.from_numpy(golden[f"posenc{size}"]).float()
        torch.testing.assert_close(positional_encoding(size)[0], expected, rtol=0, atol=1e-6)


def test_spectral_convolution_learns_to_divide_by_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 5, 3, bias=False)
    x = torch.randn(1, 3, 8, 8)
    for _ in range(100):
        layer(x)
    largest = torch.linalg.svdvals(layer.weight_orig.flatten(1))[0]
    expected = nn.functional.conv2d(x, layer.weight_orig / largest)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_spectral_convolution_keeps_its_vectors_in_eval_mode_and_uses_them_unnormalized() -> None:
    layer = SpectralConv2d(2, 2, 1, bias=False).eval()
    layer.weight_u.copy_(torch.tensor([3.0, 0.0]))
    layer.weight_v.copy_(torch.tensor([1.0, 0.0]))
    x = torch.randn(1, 2, 4, 4)
    sigma = 3 * layer.weight_orig[0, 0]
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, layer.weight_orig / sigma))
    assert torch.equal(layer.weight_u, torch.tensor([3.0, 0.0]))


def test_spectral_convolution_may_run_twice_before_the_backward_pass() -> None:
    layer = SpectralConv2d(2, 2, 3)
    x = torch.randn(1, 2, 4, 4)
    (layer(x).sum() + layer(2 * x).sum()).backward()
    assert layer.weight_orig.grad is not None


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 5)])
def test_normalization_over_processes_equals_that_of_the_whole_batch(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One process standing for two equal ones: the sum of halves is the statistic itself
    monkeypatch.setattr("models.layers.sum_over_processes", lambda x: 2 * x)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    whole = BatchNorm(3, affine=True, synchronized=False)
    part = BatchNorm(3, affine=True, synchronized=True)
    expected = whole(torch.cat((x, x)))[:6]
    torch.testing.assert_close(part._normalize_over_processes(x, 2), expected)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(part.state_dict()[name], value)


def test_resizing_averages_downwards() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(resize(x, (1, 1)).flatten(), torch.tensor([7.5]))
    assert resize(x, (4, 4)) is x
    assert resize(x, (8, 8)).shape == (1, 1, 8, 8)


def test_unknown_normalizations_are_refused() -> None:
    with pytest.raises(ValueError, match="norm"):
        make_norm("layer", 3)


@pytest.mark.parametrize("rows", [2, 16])  # few are repeated, many convolved as they are
def test_convolving_a_doubled_map_equals_doubling_it_before(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 3, rows, 8), generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn((5, 3, 3, 3), generator=generator, dtype=torch.float64, requires_grad=True)
    actual = convolve3(x, weight, doubled=True)
    expected = nn.functional.conv2d(replicate_pad(upsample(x), 1), weight, padding=(1, 0))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    # The gradients are those of the plain way, too
    seed = torch.randn(actual.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(actual, (x, weight), seed),
        torch.autograd.grad(expected, (x, weight), seed),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
