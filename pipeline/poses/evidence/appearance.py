"""What photographs show, as evidence for poses: what one pose sees, the poses of other images must see too.

Every candidate paints a picture of the photograph, its colors or semantic features, onto its template.
The right candidates of a collection agree with each other, the wrong ones paint chests onto rumps.
Expectation-maximization finds out which are right: the density of such textures is estimated from the
candidates that are likely so far, the most confident images first, and the candidates are weighed by that
density. It is a mixture with as many modes as there are images, so that individuals of different colors
do not disturb each other.

Images that are seen from one side agree with each other also where all of them are wrong in the same way,
and are so alike that they decide. Only images from other sides contradict them: where nothing else tells the
poses of one outline apart, the density among these counts by itself as well.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import project
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.candidates import Candidates
from pipeline.poses.evidence.interface import Verdict
from pipeline.poses.evidence.measurements import Measurements
from pipeline.poses.evidence.outlines import shrink
from pipeline.poses.evidence.pictures import Likeness, Picture
from pipeline.poses.evidence.textures import Textures, from_bytes, surface_cells, to_textures
from pipeline.poses.photographs import Photographs
from pipeline.poses.semantic_template import splat
from utils import distributed
from utils.row_files import Column

PAINTED_SIZE = 64  # pixels of the pictures that are painted onto the templates
EXPECTED_CELLS = 5.0  # weight of the expected difference
LARGEST_BANK = 500  # images that the others are compared with
FIRST_SHARE = 0.25  # of the images that the first round looks at
ROUNDS = 6
LEAST_PROBABILITY = 0.02  # of candidates that the others are compared with
BACKGROUND = 3e-4  # density that every texture has, divided by N: textures need not occur twice
GUIDE_WEIGHT = 1.0  # of pictures in the refinement
LEAST_WEIGHT = 0.05  # of the mean value, where nothing else is known
SAME_SIDE = 30.0  # degrees between the directions of views that look alike
LEAST_ELSEWHERE = 0.03  # share of the density among all images, where few are from other sides

Fetch = Callable[[Sequence[int]], Textures]  # textures (n, H, ...) of n images


class Source(NamedTuple):
    """Textures of all candidates.

    Attributes:
        fetch: reads those of some images.
        likeness: how they are compared.
        weight: of the logarithm of their density, less than 1 where another kind says the same.
    """

    fetch: Fetch
    likeness: Likeness
    weight: float = 1.0


class Moments(NamedTuple):
    """Textures in the form in which they are compared; made by `moments`.

    Attributes:
        weights: (A, C) float64.
        sums: (A, C D) values times weights.
        squares: (A, C) squared lengths of the values, times weights.
    """

    weights: Tensor
    sums: Tensor
    squares: Tensor


class Bank(NamedTuple):
    """Likely candidates of confident images, which the others are compared with.

    Attributes:
        image: (M,) image of each.
        candidate: (M,) its position among the candidates of its image.
        probability: (M,) its probability among the candidates of its image.
        textures: their M textures.
        likeness: how textures are compared with them.
    """

    image: Tensor
    candidate: Tensor
    probability: Tensor
    textures: Moments
    likeness: Likeness


class Appearance:
    """Compares pictures that the candidates of all images paint onto the templates (T, V, 3)."""

    def __init__(
        self, picture: Picture, templates: Tensor, mesh: SphereMesh, weight: float = 1.0
    ) -> None:
        self._picture, self._templates, self._faces = picture, templates, mesh.faces
        self._weight = weight
        self._cells = surface_cells(mesh)

    def columns(self, count: int) -> dict[str, Column]:
        """Returns the textures, rounded to bytes."""
        shape = (count, int(self._cells.max()) + 1, self._picture.depth + 1)
        return {self._picture.name: Column(shape, torch.uint8)}

    def measure(self, photographs: Photographs, candidates: Candidates) -> dict[str, Tensor]:
        """Paints n photographs with their candidates (n, H)."""
        # The mask is the last channel, and becomes the weight
        drawn = torch.cat([self._picture.draw(photographs), photographs.masks[:, None]], dim=1)
        small = shrink(drawn, PAINTED_SIZE)
        candidates = candidates.to(small.device)
        painted = []
        for i, picture in enumerate(small):
            pose, choice = candidates.select(i)
            screen = project(self._templates[choice], pose)
            sums = splat(screen, self._faces, picture.expand(len(screen), -1, -1, -1))
            painted.append(to_textures(sums, self._cells).to_bytes().cpu())
        return {self._picture.name: torch.stack(painted)}

    def source(self, measured: Measurements) -> Source:
        """Returns the textures that have been measured."""
        name, likeness = self._picture.name, self._picture.likeness
        return Source(lambda rows: from_bytes(measured.read(name, rows)), likeness, self._weight)

    def guide(self, measured: Measurements, score: Tensor) -> "AppearanceGuide":
        """Returns the pictures to refine poses against, given the scores (N, H) of all candidates."""
        source = self.source(measured)
        return AppearanceGuide(
            self._picture, source.fetch, choose_bank(source, score, 1.0), self._cells
        )


class AppearanceGuide:
    """Pictures that similar images lead to expect."""

    def __init__(self, picture: Picture, fetch: Fetch, bank: Bank, cells: Tensor) -> None:
        self._picture, self._fetch, self._bank, self._cells = picture, fetch, bank, cells

    @property
    def weight(self) -> float:
        """As much as the mask, although pictures have more channels."""
        return GUIDE_WEIGHT

    def maps(self, photographs: Photographs) -> Tensor:
        """Returns the pictures (n, D, h, w)."""
        return self._picture.draw(photographs)

    def expected(self, rows: Tensor, index: Tensor, chosen: Candidates) -> Tensor:
        """Returns the values (n, R, V, D) that the textures of candidates lead to expect."""
        # Image by image, each against the bank without itself
        textures = self._fetch(rows.tolist())
        values = [
            expected_values(textures.select((torch.tensor(i), some)), int(row), self._bank)
            for i, (row, some) in enumerate(zip(rows, index, strict=True))
        ]
        return torch.stack(values).to(chosen.choice.device)[:, :, self._cells]


def judge(sources: Sequence[Source], score: Tensor, sides: Tensor | None = None) -> Verdict:
    """Weighs candidates by how usual what they paint is in the collection.

    Args:
        sources: textures of N images, of each kind of picture.
        score: (N, H) logarithm of what is known of the candidates otherwise.
        sides: (N, H, 3) from where they are seen, if other sides are to count; see `densities`.

    Returns:
        The logarithm of the density of textures, as it is; it speaks for images whose textures occur
        in others.
    """
    found = densities(sources, score, sides)
    # Where no other image has such textures, all candidates have the same density
    unseen = (1 if sides is None else 2) * found.new_tensor(BACKGROUND / len(score)).log()
    speaks = (found > unseen + 1e-3).any(dim=(1, 2))
    return Verdict(together(found, sources).to(score), torch.ones(len(score)), speaks)


def moments(textures: Textures) -> Moments:
    """Prepares textures (A, ...) for comparison.

    In float64: differences of the sums cancel, and would depend on the order of the images.
    """
    values, weights = (member.double() for member in textures)
    sums = (weights[..., None] * values).flatten(1)
    return Moments(weights, sums, weights * values.square().sum(dim=-1))


def squared_distances(first: Moments, second: Moments, expected: float) -> Tensor:
    """Mean squared difference of values (A, B) over the cells that both textures show.

    Where they show little in common it tends to what is expected of any two.
    """
    # |a - b|^2 in every cell, weighted by how much of it both show
    squares = first.squares @ second.weights.T + first.weights @ second.squares.T
    difference = squares - 2 * first.sums @ second.sums.T
    common = first.weights @ second.weights.T
    return (difference + EXPECTED_CELLS * expected) / (common + EXPECTED_CELLS)


def sides_of(rotation: Tensor) -> Tensor:
    """Returns the directions (..., 3) into which rotations (..., 4) look, left and right taken together."""
    forward = quaternion.to_matrix(rotation)[..., 2, :]
    return torch.cat([forward[..., :1].abs(), forward[..., 1:]], dim=-1)


def densities(sources: Sequence[Source], score: Tensor, sides: Tensor | None = None) -> Tensor:
    """Estimates the densities of the textures of all candidates by expectation-maximization.

    The processes share the images. Every image is compared by itself, so that the result does not
    depend on how they share them.

    Args:
        sources: textures of K kinds.
        score: (N, H) logarithm of what is known of the candidates otherwise.
        sides: (N, H, 3) from where they are seen, of `sides_of`; None if the density among images from
            other sides is not to count by itself.

    Returns:
        (N, K, H) logarithms of the densities; with sides, of both densities, added up.
    """
    found = torch.zeros(len(score), len(sources), score.shape[1], dtype=torch.float64)
    shard = distributed.shard(len(score))
    # From the most confident images to all of them
    for step in range(ROUNDS):
        share = FIRST_SHARE + (1 - FIRST_SHARE) * step / (ROUNDS - 1)
        belief = score + together(found, sources)
        banks = [choose_bank(source, belief, share) for source in sources]
        # The images of this process
        count = 1 if sides is None else 2
        mine = found.new_zeros(len(shard), len(sources), count, score.shape[1])
        for i, row in enumerate(shard):
            for k, (source, bank) in enumerate(zip(sources, banks, strict=True)):
                own = Textures(*(x[0] for x in source.fetch([row])))
                kernel = kernels(own, row, bank)
                mine[i, k, 0] = kernel.sum(dim=1)
                if sides is not None:
                    mine[i, k, 1] = elsewhere(kernel, row, bank, sides)
        # The density of all of them is small enough for every process
        gathered = torch.cat(distributed.gather(mine))
        found = (gathered + BACKGROUND / len(score)).log().sum(dim=2)
    return found


def elsewhere(kernel: Tensor, image: int, bank: Bank, sides: Tensor) -> Tensor:
    """Returns the density (R,) among the members of a bank that are seen from other sides.

    Where there are hardly any, it tends to the density among all of them.

    Args:
        kernel: (R, M) how much each member supports the R candidates of the image; see `kernels`.
        image: to which they belong.
        bank: M members.
        sides: (N, R, 3) of all candidates.
    """
    cosine = sides[image].double() @ sides[bank.image, bank.candidate].double().T
    # A normal density of small angles
    other = 1 - torch.exp((cosine - 1) / math.radians(SAME_SIDE) ** 2)
    support = (kernel * other).sum(dim=1) + LEAST_ELSEWHERE * kernel.sum(dim=1)
    return support / ((shares(image, bank) * other).sum(dim=1) + LEAST_ELSEWHERE)


def together(found: Tensor, sources: Sequence[Source]) -> Tensor:
    """Returns the weighted sum (N, H) of logarithms of densities (N, K, H)."""
    weights = found.new_tensor([source.weight for source in sources])
    return (weights[:, None] * found).sum(dim=1)


def expected_values(textures: Textures, image: int, bank: Bank) -> Tensor:
    """Values (R, C, D) that similar images lead to expect; the texture's mean where none do.

    Args:
        textures: of R candidates.
        image: to which they belong.
        bank: of the other images.
    """
    # Mean of the bank, by likeness
    kernel = kernels(textures, image, bank)
    kernel = kernel / kernel.sum(dim=1, keepdim=True).clamp(min=1e-12)
    sums = (kernel @ bank.textures.sums).unflatten(1, (textures.weights.shape[1], -1))
    # Mean of the texture itself, for cells that nobody has seen
    own = textures.weights / textures.weights.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    mean = torch.einsum("rc,rcd->rd", own, textures.values).double()
    weights = kernel @ bank.textures.weights
    return ((sums + LEAST_WEIGHT * mean[:, None]) / (weights + LEAST_WEIGHT)[..., None]).float()


def choose_bank(source: Source, score: Tensor, share: float) -> Bank:
    """Takes the likely candidates of the most confident share of the images, by scores (N, H)."""
    probability = torch.softmax(score, dim=1)
    size = min(LARGEST_BANK, max(2, round(share * len(probability))))
    # By the odds against, which do not all round to the same number as probabilities near 1 do
    best = score.argmax(dim=1, keepdim=True)
    against = probability.scatter(1, best, 0.0).sum(dim=1)
    confident = against.argsort(stable=True)[:size].sort().values
    # Unlikely candidates would blur the density
    image, candidate = (probability[confident] >= LEAST_PROBABILITY).nonzero(as_tuple=True)
    textures = source.fetch(confident.tolist()).select((image, candidate))
    return Bank(
        confident[image],
        candidate,
        probability[confident[image], candidate],
        moments(textures),
        source.likeness,
    )


def kernels(textures: Textures, image: int, bank: Bank) -> Tensor:
    """Returns how much each member of the bank supports textures (R, ...) of an image: (R, M) float64.

    Summed over the bank, it is the density of a texture, leaving out what the image itself
    contributes.
    """
    bandwidth, expected = bank.likeness
    distances = squared_distances(moments(textures), bank.textures, expected)
    return shares(image, bank) * torch.exp(-distances / (2 * bandwidth**2))


def shares(image: int, bank: Bank) -> Tensor:
    """Returns the probabilities (M,) of the members from other images, which add up to 1."""
    others = bank.probability * (bank.image != image)
    return others / others.sum().clamp(min=1e-6)
