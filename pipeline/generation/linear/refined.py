"""A network that adds detail to the statistical generator: it begins as that, and is trained from there."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models import generator as generators
from models.conditions import UNCONDITIONAL, Conditions
from models.generator import Generator
from pipeline.generation.linear.generator import LinearGenerator, from_state

_BASE = "base."  # of the names of the statistical generator's tensors
_BRIGHTEST = 0.98  # of the base's colors: a network could change nothing at 1


class RefinedGenerator(nn.Module):
    """Adds the output of a network to that of a statistical generator, both of the same codes and classes.

    The first latent codes are those of the statistical generator, more of them are the network's own.
    Displacement maps are added, and textures where their inverse hyperbolic tangents are, so that colors
    stay in (-1, 1): tanh(x + y) = (a + b) / (1 + a b) with a = tanh x and b = tanh y.

    Attributes:
        base: the statistical generator, which is not trained.
        network: whose output is zero before it is trained.
    """

    def __init__(self, base: LinearGenerator, network: Generator) -> None:
        super().__init__()
        self.base, self.network = base, network
        for layer in (network.conv_final, network.conv_mesh):
            assert layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def latent_dim(self) -> int:
        """Length of the latent codes."""
        return self.network.latent_dim

    @property
    def num_classes(self) -> tuple[int, ...]:
        """Number of labels of each set; empty for an unconditional model."""
        return self.network.num_classes

    @property
    def num_parts(self) -> int:
        """0: the statistical generator is not conditional on parts."""
        return self.network.num_parts

    def forward(self, z: Tensor, conditions: Conditions = UNCONDITIONAL) -> tuple[Tensor, Tensor]:
        """Generates textured meshes, as `Generator.forward` does."""
        with torch.no_grad():
            codes = z[:, : self.base.latent_dim].float()
            texture, displacement = self.base(codes, conditions)
            texture = texture.clamp(-_BRIGHTEST, _BRIGHTEST)
        detail, offset = self.network(z, conditions)
        return (texture + detail) / (1 + texture * detail), displacement + offset


AnyGenerator = Generator | LinearGenerator | RefinedGenerator


def base_of(weights: Mapping[str, Tensor]) -> LinearGenerator:
    """Returns the statistical generator within the weights of a refined one.

    Raises:
        ValueError: if there is none.
    """
    own = {k.removeprefix(_BASE): x for k, x in weights.items() if k.startswith(_BASE)}
    return from_state(own)


def network_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns num_classes and num_parts of the network within the weights of a refined generator."""
    return generators.sizes({k.removeprefix("network."): x for k, x in weights.items()})
