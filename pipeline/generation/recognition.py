"""Whether samples of a class-conditional generator are of the classes that were asked for.

A texture is recognized as of the class whose mean training texture is nearest, on the texels that both show
and with mirror images taken together. How many photographs are recognized tells what can be expected.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.conditions import columns_of
from pipeline.generation.originality import Compared, Textures, differences


class Recognition(NamedTuple):
    """Shares, in [0, 1], of what is recognized as of its own class; NaN where there is nothing.

    Attributes:
        name: of the set of labels.
        size: number of its labels.
        samples: of generated textures.
        photographs: of the textures of photographs that were kept.
    """

    name: str
    size: int
    samples: float
    photographs: float

    def line(self) -> str:
        """Returns what to say of it."""
        held_out = (
            ""
            if math.isnan(self.photographs)
            else f", of held-out photographs {100 * self.photographs:.1f} %"
        )
        return (
            f"samples of the {self.name} asked for, by the nearest of {self.size} mean textures: "
            f"{100 * self.samples:.1f} %{held_out}"
        )


def recognize(
    compared: Compared, label_names: Mapping[str, Sequence[str]], num_classes: Sequence[int]
) -> list[Recognition]:
    """Returns how many samples are recognized, for each set of labels of a model; [] without classes.

    Args:
        compared: samples, what was trained on and what was kept.
        label_names: labels by set; empty for a model of categories.
        num_classes: number of labels of each set.
    """
    found = []
    for i, (name, count) in enumerate(zip(label_names or ["category"], num_classes, strict=False)):
        means = class_means(compared.trained, columns_of(compared.trained_labels)[i], count)
        samples, photographs = compared.samples, compared.held_out
        share = share_recognized(samples, columns_of(compared.sample_labels)[i], means)
        kept = float("nan")
        if photographs is not None and compared.held_out_labels is not None:
            kept = share_recognized(photographs, columns_of(compared.held_out_labels)[i], means)
        found.append(Recognition(name, count, share, kept))
    return found


def share_recognized(textures: Textures, labels: Tensor, means: Textures) -> float:
    """Returns the share of textures (N, ...) whose labels (N,) int64 are the numbers of the nearest means."""
    return (differences(textures, means).argmin(dim=1) == labels).double().mean().item()


def class_means(textures: Textures, labels: Tensor, count: int) -> Textures:
    """Returns the mean texture of each of `count` classes; unseen where none of its textures shows anything."""
    chosen = F.one_hot(labels, count).to(textures.colors)  # (N, C)
    mass = torch.einsum("nc,n...->c...", chosen, textures.seen)
    total = torch.einsum("nc,n...->c...", chosen, textures.colors * textures.seen)
    return Textures(total / mass.clamp(min=1), (mass > 0).to(mass))
