"""Coarse search for poses: outlines of a mesh are moved onto those of masks, nothing is rendered softly.

The search starts from the views of an even grid whose normalized silhouettes are most like a mask.
Levenberg-Marquardt then moves the contour points of the mesh onto the outline of the mask. The best
results that differ in rotation are the modes of an image.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor
from torch.nn import functional

from data.definitions import ViewPrior
from geometry import quaternion
from geometry.operators import edge_table
from pipeline.poses import numba_contour
from utils.numba_jit import Array
from utils.threads import map_chunks

SPACING = 15.0  # degrees between the views of the grid
REACH = 2.0  # standard deviations of the prior that the grid spans
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


class Modes(NamedTuple):
    """The K best poses of N images that differ in rotation, best first.

    Attributes:
        parameters: (N, K, 8) rotation, scale, translation, z0.
        choice: (N, K) template of each.
    """

    parameters: Tensor
    choice: Tensor


class Outlines(NamedTuple):
    """What the search knows of N masks.

    Attributes:
        fields: (N, FIELD_SIZE, FIELD_SIZE) signed distance to the outline in screen units.
        samples: (N, NUM_SAMPLES, 4) points on the outline and outward normals, y up.
        masks: (N, MASK_SIZE, MASK_SIZE) bool.
    """

    fields: Array
    samples: Array
    masks: Array


class ContourSearch:
    """Search for the poses of some templates; the views of the grid are drawn once.

    Attributes:
        prior: what is expected of the rotations.
    """

    def __init__(self, templates: Tensor, faces: Tensor, prior: ViewPrior) -> None:
        """Draws the templates (T, V, 3) with faces (F, 3) in every view of the grid."""
        self._templates = templates.cpu().double().numpy()
        self._faces = faces.cpu().numpy()
        self._edges = edge_table(self._faces)
        self.prior = prior
        views = view_grid(prior)
        self._num_views = len(views)
        drawn = [self._draw(vertices, views) for vertices in self._templates]
        self._poses = np.concatenate([poses for poses, _ in drawn])
        masks = torch.from_numpy(np.concatenate([masks for _, masks in drawn]))
        self._signatures, self._frames = signatures(masks.float())

    def find(self, masks: Tensor) -> Modes:
        """Returns the modes of N masks (N, h, h) in [0, 1]; each mask is searched on its own."""
        targets = outlines(masks)
        poses, template = self._starts(targets.masks)
        count = poses.shape[1]
        poses, template = poses.reshape(-1, 8), template.ravel()
        image = np.repeat(np.arange(len(masks)), count)
        ious, tilts = np.zeros(len(poses)), np.radians(self.prior.tilts())

        def fit(begin: int, end: int) -> None:
            meshes = (self._templates, self._faces, self._edges)
            numba_contour.fit(
                poses, template, image, begin, end, *meshes, *targets, tilts, STEPS, ious
            )

        map_chunks(fit, len(poses))
        found = torch.from_numpy(poses.reshape(len(masks), count, 8)).float()
        choice = torch.from_numpy(template.reshape(len(masks), count))
        scores = torch.from_numpy(ious.reshape(len(masks), count))
        index = distinct(scores, found[..., :4], choice, NUM_MODES, MODE_SEPARATION)
        rows = torch.arange(len(masks))[:, None]
        return Modes(found[rows, index], choice[rows, index])

    def _draw(self, vertices: Array, views: Tensor) -> tuple[Array, Array]:
        """Returns poses (G, 8) of a template in all views, and its silhouettes there."""
        radius = np.linalg.norm(vertices, axis=1).max()
        poses = np.zeros((len(views), 8))
        poses[:, :4], poses[:, 4] = views.numpy(), 0.7 / radius
        poses[:, 7] = numba_contour.EXPECTED_Z0
        masks = np.zeros((len(views), MASK_SIZE, MASK_SIZE), np.bool_)

        def draw(begin: int, end: int) -> None:
            numba_contour.draw(poses, vertices, self._faces, begin, end, masks)

        map_chunks(draw, len(views))
        return poses, masks

    def _starts(self, masks: Array) -> tuple[Array, Array]:
        """Returns poses (N, S, 8) to start from, placed over the masks, and their templates."""
        wanted, frames = signatures(torch.from_numpy(masks).float())
        likeness = wanted @ self._signatures.T
        template = torch.arange(len(self._poses)) // self._num_views
        rotations = torch.from_numpy(self._poses[:, :4])
        index = distinct(
            likeness,
            rotations.expand(len(masks), -1, -1),
            template.expand(len(masks), -1),
            NUM_STARTS,
            START_SEPARATION,
        )
        poses = torch.from_numpy(self._poses)[index]
        own, (center, radius) = self._frames[index], (frames[:, None, :2], frames[:, None, 2:])
        growth = radius / own[..., 2:]
        poses[..., 4:5] *= growth
        shift = center - growth * own[..., :2]
        poses[..., 5:7] = shift * shift.new_tensor([1.0, -1.0])
        return poses.numpy(), template[index].numpy()


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
    axis = (torch.arange(masks.shape[-1]) + 0.5) / masks.shape[-1] * 2 - 1
    area = masks.sum(dim=(1, 2)).clamp(min=1)
    x = (masks.sum(dim=1) @ axis) / area
    y = (masks.sum(dim=2) @ -axis) / area
    radius = area.sqrt() * 2 / masks.shape[-1]
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


def distinct(
    scores: Tensor, rotations: Tensor, choice: Tensor, count: int, separation: float
) -> Tensor:
    """Finds the best poses of each image of which none is near a better one.

    Where there are too few of them, the best of the others follow.

    Args:
        scores: (N, H).
        rotations: (N, H, 4) unit quaternions.
        choice: (N, H) templates; poses of different templates are never near.
        count: how many to find.
        separation: degrees.

    Returns:
        Indices (N, min(count, H)), best first.
    """
    scores = scores.double().clone()
    limit = math.cos(math.radians(separation) / 2)
    rows, found = torch.arange(len(scores)), []
    demoted = scores.amax() - scores.amin() + 1
    for _ in range(min(count, scores.shape[1])):
        index = scores.argmax(dim=1)
        found.append(index)
        near = (rotations * rotations[rows, index][:, None]).sum(dim=-1).abs() > limit
        scores -= demoted * (near & (choice == choice[rows, index][:, None]))
        scores[rows, index] = -torch.inf
    return torch.stack(found, dim=1)


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
    padded = np.pad(mask, 1)
    rows, columns = [np.nonzero(np.diff(padded, axis=axis)) for axis in (0, 1)]
    x = np.concatenate([rows[1] - 0.5, columns[1] + 0.0]) * 2 / len(mask) - 1
    y = 1 - np.concatenate([rows[0] + 0.0, columns[0] - 0.5]) * 2 / len(mask)
    if len(x) == 0:
        return np.zeros((NUM_SAMPLES, 4))
    order = np.lexsort((x, y))
    chosen = order[np.linspace(0, len(order) - 1, NUM_SAMPLES).round().astype(int)]
    points = np.zeros((NUM_SAMPLES, 4))
    for point, i in zip(points, chosen, strict=True):
        _, nx, ny = numba_contour.sample(field, x[i], y[i])
        length = math.hypot(nx, ny) + 1e-9
        point[:] = x[i], y[i], nx / length, ny / length
    return points
