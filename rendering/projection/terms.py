"""The term that compares silhouettes of meshes with masks: by rendering, or by points on their surfaces.

All terms have one interface, so that poses, templates and networks are fitted by any of them.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from geometry.distances import hard_iou
from rendering.backends import SHARPNESS
from rendering.projection.chunks import in_chunks, memory_for
from rendering.projection.cover import SIDE, cover_errors
from rendering.projection.losses import objects_at_a_time, shrink
from rendering.projection.schedule import keep, share_at, sigma_at
from rendering.projection.surface import draw, place, squeeze_depth
from rendering.projection.volume import gaussian_band, occupancy, silhouette
from rendering.rasterizer import silhouette_loss
from utils.seeding import torch_generator

KINDS = ("raster", "volume", "cover")
POINTS_PER_CELL = 125  # points on a mesh, for each cell along an edge of the grid: 8000 for 64
COVER_POINTS = 512
_PAIR_NUMBERS = 8  # of a pair of points, that exist at the same time
DENSITY = 3.0  # sum of the occupancies of all points, per pixel of the mask
SPREAD = 1.0  # weight of the repulsion of points that cover a mask


class Moment(NamedTuple):
    """When in an optimization silhouettes are compared.

    Attributes:
        step: number of steps made before; points that take part are drawn anew in each.
        progress: from 0, coarse and few points, to 1.
        sharpness: of rendered silhouettes, per squared screen unit.
    """

    step: int
    progress: float
    sharpness: float = SHARPNESS


class SilhouetteTerm(Protocol):
    """Compares silhouettes of meshes with masks."""

    def __call__(
        self, screen: Tensor, shape: Tensor, targets: Tensor, target_index: Tensor, moment: Moment
    ) -> tuple[Tensor, Tensor]:
        """Compares B meshes with the masks that belong to them.

        Args:
            screen: (B, V, 3) vertices in screen space.
            shape: (B,) int64, the template that each mesh comes from.
            targets: (N, h, h) masks in [0, 1].
            target_index: (B,) int64, the mask of each mesh.
            moment: of the optimization.

        Returns:
            Errors (B,), differentiable in the vertices, and overlaps (B,) without gradient.
        """
        ...


class Rendered:
    """Soft silhouettes of the rasterizer."""

    def __init__(self, faces: Tensor) -> None:
        """Renders meshes with faces (F, 3)."""
        self._faces = faces

    def __call__(
        self, screen: Tensor, shape: Tensor, targets: Tensor, target_index: Tensor, moment: Moment
    ) -> tuple[Tensor, Tensor]:
        """See `SilhouetteTerm`."""
        del shape  # the faces say all
        return silhouette_loss(
            screen, self._faces, targets, target_index, sharpness=moment.sharpness
        )


class Filled:
    """Points on the meshes fill a grid, on whose rays lies the silhouette; see `volume`."""

    def __init__(self, templates: Tensor, faces: Tensor, size: int, seed: int) -> None:
        """Draws points on templates (T, V, 3), for a grid of edge `size`."""
        generator = torch_generator(seed, "points on meshes")
        self._draws = draw(templates, faces, POINTS_PER_CELL * size, generator)
        self._size, self._seed = size, seed

    def __call__(
        self, screen: Tensor, shape: Tensor, targets: Tensor, target_index: Tensor, moment: Moment
    ) -> tuple[Tensor, Tensor]:
        """See `SilhouetteTerm`."""
        size, sigma = self._size, sigma_at(moment.progress)
        # As many points take part as the schedule says, the same of all meshes
        generator = torch_generator(self._seed, "kept points", moment.step)
        count = self._draws.weights.shape[1]
        kept = keep(count, share_at(moment.progress), generator).to(screen.device)
        draws = self._draws.select(kept)
        # Together they fill each mask evenly; the masks are blurred as the points are
        masks = shrink(targets, size)
        scale = DENSITY * masks.sum(dim=(1, 2)).clamp(min=1) / len(kept)
        wanted = expected(masks, sigma)

        def compare(inputs: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
            points = squeeze_depth(place(draws, inputs[0], shape[rows]))
            mask = target_index[rows]
            seen = silhouette(occupancy(points, size, sigma, scale[mask]))
            error = (seen - wanted[mask]).square().mean(dim=(1, 2))
            return error, hard_iou(seen.detach(), masks[mask])

        chunk = objects_at_a_time(len(kept), size, memory_for(screen.device))
        return in_chunks(compare, chunk, screen)


class Covered:
    """Points on the meshes cover the mask; see `cover`."""

    def __init__(self, templates: Tensor, faces: Tensor, seed: int) -> None:
        """Draws points on templates (T, V, 3)."""
        self._draws = draw(templates, faces, COVER_POINTS, torch_generator(seed, "cover"))

    def __call__(
        self, screen: Tensor, shape: Tensor, targets: Tensor, target_index: Tensor, moment: Moment
    ) -> tuple[Tensor, Tensor]:
        """See `SilhouetteTerm`."""
        masks, sigma = shrink(targets, SIDE), sigma_at(moment.progress)

        def compare(inputs: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
            points = place(self._draws, inputs[0], shape[rows])[..., :2]
            return cover_errors(points, masks[target_index[rows]], sigma, SPREAD)

        chunk = memory_for(screen.device) // (4 * _PAIR_NUMBERS * COVER_POINTS**2)
        return in_chunks(compare, max(chunk, 1), screen)


def expected(masks: Tensor, sigma: float) -> Tensor:
    """Returns the silhouettes (N, G, G) of points that fill masks (N, G, G) evenly, at a sigma in cells.

    Trilinear weights blur by a triangle. Without that, objects would have to be smaller than their masks.
    """
    band = gaussian_band(masks.shape[-1], sigma).to(masks)
    triangle = functional.pad(masks, (1, 1, 1, 1))
    for axis in (1, 2):
        low, mid, high = (triangle.narrow(axis, k, masks.shape[-1]) for k in range(3))
        triangle = (low + 6 * mid + high) / 8
    return 1 - torch.exp(-DENSITY * (band @ triangle @ band))


# From templates (T, V, 3) and faces (F, 3)
TermMaker = Callable[[Tensor, Tensor], SilhouetteTerm]


def make_term(
    kind: str, templates: Tensor, faces: Tensor, size: int, seed: int = 0
) -> SilhouetteTerm:
    """Returns a term for meshes that come from templates (T, V, 3) with faces (F, 3).

    Args:
        kind: of KINDS.
        templates: object space; points are drawn on them by area.
        faces: counter-clockwise seen from outside.
        size: edge of the grid of `volume`.
        seed: of the points.
    """
    if kind == "raster":
        return Rendered(faces)
    if kind == "cover":
        return Covered(templates, faces, seed)
    return Filled(templates, faces, size, seed)


def describe(kind: str, size: int, device: torch.device) -> str:
    """Returns what a term computes with, and the memory that it takes at most."""
    if kind == "raster":
        return "rendered"
    megabytes = memory_for(device) // 2**20
    if kind == "cover":
        return f"covered by {COVER_POINTS} points a mesh, in chunks of {megabytes} MB"
    points = POINTS_PER_CELL * size
    count = objects_at_a_time(points, size, memory_for(device))
    return (
        f"from {points} points a mesh in {size}^3 cells, {count} meshes at a time in {megabytes} MB"
    )
