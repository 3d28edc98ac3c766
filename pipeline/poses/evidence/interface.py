"""What all kinds of evidence about poses have in common.

A kind of evidence measures the candidates of a few photographs at a time; the measurements are kept on
disk. When all are there, it judges them together: for which images it speaks, and how surely it tells
their candidates apart. Poses can be refined against evidence that predicts what a photograph shows.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.poses.candidates import Candidates
from pipeline.poses.photographs import Photographs
from utils.row_files import Column


class Verdict(NamedTuple):
    """What one kind of evidence says of the candidates of N images.

    Attributes:
        value: (N, H) what was measured; larger is better.
        noise: (N,) standard deviation of the value: the smaller, the surer the evidence is.
        speaks: (N,) whether it says anything of an image.
    """

    value: Tensor
    noise: Tensor
    speaks: Tensor

    def support(self) -> Tensor:
        """Returns the log-likelihood (N, H) up to a constant of each image, 0 where it is silent."""
        return torch.where(self.speaks[:, None], self.value / self.noise[:, None], 0.0)

    def or_else(self, other: "Verdict") -> "Verdict":
        """Returns this verdict, and the other one for the images of which this one is silent."""
        return Verdict(
            torch.where(self.speaks[:, None], self.value, other.value),
            torch.where(self.speaks, self.noise, other.noise),
            self.speaks | other.speaks,
        )


class Evidence(Protocol):
    """Measures candidates; judging takes what a kind needs, and has a signature of its own."""

    def columns(self, count: int) -> dict[str, Column]:
        """Returns what is measured of `count` candidates of an image, by name."""
        ...

    def measure(self, photographs: Photographs, candidates: Candidates) -> Mapping[str, Tensor]:
        """Returns the measurements (n, H, ...) of the candidates (n, H) of n photographs."""
        ...


class Guide(Protocol):
    """Evidence that a pose can be refined against: it predicts what a photograph shows.

    Attributes:
        weight: of its maps, if the mask has 1.
    """

    @property
    def weight(self) -> float: ...

    def maps(self, photographs: Photographs) -> Tensor:
        """Returns C maps (n, C, h, w) of n photographs."""
        ...

    def expected(self, rows: Tensor, index: Tensor, chosen: Candidates) -> Tensor:
        """Returns what the maps should be at the vertices of the templates.

        Args:
            rows: (n,) images.
            index: (n, R) positions of candidates among those of their image.
            chosen: (n, R) these candidates.

        Returns:
            (n, R, V, C) values at the vertices.
        """
        ...
