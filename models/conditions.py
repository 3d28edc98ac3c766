"""What generated meshes are conditional on."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Conditions(NamedTuple):
    """Conditions of B textured meshes; None for those that a model does not have.

    Attributes:
        category: (B,) or (B, 1) int64 classes.
        seg: (B, K, r, r) part probabilities in UV space.
    """

    category: Tensor | None = None
    seg: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Conditions":
        """Applies a function to every condition that there is."""
        return Conditions(*(None if x is None else function(x) for x in self))

    def check(self, num_classes: int, num_parts: int) -> None:
        """Compares the conditions with those that a network was made for.

        Raises:
            ValueError: if one is missing, or there is one too many.
        """
        if (self.category is None) != (num_classes == 0) or (self.seg is None) != (num_parts == 0):
            raise ValueError(
                "conditions: a category and a part map must be given exactly if the network is "
                f"conditional on them; it has {num_classes} classes and {num_parts} parts."
            )


UNCONDITIONAL = Conditions()
