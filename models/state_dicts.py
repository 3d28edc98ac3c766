"""Translates foreign names of tensors in checkpoints to ours, which are the published ones."""

import re
from collections.abc import Mapping

from torch import Tensor

# Applied in this order to every name
TRANSLATIONS = (
    # Networks that were saved within DataParallel or DistributedDataParallel, or compiled
    (r"^(?:module\.|_orig_mod\.)+", ""),
    # Spectral norms made by torch.nn.utils.parametrizations instead of the older hooks
    (r"\bparametrizations\.weight\.original$", "weight_orig"),
    (r"\bparametrizations\.weight\.0\._(u|v)$", r"weight_\1"),
)


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict under our names.

    Spectral norms keep their vectors as they are stored, of unit length or not: the averaged
    generators of the published checkpoints are evaluated with averaged vectors.

    Raises:
        ValueError: if two names coincide, a number is not finite, or the content is no state dict.
    """
    if not isinstance(state, Mapping) or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError("expected names with tensors")
    if not all(x.isfinite().all() for x in state.values()):
        raise ValueError("numbers that are not finite")
    translated = {_translate(name): value for name, value in state.items()}
    if len(translated) != len(state):
        raise ValueError("several tensors have the same name")
    return translated


def _translate(name: str) -> str:
    for pattern, ours in TRANSLATIONS:
        name = re.sub(pattern, ours, name)
    return name
