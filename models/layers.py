"""Layers shared by the networks: spectral convolutions, normalizations, paddings, positions."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.distributed import all_reduce_, world_size

NORMS = ("syncbatch", "batch", "instance", "none")
# Below, adding up the weights takes longer than the products that it saves
_FEWEST_ROWS = 16


def scaled(channels: int, width: float) -> int:
    """Returns the channel count of the paper multiplied by width, at least one."""
    return max(1, round(channels * width))


def replicate_pad(x: Tensor, columns: int) -> Tensor:
    """Repeats the outer columns; for 3x3 kernels this is the even reflection of a symmetric map."""
    return F.pad(x, (columns, columns, 0, 0), mode="replicate")


def upsample(x: Tensor) -> Tensor:
    """Doubles height and width by repeating texels."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def convolve3(x: Tensor, weight: Tensor, *, doubled: bool = False) -> Tensor:
    """Convolves a half map with (out, in, 3, 3): zeros beyond the poles, repeated columns beside it.

    Args:
        x: (B, in, h, w).
        weight: of the convolution.
        doubled: whether `x` is upsampled before. That is a transposed convolution whose 4x4 kernel
            holds the sums of the weights that meet the same texel: 4 products per texel for 9.

    Returns:
        (B, out, h, w), or (B, out, 2h, 2w) if doubled.
    """
    if not doubled:
        return F.conv2d(replicate_pad(x, 1), weight, padding=(1, 0))
    if x.shape[-2] < _FEWEST_ROWS:
        return convolve3(upsample(x), weight)
    kernel = _stretch(_stretch(weight, 2), 3).transpose(0, 1)
    # The columns repeated on either side become two, which are cut off again
    return F.conv_transpose2d(replicate_pad(x, 1), kernel, stride=2, padding=(1, 3))


