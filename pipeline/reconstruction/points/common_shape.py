"""Poses of all views at once, by what all objects have in common: one cloud of points.

It is fitted by expectation-maximization. Cameras stand upright, all around objects that are their own mirror
images. A view may come from any direction r of a grid, with the probability

    p(r | view) ~ exp(-e_r / T) / u_r^a,    e_r = 1/2 sum of squared errors of its silhouette,

where u_r is the share of all views that come from the azimuth of r: at first (a = 1) none is usual. The points
descend the mean of sum_r p(r | view) e_r. Several starts in coarse cells compete by it; the best one is fitted
again in finer cells.
"""

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion
from models.point_clouds import SECTORS, with_mirror_images
from pipeline.reconstruction.points.projection import to_screen
from rendering.projection.losses import shrink
from rendering.projection.volume import occupancy, silhouette
from utils.progress import progress
from utils.seeding import torch_generator

STARTS, RATE = 3, 0.01
ELEVATIONS = -20.0, 40.0  # degrees, of all views
TURNS, TILTS = (
    3,
    9,
)  # directions that are tried at last within each sector, by azimuth and elevation
# Objects are longer than wide: where all sides look alike, no direction can be told from another
START_RADII, START_SCALE = (0.09, 0.24, 0.09), 2.0

logger = logging.getLogger(__name__)


class Stage(NamedTuple):
    """A part of the fit; values that change are those of its first and its last step.

    Attributes:
        grid: cells along each edge, and pixels of the masks.
        azimuths: of the directions.
        elevations: of the directions, how many.
        points: each with its mirror image.
        steps: of Adam.
        temperature: T, in pixels.
        sigma: of the Gaussian, in cells.
        evenness: a, the power of the shares of the azimuths.
    """

    grid: int
    azimuths: int
    elevations: int
    points: int
    steps: int
    temperature: tuple[float, float]
    sigma: tuple[float, float]
    evenness: tuple[float, float]


COARSE = Stage(16, 24, 3, 400, 90, (0.5, 0.125), (1.0, 0.5), (1.0, 0.0))
FINE = Stage(32, 36, 4, 1200, 60, (0.5, 0.3), (1.0, 0.5), (0.0, 0.0))


class CommonShape(NamedTuple):
    """What all objects have in common.

    Attributes:
        points: (P, 3), each of which has a mirror image at -x beside it.
        error: (M, SECTORS) half the squared errors of each view, from the best direction of each sector.
        rotation: (M, SECTORS, 4) that direction.
    """

    points: Tensor
    error: Tensor
    rotation: Tensor


class _Fit(NamedTuple):
    """Points (P, 3), their scale, and the mean error over the views."""

    points: Tensor
    scale: Tensor
    error: float


