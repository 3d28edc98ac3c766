"""How well the meshes of a run cover their masks, by which photographs unlike its own are told."""

from collections.abc import Mapping

import torch
from torch import Tensor

from utils import distributed

KEY = "usual_overlap"  # of the entry in checkpoints and model files
DECAY = 0.98  # per step


class UsualOverlap:
    """A running mean over the last steps.

    Attributes:
        sums: (2,) overlaps and steps, both decayed.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, device=device)

    def observe(self, overlap: Tensor) -> None:
        """Takes the mean overlap of a step into account, a scalar of each process."""
        mean = distributed.all_reduce_(overlap.detach().clone()) / distributed.world_size()
        self.sums = DECAY * self.sums + torch.stack([mean, torch.ones_like(mean)]).to(self.sums)

    @property
    def value(self) -> float:
        """The mean, in [0, 1]; 0 before the first step."""
        return float(self.sums[0] / self.sums[1].clamp(min=1e-6))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what training continues with."""
        return {"sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state."""
        self.sums.copy_(state["sums"])
