"""Adversarial losses of patch discriminators, weighted by masks."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GAN_LOSSES = ("hinge", "ls", "original")
Target = Literal["generator", "real", "fake"]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean over samples of the weighted mean of each; an empty mask counts as zero.

    Args:
        values: (B, ...).
        mask: non-negative weights, of the shape of values.
    """
    # Each sample counts the same, however much of it was observed
    return masked_means(values, mask).mean()


def masked_means(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the weighted mean (B,) of each sample; the arguments are those of `masked_mean`."""
    weights = mask.flatten(1)
    total = weights.sum(1)
    sums = (values.flatten(1) * weights).sum(1)
    return sums / total.clamp(min=1e-8)


def gradient_penalty(
    outputs: Sequence[Tensor],
    masks: Sequence[Tensor],
    weights: Sequence[float],
    inputs: Sequence[Tensor],
) -> Tensor:
    """Returns R1, half the mean squared gradient of what samples score (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406).

    Args:
        outputs, masks, weights: scores of real samples, as in `gan_loss`.
        inputs: (B, ...) what was scored, which requires gradients.
    """
    means = [masked_means(x, mask) * w for x, mask, w in zip(outputs, masks, weights, strict=True)]
    score = sum(means[1:], start=means[0]).sum() / sum(weights)
    gradients = torch.autograd.grad(score, inputs, create_graph=True)
    squares = [gradient.flatten(1).square().sum(1) for gradient in gradients]
    return sum(squares[1:], start=squares[0]).mean() / 2


def scale_weights(texture_resolution: int, num_outputs: int) -> tuple[float, ...]:
    """Returns the weights of the discriminators' losses; with two, a large texture counts twice."""
    if num_outputs == 2 and texture_resolution >= 512:
        return (2.0, 1.0)
    return (1.0,) * num_outputs


def gan_loss(
    kind: str,
    outputs: Sequence[Tensor],
    masks: Sequence[Tensor],
    target: Target,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Returns the adversarial loss, averaged over discriminators with the given weights.

    Args:
        kind: "hinge", "ls" (least squares) or "original" (cross-entropy).
        outputs: scores (B, 1, s, s) of each discriminator.
        masks: weights of the scores, same shapes.
        target: "real" and "fake" give the discriminator's loss for such a batch, "generator" the
            loss of the generator for the scores of its own batch.
        weights: one per discriminator; equal if None.
    """
    weights = weights if weights is not None else (1.0,) * len(outputs)
    # Weighted mean over discriminators
    losses = [
        weight * masked_mean(_score_loss(kind, output, target), mask)
        for output, mask, weight in zip(outputs, masks, weights, strict=True)
    ]
    return sum(losses[1:], start=losses[0]) / sum(weights)


def _score_loss(kind: str, x: Tensor, target: Target) -> Tensor:
    wanted_real = target != "fake"
    # The discriminator stops pushing scores beyond the margin; the generator has no margin
    if kind == "hinge":
        if target == "generator":
            return -x
        return F.relu(1 - x) if wanted_real else F.relu(1 + x)
    if kind == "ls":
        return (x - 1).square() if wanted_real else x.square()
    if kind == "original":
        return F.softplus(-x) if wanted_real else F.softplus(x)
    raise ValueError(f"kind: expected one of {', '.join(GAN_LOSSES)}, got {kind!r}.")
