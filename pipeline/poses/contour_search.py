"""Coarse search for poses: outlines of a mesh are moved onto those of masks, nothing is rendered softly.

The search starts from the views of an even grid whose normalized silhouettes are most like a mask.
Levenberg-Marquardt then moves the contour points of the mesh onto the outline of the mask. The best
results that differ in rotation are the modes of an image.
"""

import math

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor
from torch.nn import functional

from data.definitions import ViewPrior
from geometry import camera, quaternion
from geometry.camera import Pose
from geometry.operators import edge_table
from pipeline.poses import numba_contour
from pipeline.poses.candidates import Candidates, distinct
from pipeline.poses.numba_contour import Meshes, Outlines, Problems, Tilts
from utils.numba_jit import Array
from utils.threads import map_chunks

SPACING = 15.0  # degrees between the views of the grid
REACH = 2.0  # standard deviations of the prior that the grid spans
VIEW_RADIUS = 0.7  # of a drawn template about its origin, in screen units
NUM_STARTS = 32  # views of an image that are moved
START_SEPARATION = 20.0  # degrees
NUM_MODES = 8
MODE_SEPARATION = 12.0  # degrees
STEPS = 12
FIELD_SIZE = 128  # pixels of the distance fields
MASK_SIZE = 64  # pixels of the silhouettes that are compared
NUM_SAMPLES = 96  # points on the outline of a mask
SIGNATURE_SIZE = 24
SIGNATURE_REACH = 2.2  # half the side of a signature, in radii of the disk of equal area


class ContourSearch:
    """Search for the poses of some templates; the views of the grid are drawn once.

    Attributes:
        prior: distribution of the rotations.
    """

    def __init__(
        self,
        templates: Tensor,
        faces: Tensor,
        prior: ViewPrior,
        num_starts: int | None = None,
        num_modes: int | None = None,
    ) -> None:
        """Draws the templates (T, V, 3) with faces (F, 3) in every view of the grid."""
        self._num_starts, self._num_modes = num_starts or NUM_STARTS, num_modes or NUM_MODES
        # The compiled loops work in float64
        shared = faces.cpu().numpy()
        self._meshes = Meshes(templates.cpu().double().numpy(), shared, edge_table(shared))
        self.prior = prior
        # Every template in every view of the grid
        rotation = view_grid(prior)
        drawn = [self._draw(vertices, rotation) for vertices in self._meshes.templates]
        choice = torch.arange(len(drawn)).repeat_interleave(len(rotation))
        self._views = Candidates(camera.concatenate([pose for pose, _ in drawn]), choice)
        # What the silhouettes of masks are compared with
        self._signatures, self._frames = signatures(torch.cat([masks for _, masks in drawn]))

    def find(self, masks: Tensor) -> Candidates:
        """Returns the modes, poses that differ in rotation, of each of N masks (N, h, h), best first.

        The masks have values in [0, 1]; each is searched on its own.
        """
        # Start from the views of the most similar silhouettes
        targets = outlines(masks)
        found, overlaps = self._move(self._starts(targets.masks), targets)
        # Keep the best pose of each neighborhood
        return found.gather(distinct(overlaps, found, self._num_modes, MODE_SEPARATION))

    def improve(self, masks: Tensor, starts: Candidates) -> Candidates:
        """Moves given poses (N, H) onto the outlines of their masks (N, h, h), in their order."""
        return self._move(starts, outlines(masks))[0]

    def _move(self, starts: Candidates, targets: Outlines) -> tuple[Candidates, Tensor]:
        """Fits poses (N, H) to N outlines; returns them and the overlaps (N, H)."""
        count = starts.choice.shape[1]
        problems = Problems(
            poses=camera.to_vector(starts.pose).flatten(0, 1).numpy(),
            template=starts.choice.flatten().numpy(),
            image=np.repeat(np.arange(len(targets.masks)), count),
            ious=np.zeros(len(targets.masks) * count),
        )
        tilts = Tilts(*np.radians(self.prior.tilts()).tolist())

        def fit(begin: int, end: int) -> None:
            numba_contour.fit(problems, begin, end, self._meshes, targets, tilts, STEPS)

        map_chunks(fit, len(problems.ious))
        vectors = torch.from_numpy(problems.poses).float().unflatten(0, (-1, count))
        found = Candidates(camera.from_vector(vectors), starts.choice)
        return found, torch.from_numpy(problems.ious).unflatten(0, (-1, count))

    def _draw(self, vertices: Array, rotation: Tensor) -> tuple[Pose, Tensor]:
        """Returns G poses of a template in all views, and its silhouettes (G, h, h) there."""
        count = len(rotation)
        # In the middle of the image, within it
        pose = Pose(
            scale=rotation.new_full(
                (count, 1), VIEW_RADIUS / np.linalg.norm(vertices, axis=1).max()
            ),
            translation=rotation.new_zeros(count, 2),
            rotation=rotation,
            z0=rotation.new_full((count, 1), numba_contour.EXPECTED_Z0),
        )
        # Threads share the silhouettes
        vectors = camera.to_vector(pose).numpy()
        masks = np.zeros((count, MASK_SIZE, MASK_SIZE), np.bool_)

        def draw(begin: int, end: int) -> None:
            numba_contour.draw(vectors, vertices, self._meshes.faces, begin, end, masks)

        map_chunks(draw, count)
        return pose, torch.from_numpy(masks).float()

    def _starts(self, masks: Array) -> Candidates:
        """Returns the poses to start from for each of N masks, placed over them."""
        wanted, frames = signatures(torch.from_numpy(masks).float())
        views = self._views.repeat(len(masks))
        index = distinct(wanted @ self._signatures.T, views, self._num_starts, START_SEPARATION)
        starts, drawn = views.gather(index), self._frames[index]
        # Scale and move the centroids of the silhouettes onto those of the masks
        growth = frames[:, None, 2:] / drawn[..., 2:]
        shift = frames[:, None, :2] - growth * drawn[..., :2]
        pose = starts.pose._replace(
            scale=starts.pose.scale * growth,
            translation=shift.double() * shift.new_tensor([1.0, -1.0]),
        )
        return Candidates(pose, starts.choice)


