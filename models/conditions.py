"""What generated meshes are conditional on."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor


class Conditions(NamedTuple):
    """Conditions of B textured meshes; None for those that a model does not have.

    Attributes:
        category: (B,) or (B, 1) int64 classes; (B, S) labels from S sets.
        seg: (B, K, r, r) part probabilities in UV space.
    """

    category: Tensor | None = None
    seg: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Conditions":
        """Applies a function to every condition that there is."""
        return Conditions(*(None if x is None else function(x) for x in self))

    def check(self, num_classes: Sequence[int], num_parts: int) -> None:
        """Compares the conditions with those that a network was made for.

        Args:
            num_classes: number of labels of each set; empty for an unconditional network.
            num_parts: channels of the part map; 0 for none.

        Raises:
            ValueError: if one is missing, or there is one too many.
        """
        if (self.category is None) != (not num_classes) or (self.seg is None) != (num_parts == 0):
            raise ValueError(
                "conditions: a category and a part map must be given exactly if the network is "
                f"conditional on them; it has {list(num_classes)} classes and {num_parts} parts."
            )


def class_sizes(num_classes: int | Sequence[int]) -> tuple[int, ...]:
    """Returns the number of labels of each set: none for 0 classes, one for any other number."""
    if isinstance(num_classes, int):
        return (num_classes,) if num_classes else ()
    return tuple(num_classes)


def columns_of(category: Tensor) -> tuple[Tensor, ...]:
    """Returns the labels (B,) of each set, of classes (B,) or (B, S)."""
    return category.reshape(len(category), -1).unbind(1)


UNCONDITIONAL = Conditions()