def _stretch(weight: Tensor, dim: int) -> Tensor:
    a, b, c = weight.unbind(dim)
    return torch.stack((c, b + c, a + b, a), dim)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes a map: averages over areas downwards, interpolates linearly upwards."""
    if x.shape[-2:] == size:
        return x
    # Averaging avoids aliasing when a map is made smaller
    if x.shape[-2] > size[0]:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def positional_encoding(size: int) -> Tensor:
    """Returns (1, 4, size, size): cosine and sine of the latitude (rows), then of the longitude (columns)."""
    # Rows span half a turn (pole to pole), columns a whole one
    steps = torch.arange(size, dtype=torch.float32) / size
    latitude = (math.pi * steps)[:, None].expand(size, size)
    longitude = (math.pi * (2 * steps - 1))[None, :].expand(size, size)
    maps = (latitude.cos(), latitude.sin(), longitude.cos(), longitude.sin())
    return torch.stack(maps)[None]


class SpectralConv2d(nn.Module):
    """Convolution whose weight is divided by its largest singular value (spectral normalization).

    One power iteration per training forward; in eval mode the stored vectors are used as they are.

    Attributes:
        weight_orig: (out, in, k, k) weight before the division.
        weight_u: (out,) left singular vector.
        weight_v: (in * k * k,) right singular vector.
        bias: (out,) or None.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        bias: bool = True,
    ) -> None:
        super().__init__()
        # Names and initialization are those of torch.nn.utils.spectral_norm, as in published checkpoints
        plain = nn.Conv2d(in_channels, out_channels, kernel, bias=bias)
        self.stride = stride
        self.padding = padding
        self.bias = nn.Parameter(plain.bias.detach()) if plain.bias is not None else None
        self.weight_orig = plain.weight
        matrix = plain.weight.flatten(1)
        self.register_buffer("weight_u", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(matrix.shape[1]), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (B, in, h, w) with the normalized weight."""
        return F.conv2d(x, self.normalized_weight(), self.bias, self.stride, self.padding)

    def normalized_weight(self) -> Tensor:
        """Returns the weight (out, in, k, k) divided by its largest singular value."""
        # The power iteration needs single precision, whatever the convolution runs in
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            u, v = self._singular_vectors()
            return self.weight_orig / torch.dot(u, self.weight_orig.flatten(1) @ v)

    @torch.no_grad()
    def _singular_vectors(self) -> tuple[Tensor, Tensor]:
        # Copies: the buffers change again before the backward pass if the layer is called twice
        if self.training:
            matrix = self.weight_orig.flatten(1)
            v = F.normalize(matrix.T @ self.weight_u, dim=0, eps=1e-12)
            u = F.normalize(matrix @ v, dim=0, eps=1e-12)
            self.weight_u.copy_(u)
            self.weight_v.copy_(v)
            return u, v
        return self.weight_u.clone(), self.weight_v.clone()


class _SumOverProcesses(torch.autograd.Function):
    """Sum whose gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce_(x.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_reduce_(gradients[0].clone())


def sum_over_processes(x: Tensor) -> Tensor:
    """Sums a tensor over all processes; all of them must call it, and run its backward pass."""
    total = _SumOverProcesses.apply(x)
    assert isinstance(total, Tensor)
    return total


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization of (B, C) or (B, C, h, w), over the batches of all processes if synchronized.

    Unlike torch.nn.SyncBatchNorm it also works on the CPU, so that training does not depend on the
    number of processes. Every process must hold the same number of samples.
    """

    def __init__(self, channels: int, *, affine: bool, synchronized: bool) -> None:
        super().__init__(channels, affine=affine)
        self.synchronized = synchronized

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in (2, 4):
            raise ValueError(f"input: expected (B, C) or (B, C, h, w), got {tuple(input.shape)}.")

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes each channel; keeps running statistics in training mode."""
        if not (self.training and self.synchronized and world_size() > 1):
            return super().forward(input)
        self._check_input_dim(input)
        return self._normalize_over_processes(input, world_size())

    def _normalize_over_processes(self, x: Tensor, processes: int) -> Tensor:
        # Mean and variance over the batches of all processes, in two steps for accuracy
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        mean = sum_over_processes(x.mean(axes) / processes)
        centered = x - mean.view(shape)
        variance = sum_over_processes(centered.square().mean(axes) / processes)
        # Running statistics use the unbiased variance over all processes
        self._track(mean.detach(), variance.detach(), processes * x.numel() // x.shape[1])
        out = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # As torch.nn.BatchNorm does it
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)


def make_norm(kind: str, channels: int, *, affine: bool = False, flat: bool = False) -> nn.Module:
    """Returns a normalization layer.

    Args:
        kind: one of NORMS.
        channels: number of channels.
        affine: whether the layer has learned gains and offsets.
        flat: whether the input is (B, C); instance normalization is the identity then, for
            lack of pixels.
    """
    if kind not in NORMS:
        raise ValueError(f"norm: expected one of {', '.join(NORMS)}, got {kind!r}.")
    if kind == "none" or (kind == "instance" and flat):
        return nn.Identity()
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=affine)
    return BatchNorm(channels, affine=affine, synchronized=kind == "syncbatch")


class LatentNorm(nn.Module):
    """Normalization whose gains and offsets are linear functions of a latent code."""

    def __init__(self, kind: str, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.norm = make_norm(kind, channels)
        self.fc_gamma = nn.Linear(latent_dim, channels)
        self.fc_beta = nn.Linear(latent_dim, channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalizes (B, C, h, w) and modulates it by the codes (B, latent_dim)."""
        # The code predicts the deviation of the gain from 1
        gain = 1 + self.fc_gamma(z)[:, :, None, None]
        return torch.addcmul(self.fc_beta(z)[:, :, None, None], self.norm(x), gain)


class CategoryNorm(nn.Module):
    """Normalization with gains and offsets per category; an ordinary affine one for one category."""

    def __init__(
        self, kind: str, channels: int, num_categories: int, *, flat: bool = False
    ) -> None:
        super().__init__()
        self.norm = make_norm(kind, channels, affine=num_categories == 1, flat=flat)
        self.num_categories = num_categories
        if num_categories > 1:
            self.fc_gamma = nn.Embedding(num_categories, channels)
            self.fc_beta = nn.Embedding(num_categories, channels)
            nn.init.ones_(self.fc_gamma.weight)
            nn.init.zeros_(self.fc_beta.weight)

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        """Normalizes (B, C) or (B, C, h, w) and modulates it by the categories (B,)."""
        out = self.norm(x)
        if self.num_categories == 1:
            return out
        # Broadcast over height and width, if the input has them
        shape = (x.shape[0], x.shape[1], *[1] * (x.ndim - 2))
        return out * self.fc_gamma(category).view(shape) + self.fc_beta(category).view(shape)