def view_grid(prior: ViewPrior) -> Tensor:
    """Returns the rotations (G, 4) of all azimuths, elevations and rolls that the prior allows."""

    elevation, elevation_spread, roll_spread = prior.tilts()

    def span(mean: float, spread: float) -> Tensor:
        side = math.ceil(REACH * spread / SPACING)
        return mean + torch.linspace(-1, 1, 2 * side + 1, dtype=torch.float64) * REACH * spread

    views = torch.meshgrid(
        torch.arange(0, 360, SPACING, dtype=torch.float64),
        span(elevation, elevation_spread),
        span(0.0, roll_spread),
        indexing="ij",
    )
    return quaternion.from_view(*(angles.flatten() for angles in views))


def signatures(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Describes masks independently of position and size.

    Args:
        masks: (N, h, h) in [0, 1].

    Returns:
        Unit vectors (N, D), the mask about its centroid in units of its radius; centroid and radius
        (the root of the area) on the screen (N, 3).
    """
    # Centroid and radius, from the first two moments
    axis = (torch.arange(masks.shape[-1]) + 0.5) / masks.shape[-1] * 2 - 1
    area = masks.sum(dim=(1, 2)).clamp(min=1)
    x = (masks.sum(dim=1) @ axis) / area
    y = (masks.sum(dim=2) @ -axis) / area
    radius = area.sqrt() * 2 / masks.shape[-1]
    # The mask in a square about its centroid
    reach = SIGNATURE_REACH / math.sqrt(math.pi) * radius
    zero = torch.zeros_like(x)
    frame = torch.stack([reach, zero, x, zero, reach, -y], dim=1).reshape(-1, 2, 3)
    size = (len(masks), 1, SIGNATURE_SIZE, SIGNATURE_SIZE)
    grid = functional.affine_grid(frame, list(size), align_corners=False)
    seen = functional.grid_sample(masks[:, None], grid, align_corners=False).flatten(1)
    return functional.normalize(seen, dim=1), torch.stack([x, y, radius], dim=1)


def outlines(masks: Tensor) -> Outlines:
    """Measures the outlines of masks (N, h, h) in [0, 1]."""
    fields, samples = [], []
    for mask in (_shrink(masks, FIELD_SIZE) > 0.5).cpu().numpy():
        field = _signed_distance(mask)
        fields.append(field)
        samples.append(_outline_samples(mask, field))
    small = (_shrink(masks, MASK_SIZE) > 0.5).cpu().numpy()
    return Outlines(np.stack(fields), np.stack(samples), small)


def _shrink(masks: Tensor, size: int) -> Tensor:
    """Resizes masks (N, h, h), averaging over the pixels."""
    return functional.interpolate(masks[:, None], (size, size), mode="bilinear", antialias=True)[
        :, 0
    ]


def _signed_distance(mask: Array) -> Array:
    """Distance (h, h) of every pixel center to the outline of a mask, in screen units."""
    if not mask.any():
        return np.full(mask.shape, 2.0)
    outside, inside = (np.asarray(distance_transform_edt(side)) for side in (~mask, mask))
    pixels = outside - inside
    # Smoothed, or else its slopes follow the corners of the pixels
    return gaussian_filter((pixels - 0.5 * np.sign(pixels)) * 2 / len(mask), 1.0)


def _outline_samples(mask: Array, field: Array) -> Array:
    """Points (NUM_SAMPLES, 4) between neighbors inside and outside, with normals, in scan order."""
    # Edges between pixels inside and outside, at their middles
    padded = np.pad(mask, 1)
    rows, columns = [np.nonzero(np.diff(padded, axis=axis)) for axis in (0, 1)]
    x = np.concatenate([rows[1] - 0.5, columns[1] + 0.0]) * 2 / len(mask) - 1
    y = 1 - np.concatenate([rows[0] + 0.0, columns[0] - 0.5]) * 2 / len(mask)
    if len(x) == 0:
        return np.zeros((NUM_SAMPLES, 4))
    # As many as asked for, evenly spread
    order = np.lexsort((x, y))
    chosen = order[np.linspace(0, len(order) - 1, NUM_SAMPLES).round().astype(int)]
    # The field grows along the outward normal
    points = np.zeros((NUM_SAMPLES, 4))
    for point, i in zip(points, chosen, strict=True):
        _, nx, ny = numba_contour.sample(field, x[i], y[i])
        length = math.hypot(nx, ny) + 1e-9
        point[:] = x[i], y[i], nx / length, ny / length
    return points
