"""Losses of many objects within bounded memory: a few at a time, each with its gradient at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Bytes that a chunk may take, unless a single object needs more: those of caches are fastest on a CPU
MEMORY = {"cpu": 64 * 2**20, "cuda": 2**30}

# From some objects and their rows to their losses and overlaps, (b,) each
Comparison = Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]


def in_chunks(compare: Comparison, chunk: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Compares B objects, at most `chunk` at a time.

    The gradient of each chunk is computed along with its loss, so that nothing else is kept of it.

    Args:
        compare: gets the inputs of b objects and their positions (b,) among all. The loss of an object
            may depend on its own inputs only.
        chunk: objects at a time.
        *inputs: (B, ...) each.

    Returns:
        Losses (B,), once differentiable in the inputs, and overlaps (B,) without gradient.
    """
    return _InChunks.apply(compare, chunk, *inputs)  # type: ignore[no-any-return]


def memory_for(device: torch.device) -> int:
    """Returns the bytes that a chunk may take on a device."""
    return MEMORY.get(device.type, MEMORY["cpu"])


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, compare: Comparison, chunk: int, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        gradients = [torch.empty_like(inputs[i]) for i in wanted]
        losses, overlaps = [], []
        # Each chunk is a graph of its own, gone before the next
        for rows in torch.arange(len(inputs[0]), device=inputs[0].device).split(chunk):
            some = [x[rows].detach().requires_grad_(i in wanted) for i, x in enumerate(inputs)]
            with torch.set_grad_enabled(bool(wanted)):
                loss, overlap = compare(some, rows)
                found = torch.autograd.grad(loss.sum(), [some[i] for i in wanted]) if wanted else ()
            for whole, part in zip(gradients, found, strict=True):
                whole[rows] = part
            losses.append(loss.detach())
            overlaps.append(overlap.detach())
        ctx.save_for_backward(*gradients)
        ctx.wanted, ctx.count = wanted, len(inputs)
        overlap = torch.cat(overlaps)
        ctx.mark_non_differentiable(overlap)
        return torch.cat(losses), overlap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_loss: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        result: list[Tensor | None] = [None] * ctx.count
        for i, gradient in zip(ctx.wanted, ctx.saved_tensors, strict=True):
            result[i] = gradient * of_loss[0].view(-1, *[1] * (gradient.ndim - 1))
        return None, None, *result