def find(masks: Tensor, seed: int) -> CommonShape:
    """Fits a cloud to masks (M, FINE.grid, FINE.grid) in [0, 1], of views of many objects.

    Args:
        masks: of the views.
        seed: of starts and directions.
    """
    found = []
    for start in progress(range(STARTS), description="common shape"):
        generator = torch_generator(seed, "common shape", start)
        ball = torch.randn(COARSE.points, 3, generator=generator) * torch.tensor(START_RADII)
        coarse = shrink(masks, COARSE.grid)
        found.append(_fit(COARSE, ball.to(masks), coarse, generator))
    text = ", ".join(f"{each.error:.2f}" for each in found)
    logger.info("common shape: mean errors %s from %d starts, in pixels", text, STARTS)
    best = min(found, key=lambda each: each.error)
    # More points beside those of the best start
    generator = torch_generator(seed, "common shape", "fine")
    copies = best.points.repeat(FINE.points // COARSE.points, 1)
    near = 1 / FINE.grid * torch.randn(copies.shape, generator=generator)
    fine = _fit(FINE, copies + near.to(masks), masks, generator)
    return CommonShape(fine.points, *_best_of_sectors(fine, masks))


def _best_of_sectors(found: _Fit, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the least errors (M, SECTORS) within each sector of the azimuth, and their rotations."""
    low, high = ELEVATIONS
    width = 360 / SECTORS
    turns = (torch.arange(TURNS) - (TURNS - 1) / 2) * (width / TURNS)
    azimuth = torch.arange(SECTORS)[:, None] * width + turns
    elevation = torch.linspace(low, high, TILTS)
    pairs = torch.cartesian_prod(azimuth.flatten(), elevation)
    rotation = quaternion.from_view(pairs[:, 0], pairs[:, 1], torch.zeros(len(pairs))).to(masks)
    # A sector at a time
    cloud, errors = with_mirror_images(found.points), []
    for some in rotation.split(TURNS * TILTS):
        seen = silhouettes(cloud, some, FINE.grid, FINE.sigma[1], found.scale)
        errors.append(compare(seen, masks))
    least, best = torch.stack(errors, dim=1).min(dim=2)
    return least, rotation.view(SECTORS, -1, 4)[torch.arange(SECTORS), best]


def _fit(stage: Stage, points: Tensor, masks: Tensor, generator: torch.Generator) -> _Fit:
    """Fits points (P, 3) to masks (M, stage.grid, stage.grid)."""
    free = (2 * points.clamp(-0.45, 0.45)).atanh().requires_grad_()
    scale = masks.new_full((), START_SCALE).requires_grad_()
    optimizer = torch.optim.Adam([free, scale], lr=RATE)
    error = math.inf
    for step in range(stage.steps):
        temperature, sigma, evenness = (
            first + (last - first) * step / stage.steps
            for first, last in (stage.temperature, stage.sigma, stage.evenness)
        )
        # Expectation: where views may come from
        directions = draw_directions(stage, generator).to(masks)
        cloud = with_mirror_images(free.tanh() / 2)
        seen = silhouettes(cloud, directions, stage.grid, sigma, scale.sigmoid())
        errors = compare(seen, masks)
        weights = responsibilities(errors.detach(), temperature, evenness, stage.azimuths)
        # Maximization: a step towards what explains them
        loss = (weights * errors).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        error = float(loss.detach())
    return _Fit(free.detach().tanh() / 2, scale.detach().sigmoid(), error)


def draw_directions(stage: Stage, generator: torch.Generator) -> Tensor:
    """Returns rotations (R, 4) of a grid that is shifted at random; those of an azimuth follow each other."""
    low, high = ELEVATIONS
    shifts = torch.rand(2, generator=generator)
    azimuth = (torch.arange(stage.azimuths) + shifts[0]) * (360 / stage.azimuths)
    number = stage.elevations
    elevation = low + (torch.arange(number) + shifts[1]) * ((high - low) / number)
    pairs = torch.cartesian_prod(azimuth, elevation)
    return quaternion.from_view(pairs[:, 0], pairs[:, 1], torch.zeros(len(pairs)))


def silhouettes(points: Tensor, rotation: Tensor, size: int, sigma: float, scale: Tensor) -> Tensor:
    """Returns silhouettes (R, size, size) of points (N, 3) of a scale under rotations (R, 4)."""
    screen = to_screen(points.expand(len(rotation), -1, -1), rotation)
    return silhouette(occupancy(screen, size, sigma, scale.expand(len(rotation))))


def compare(seen: Tensor, masks: Tensor) -> Tensor:
    """Returns half the squared errors (M, R) between silhouettes (R, G, G) and masks (M, G, G)."""
    first, second = masks.flatten(1), seen.flatten(1)
    squares = first.square().sum(1)[:, None] + second.square().sum(1)
    return squares / 2 - first @ second.T


def responsibilities(errors: Tensor, temperature: float, evenness: float, azimuths: int) -> Tensor:
    """Returns the probabilities (M, R) of directions, given errors (M, R).

    Args:
        errors: between all views and directions.
        temperature: in units of the errors.
        evenness: power of the share of an azimuth by which is divided; 1 makes azimuths alike.
        azimuths: of the directions.
    """
    likely = (-errors / temperature).softmax(dim=1).unflatten(1, (azimuths, -1))
    share = likely.sum(dim=2).mean(dim=0).clamp(min=1e-6)
    balanced = (likely / share[:, None] ** evenness).flatten(1)
    return balanced / balanced.sum(dim=1, keepdim=True)
