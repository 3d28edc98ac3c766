"""What objects look like, as a cue for poses: colors seen by one pose must be seen by others too.

Every candidate pose paints the photograph onto its template. The right candidates of a collection
agree with each other, the wrong ones paint chests onto rumps. Expectation-maximization finds out
which are right: the density of colors is estimated from the candidates that are likely so far, the
most confident images first, and the candidates are weighed by that density. It is a mixture with as
many modes as there are images, so that individuals of different colors do not disturb each other.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh

RINGS_PER_CELL, SEGMENTS_PER_CELL = 2, 2  # of the sphere
BANDWIDTH = 0.1  # root mean square difference of colors in [-1, 1]
EXPECTED_DISTANCE = 0.35  # squared difference where nothing is seen by both
EXPECTED_CELLS = 5.0  # weight of that expectation
LARGEST_BANK = 500  # images that the others are compared with
FIRST_SHARE = 0.25  # of the images that the first round looks at
ROUNDS = 6
LEAST_PROBABILITY = 0.02  # of candidates that the others are compared with
UNLIKE = 3e-4  # likeness to an image that has not been taken: colors need not occur twice
LEAST_WEIGHT = 0.05  # of the mean color, where nothing else is known
_CHUNK = 512  # candidates compared at a time


class Textures(NamedTuple):
    """Colors on the surface, left and right taken together.

    Attributes:
        colors: (..., C, 3) mean color of a cell in [-1, 1], 0 if unseen.
        weights: (..., C) how much of it was seen, in [0, 1].
    """

    colors: Tensor
    weights: Tensor

    def select(self, index: Tensor) -> "Textures":
        """Returns the textures at an index of the leading axes."""
        return Textures(self.colors[index], self.weights[index])


def surface_cells(mesh: SphereMesh) -> Tensor:
    """Returns the cell (V,) of each vertex; mirrored vertices share one."""
    rings, segments = mesh.grid.shape
    cells = torch.zeros(len(mesh.vertices), dtype=torch.int64, device=mesh.faces.device)
    ring = torch.arange(rings, device=cells.device) // RINGS_PER_CELL
    segment = torch.arange(segments, device=cells.device) // SEGMENTS_PER_CELL
    cells[mesh.grid] = ring[:, None] * (int(segment[-1]) + 1) + segment
    cells[mesh.poles] = cells[mesh.grid[[0, -1], 0]]
    cells[mesh.negative] = cells[mesh.positive]
    return torch.unique(cells, return_inverse=True)[1]


def to_textures(sums: Tensor, cells: Tensor) -> Textures:
    """Gathers sums per vertex in cells.

    Args:
        sums: (B, V, 4) color times weight, and weight, added up over pixels.
        cells: (V,).
    """
    total = sums.new_zeros(len(sums), int(cells.max()) + 1, 4).index_add_(1, cells, sums)
    weights = total[..., 3]
    return Textures(total[..., :3] / weights.clamp(min=1e-3)[..., None], weights.clamp(max=1))


def squared_distances(first: Textures, second: Textures) -> Tensor:
    """Mean squared difference of colors (A, B) over the cells that both textures show.

    Where they show little in common it tends to `EXPECTED_DISTANCE`.
    """
    a, b = (w[..., None] * c for c, w in (first, second))
    cross = a.flatten(1) @ b.flatten(1).T
    squares = [(w * c.square().sum(dim=-1)) for c, w in (first, second)]
    difference = squares[0] @ second.weights.T + first.weights @ squares[1].T - 2 * cross
    common = first.weights @ second.weights.T
    return (difference + EXPECTED_CELLS * EXPECTED_DISTANCE) / (common + EXPECTED_CELLS)


def likelihood(textures: Textures, evidence: Tensor) -> Tensor:
    """Weighs candidates by how usual their colors are in the collection.

    Args:
        textures: of N images with H candidates each, members (N, H, ...).
        evidence: (N, H) logarithm of what is known of the candidates otherwise.

    Returns:
        (N, H) logarithm of the density of the colors.
    """
    density = torch.zeros_like(evidence)
    for step in range(ROUNDS):
        share = FIRST_SHARE + (1 - FIRST_SHARE) * step / (ROUNDS - 1)
        bank = _choose_bank(torch.softmax(evidence + density, dim=1), share)
        kernels = _kernels(textures, bank)
        density = torch.cat([kernel.sum(dim=1) for kernel in kernels]) + UNLIKE / len(evidence)
        density = density.log().reshape(evidence.shape)
    return density


def expected_colors(textures: Textures, evidence: Tensor) -> Tensor:
    """Colors (N, H, C, 3) that similar images lead to expect; the candidate's mean where none do.

    Args:
        textures: members (N, H, ...).
        evidence: (N, H) logarithm of all that is known of the candidates.
    """
    bank = _choose_bank(torch.softmax(evidence, dim=1), 1.0)
    known = Textures(*(member[bank.image, bank.candidate] for member in textures))
    weighted = (known.weights[..., None] * known.colors).flatten(1)
    own = textures.weights / textures.weights.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    means = torch.einsum("nhc,nhcd->nhd", own, textures.colors).flatten(0, 1).split(_CHUNK)
    colors = []
    for kernel, mean in zip(_kernels(textures, bank), means, strict=True):
        kernel = kernel / kernel.sum(dim=1, keepdim=True).clamp(min=1e-12)
        sums, weights = (kernel @ weighted).unflatten(1, (-1, 3)), kernel @ known.weights
        filled = sums + LEAST_WEIGHT * mean[:, None]
        colors.append(filled / (weights + LEAST_WEIGHT)[..., None])
    return torch.cat(colors).unflatten(0, evidence.shape)


class _Bank(NamedTuple):
    """Likely candidates of confident images: image and candidate (M,), probability (M,)."""

    image: Tensor
    candidate: Tensor
    probability: Tensor


def _choose_bank(probability: Tensor, share: float) -> _Bank:
    """Takes the likely candidates of the most confident share of the images (N, H)."""
    size = min(LARGEST_BANK, max(2, round(share * len(probability))))
    confident = probability.amax(dim=1).argsort(descending=True, stable=True)[:size]
    image, candidate = (probability[confident] >= LEAST_PROBABILITY).nonzero(as_tuple=True)
    image = confident[image]
    return _Bank(image, candidate, probability[image, candidate])


def _kernels(textures: Textures, bank: _Bank) -> Iterator[Tensor]:
    """Yields how much each candidate of the bank speaks for each of all, (_CHUNK, M) at a time.

    Summed over the bank, it is the density of a texture; an image does not speak for itself.
    """
    count = textures.weights.shape[1]
    known = Textures(*(member[bank.image, bank.candidate] for member in textures))
    flat = Textures(*(member.flatten(0, 1) for member in textures))
    for rows in torch.arange(len(flat.weights)).split(_CHUNK):
        distances = squared_distances(flat.select(rows), known)
        others = bank.probability * (rows[:, None] // count != bank.image)
        share = others / others.sum(dim=1, keepdim=True).clamp(min=1e-6)
        yield share * torch.exp(-distances / (2 * BANDWIDTH**2))
