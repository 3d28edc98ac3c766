"""One synthetic photograph: image, mask, part map and ground truth, a function of (seed, index)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from data.synthetic import animals, scenes, vehicles
from data.synthetic.canvas import Canvas
from data.synthetic.individuals import Deformation, Template, random_deformation
from rendering.rasterizer import rasterize
from utils.seeding import numpy_generator

LOOKS: dict[str, Callable[[Canvas], None]] = {
    "motorcycle": vehicles.motorcycle,
    "bus": vehicles.bus,
    "truck": vehicles.truck,
    "car": vehicles.car,
    "airplane": vehicles.airplane,
    "bird": animals.bird,
    "sheep": animals.sheep,
    "elephant": animals.elephant,
    "zebra": animals.zebra,
    "horse": animals.horse,
    "cow": animals.cow,
    "bear": animals.bear,
    "giraffe": animals.giraffe,
}
SUPERSAMPLING = 2


class Photograph(NamedTuple):
    """Attributes:
    image: (h, w, 3) uint8.
    mask: (h, w) bool.
    labels: (h, w) uint8, 0 = none, 1 + position in the part names; None = no part map.
    view: the camera.
    template: position of the template in the category.
    vertices: (V, 3) the individual in object space, in the order of the template's vertices.
    keypoints: (K, 3) x, y in pixels and 1 = visible.
    paint: name of the color of its paint, one of canvas.COLOR_NAMES; None of what is not painted.
    """

    image: NDArray
    mask: NDArray
    labels: NDArray | None
    view: scenes.View
    template: int
    vertices: NDArray
    keypoints: NDArray
    paint: str | None


@dataclass(frozen=True)
class Studio:
    """What all photographs of a collection share.

    Attributes:
        category: what is shown.
        templates: of the category.
        part_names: of all templates, in the order of paint priority.
        keypoint_names: those that all templates have.
        size: longest side of a photograph in pixels.
        seed: of all random numbers.
    """

    category: str
    templates: list[Template]
    part_names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    size: int
    seed: int


class Surface(NamedTuple):
    """Rows of the pixels that the object covers, on the supersampled canvas."""

    rows: NDArray
    columns: NDArray
    position: NDArray
    up: NDArray
    normals: NDArray
    depth: NDArray
    parts: dict[str, NDArray]


def take_photograph(studio: Studio, index: int) -> Photograph:
    """Returns photograph number `index`, which does not depend on the other ones."""
    # Templates take turns, individuals are drawn
    rng = numpy_generator(studio.seed, studio.category, index)
    number = index % len(studio.templates)
    template = studio.templates[number]
    deformation = random_deformation(rng, 0.0 if studio.category in scenes.VEHICLES else 1.0)
    vertices = deformation(template.vertices)
    # A songbird is modeled level and perches tilted; birds with long legs are modeled as they stand
    pitch = 25.0 if studio.category == "bird" and "foot" not in template.parts else 3.0
    rotation = scenes.random_rotation(studio.category, pitch, rng)
    view = scenes.random_view(vertices, rotation, studio.category, studio.size, rng)
    # Geometry, paint and light, then the image
    surface = render_surface(template, deformation, vertices, view, studio.size)
    color, paint_name = paint(studio, template, surface, view, rng)
    image, coverage, depth = _develop(studio, surface, color, view, rng)
    # Ground truth, of which the part map gets the errors of a detector
    labels = _label(studio, surface, view)
    mask = coverage >= 0.5
    keypoints = [template.keypoints[name] for name in studio.keypoint_names]
    return Photograph(
        image=image,
        mask=mask,
        labels=_corrupt_labels(labels * mask, rng),
        view=view,
        template=number,
        vertices=vertices,
        keypoints=_mark_visible(scenes.project(vertices[keypoints], view), depth),
        paint=paint_name,
    )


def render_surface(
    template: Template, deformation: Deformation, vertices: NDArray, view: scenes.View, size: int
) -> Surface:
    """Interpolates what painting needs at every covered pixel."""
    canvas = size * SUPERSAMPLING
    screen = scenes.screen_vertices(vertices, view, size)
    normals = deformation.normals(template.vertices, vertices, template.normals)
    # Columns: position, up, normal (3), depth, distance to each part
    members = [template.vertices, template.normals[:, 2:], normals, screen[:, 2:].numpy()]
    columns = np.concatenate([*members, np.stack(list(template.parts.values()), axis=1)], axis=1)
    raster = rasterize(
        screen.float()[None],
        torch.from_numpy(template.faces),
        canvas,
        attributes=torch.from_numpy(columns).float()[None],
        soft=False,
    )
    assert raster.attributes is not None
    # Only covered pixels are painted
    rows, cols = np.nonzero(raster.coverage[0, 0].numpy() > 0)
    values = raster.attributes[0].numpy()[:, rows, cols].T
    normals = values[:, 4:7] / np.maximum(
        np.linalg.norm(values[:, 4:7], axis=1, keepdims=True), 1e-6
    )
    return Surface(
        rows=rows,
        columns=cols,
        position=values[:, :3],
        up=values[:, 3],
        normals=normals,
        depth=values[:, 7] * size / 2,
        parts={name: values[:, 8 + i] for i, name in enumerate(template.parts)},
    )


def paint(
    studio: Studio,
    template: Template,
    surface: Surface,
    view: scenes.View,
    rng: np.random.Generator,
) -> tuple[NDArray, str | None]:
    """Returns the lit color (P, 3) of the surface, and the name of its paint."""
    canvas = Canvas(
        surface.position, surface.up, surface.parts, template.vertices, template.parts, rng
    )
    LOOKS[studio.category](canvas)
    albedo = np.clip(canvas.color, 0.02, 0.98)
    lit = scenes.shade(albedo, canvas.gloss, surface.normals, view.rotation, rng)
    return lit, canvas.paint


def _develop(
    studio: Studio, surface: Surface, color: NDArray, view: scenes.View, rng: np.random.Generator
) -> tuple[NDArray, NDArray, NDArray]:
    """Composes object and background; returns image (h, w, 3) uint8, coverage and depth (h, w)."""
    # Average the samples of each pixel; depth takes the nearest one
    front = blocks(studio, surface, color, view, 0.0).mean(axis=(1, 3))
    covered = np.ones((len(color), 1), np.float32)
    coverage = blocks(studio, surface, covered, view, 0.0).mean(axis=(1, 3))
    depth = blocks(studio, surface, surface.depth[:, None], view, -np.inf).max(axis=(1, 3))
    back = scenes.background(studio.category, view.height, view.width, rng)
    if studio.category not in ("bird", "airplane"):
        back = scenes.cast_shadow(back, pixel_bounds(coverage[:, :, 0] > 0), rng)
    image = front + (1 - coverage) * back
    # Exposure, white balance and sensor noise
    exposure = rng.uniform(0.9, 1.2) * (1 + rng.normal(0, 0.025, 3))
    image = image * exposure + rng.uniform(0.0, 0.025) * rng.standard_normal(
        image.shape, np.float32
    )
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels, coverage[:, :, 0], depth[:, :, 0]


def blocks(
    studio: Studio, surface: Surface, values: NDArray, view: scenes.View, fill: float
) -> NDArray:
    """Spreads values (P, C) over the canvas, in blocks (h, s, w, s, C) of the s x s samples of a pixel."""
    side = studio.size * SUPERSAMPLING
    canvas = np.full((side, side, values.shape[1]), fill, np.float32)
    canvas[surface.rows, surface.columns] = values
    used = canvas[: view.height * SUPERSAMPLING, : view.width * SUPERSAMPLING]
    return used.reshape(view.height, SUPERSAMPLING, view.width, SUPERSAMPLING, -1)


def _label(studio: Studio, surface: Surface, view: scenes.View) -> NDArray:
    """Returns the true part map (h, w) uint8; later names win, as in the vocabulary."""
    labels = np.zeros((len(surface.rows), 1), np.float32)
    for label, name in enumerate(studio.part_names, start=1):
        if name in surface.parts:
            # Distances are negative inside a part
            labels[surface.parts[name] < 0] = label
    return blocks(studio, surface, labels, view, 0.0)[:, 0, :, 0, 0].astype(np.uint8)


def pixel_bounds(mask: NDArray) -> NDArray[np.int64]:
    """Returns x0, y0, x1, y1 of the pixels in a mask; x1 and y1 are excluded, as in slices."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def _corrupt_labels(labels: NDArray, rng: np.random.Generator) -> NDArray | None:
    """Adds the errors of detectors to a part map: regions grow, shrink, lose a side or are missed.

    Returns None in 5 % of the cases, as if nothing had been detected.
    """
    if rng.random() < 0.05:
        return None
    reach = max(labels.shape) / 256
    corrupted = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        region: NDArray = labels == label
        change = int(np.round(rng.normal(0.3, 1.5) * reach))
        # Move the border of the region by up to a few pixels
        if change > 0:
            region = np.asarray(ndimage.binary_dilation(region, iterations=change), bool)
            region &= labels > 0
        elif change < 0:
            region = np.asarray(ndimage.binary_erosion(region, iterations=-change))
        # Cut off one side
        if rng.random() < 0.1 and region.any():
            rows, columns = np.nonzero(region)
            angle = rng.uniform(0, 2 * np.pi)
            along = np.cos(angle) * columns + np.sin(angle) * rows
            cut = along > np.quantile(along, rng.uniform(0.4, 0.9))
            region[rows[cut], columns[cut]] = False
        # Miss the part; tiny ones are always missed
        if rng.random() < 0.12 or region.sum() < 8 * reach**2:
            continue
        corrupted[region] = label
    return corrupted


def _mark_visible(projected: NDArray, depth: NDArray) -> NDArray:
    """Returns keypoints (K, 3): pixels, and whether nothing is in front of them."""
    columns = np.clip(projected[:, 0].astype(int), 0, depth.shape[1] - 1)
    rows = np.clip(projected[:, 1].astype(int), 0, depth.shape[0] - 1)
    # Visible if nothing in the neighborhood is nearer, by a margin of 2 % of the image
    near = ndimage.maximum_filter(np.where(np.isfinite(depth), depth, -1e9), 3)
    visible = projected[:, 2] > near[rows, columns] - 0.02 * max(depth.shape)
    return np.column_stack([projected[:, :2], visible]).astype(np.float32)
