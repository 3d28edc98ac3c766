"""Cameras, light and backgrounds of synthetic photographs."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.ground_truth import GroundTruth, project_true
from geometry import quaternion

VEHICLES = frozenset(("motorcycle", "bus", "truck", "car", "airplane"))
GROUND_COLORS = {
    "grass": ((0.36, 0.5, 0.22), (0.22, 0.36, 0.14)),
    "savanna": ((0.72, 0.62, 0.38), (0.56, 0.44, 0.24)),
    "snow": ((0.9, 0.93, 0.97), (0.75, 0.8, 0.88)),
    "asphalt": ((0.5, 0.5, 0.52), (0.3, 0.3, 0.32)),
    "sand": ((0.8, 0.72, 0.56), (0.66, 0.56, 0.42)),
}
SKY_COLORS = (
    ((0.42, 0.62, 0.9), (0.78, 0.87, 0.97)),
    ((0.66, 0.72, 0.8), (0.86, 0.87, 0.88)),
    ((0.5, 0.55, 0.75), (0.96, 0.76, 0.58)),
)
BOKEH_COLORS = (
    ((0.2, 0.34, 0.14), (0.55, 0.66, 0.3)),
    ((0.3, 0.26, 0.18), (0.66, 0.54, 0.34)),
    ((0.32, 0.44, 0.54), (0.7, 0.8, 0.86)),
    ((0.4, 0.42, 0.4), (0.72, 0.7, 0.66)),
)


class View(NamedTuple):
    """Camera of one photograph, as recorded in ground_truth.npz.

    Attributes:
        rotation: (4,) unit quaternion, object space to x right, y down, z away.
        scale_px: pixels per object unit.
        translation_px: (2,) where the origin of the object lies, in pixels from the top left.
        camera_distance: object units, inf = orthographic.
        width: of the photograph in pixels.
        height: of the photograph in pixels.
    """

    rotation: Tensor
    scale_px: float
    translation_px: NDArray
    camera_distance: float
    width: int
    height: int


def random_rotation(category: str, pitch: float, rng: np.random.Generator) -> Tensor:
    """Draws a view as photographers choose it: level, often from the side.

    Birds and airplanes are tilted, by `pitch` degrees (head up) on average. These distributions are
    close to `data.definitions.VIEW_PRIORS`, with which poses are estimated: poses of synthetic
    collections are easier to find than those of photographs that break the priors.
    """
    # More than half of the photographs show a side, the others any azimuth
    side = rng.choice([0.0, 180.0]) + rng.normal(0, 22)
    azimuth = side if rng.random() < 0.55 else rng.uniform(0, 360)
    flying = category in ("bird", "airplane")
    elevation = np.clip(rng.normal(8, 12 if flying else 7), -25 if flying else -3, 35)
    roll = rng.normal(0, {"bird": 10, "airplane": 6}.get(category, 2))
    tilt = rng.normal(pitch, 18 if category == "bird" else 5) if flying else 0.0
    # First the object lifts its head, then the camera turns around it
    view = quaternion.from_view(*torch.tensor([azimuth, elevation, roll], dtype=torch.float64))
    head_up = quaternion.from_axis_angle(
        torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64),
        torch.tensor(tilt, dtype=torch.float64),
    )
    return quaternion.normalize(quaternion.multiply(view, head_up))


def random_view(
    vertices: NDArray, rotation: Tensor, category: str, size: int, rng: np.random.Generator
) -> View:
    """Draws a view in which the object fits into a photograph of at most `size` x `size` pixels."""
    # Long lenses for birds (orthographic), shorter ones for vehicles
    distance = math.inf
    if category in VEHICLES:
        distance = float(rng.uniform(3.0, 7.0)) * float(np.abs(vertices).max())
    elif category != "bird":
        distance = float(rng.uniform(6.0, 14.0)) * float(np.abs(vertices).max())
    # Extent of the object at scale 1, then a frame with random margins around it
    unit = View(rotation, 1.0, np.zeros(2), distance, 2, 2)
    points = project(vertices, unit)[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    scale = size * rng.uniform(0.66, 0.9) / (high - low).max()
    extent = (high - low) * scale
    frame = np.minimum(np.ceil(extent * (1 + rng.uniform(0.1, 0.55, 2))), size)
    corner = (frame - extent) * rng.uniform(0.15, 0.85, 2)
    return View(
        rotation, float(scale), corner - low * scale, distance, int(frame[0]), int(frame[1])
    )


def project(vertices: NDArray, view: View) -> NDArray:
    """Returns pixels x, y (from the top left) and the depth towards the viewer, (V, 3)."""
    screen = screen_vertices(vertices, view, 2).numpy()  # one pixel = one screen unit
    return np.stack([screen[:, 0] + 1, 1 - screen[:, 1], screen[:, 2]], axis=1)


def screen_vertices(vertices: NDArray, view: View, size: int) -> Tensor:
    """Places vertices in the screen space of a square canvas whose top left pixels are the image."""
    # The projection under test is not used; this one reads the recorded truth
    truth = GroundTruth(
        rotation=view.rotation[None],
        known=torch.tensor([True]),
        scale=torch.tensor([[view.scale_px * 2 / size]], dtype=torch.float64),
        translation=torch.from_numpy(view.translation_px * 2 / size - 1)[None],
        camera_distance=torch.tensor([view.camera_distance], dtype=torch.float64),
        shape_id=torch.tensor([0]),
    )
    return project_true(torch.from_numpy(vertices), truth, 0)


def shade(
    albedo: NDArray, gloss: NDArray, normals: NDArray, rotation: Tensor, rng: np.random.Generator
) -> NDArray:
    """Lights a surface: sun, sky and ground, and their reflections where it is glossy.

    Args:
        albedo: (P, 3) in [0, 1].
        gloss: (P,) in [0, 1].
        normals: (P, 3) unit normals in object space (z up).
        rotation: (4,) of the view.
        rng: source of the sun's direction and strength.
    """
    # Direction towards the viewer in object space
    matrix = quaternion.to_matrix(rotation).numpy()
    to_viewer = -matrix[2]
    # The sun is more often behind the viewer than behind the object
    sun = rng.normal(0, 0.8, 3) * [1, 1, 0] + 0.7 * to_viewer + [0, 0, rng.uniform(0.6, 1.6)]
    sun /= np.linalg.norm(sun)
    strength, warmth = rng.uniform(0.35, 0.8), rng.uniform(-0.05, 0.1)
    # Lambertian sun, and hemispheric light from sky and ground
    diffuse = (
        np.maximum(normals @ sun, 0)[:, None] * strength * np.array([1 + warmth, 1, 1 - warmth])
    )
    ambient = (0.48 + 0.2 * normals[:, 2:]) * np.array([0.97, 1.0, 1.04])
    # Glossy surfaces mirror sky, ground and sun, more so at grazing angles
    facing = np.clip(normals @ to_viewer, 0, 1)
    mirrored = 2 * facing[:, None] * normals - to_viewer
    fresnel = (gloss * (0.12 + 0.5 * (1 - facing) ** 3))[:, None]
    horizon = 1 / (1 + np.exp(-mirrored[:, 2:] / 0.08))
    environment = horizon * [0.8, 0.88, 0.98] + (1 - horizon) * [0.28, 0.27, 0.25]
    highlight = (gloss * np.maximum(mirrored @ sun, 0) ** 40)[:, None]
    return albedo * (ambient + diffuse) * (1 - fresnel) + fresnel * environment + 0.7 * highlight


def background(category: str, height: int, width: int, rng: np.random.Generator) -> NDArray:
    """Draws what is behind the object: (h, w, 3) in about [0, 1]."""
    outdoors = rng.random()
    # Birds perch or fly, airplanes mostly fly, everything else stands on ground
    if category == "bird":
        return _bokeh(height, width, rng) if outdoors < 0.75 else _sky(height, width, rng)
    if category == "airplane" and outdoors < 0.6:
        return _sky(height, width, rng)
    if outdoors < 0.2:
        return _bokeh(height, width, rng)
    grounds = {
        "bear": ["grass", "savanna", "snow"],
        "elephant": ["savanna", "sand", "grass"],
        "giraffe": ["savanna", "grass"],
        "zebra": ["savanna", "grass", "sand"],
    }.get(category, ["asphalt", "sand", "grass"] if category in VEHICLES else ["grass", "savanna"])
    return _landscape(str(rng.choice(grounds)), height, width, rng)


def cast_shadow(image: NDArray, box: NDArray, rng: np.random.Generator) -> NDArray:
    """Darkens the ground below an object whose box is (x0, y0, x1, y1)."""
    x0, _, x1, y1 = box
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    # A soft ellipse under the lower edge of the box
    radius_x, radius_y = 0.52 * (x1 - x0), 0.07 * (x1 - x0) + 2
    squared = ((columns - (x0 + x1) / 2) / radius_x) ** 2 + (
        (rows - y1 + radius_y / 2) / radius_y
    ) ** 2
    return image * (1 - rng.uniform(0.35, 0.65) * np.exp(-(squared**1.5)))[:, :, None]


def clouds(
    height: int, width: int, cells: int, rng: np.random.Generator, octaves: int = 4
) -> NDArray:
    """Smooth noise (h, w) of about zero mean and unit spread; `cells` blobs across in its coarsest octave."""
    # Octaves of random grids, each finer and weaker than the one before
    total = torch.zeros(height, width)
    for octave in range(octaves):
        count = cells * 2**octave
        grid = torch.from_numpy(rng.normal(size=(1, 1, count + 3, count + 3)).astype(np.float32))
        total += 0.55**octave * F.interpolate(grid, (height, width), mode="bicubic")[0, 0]
    return total.numpy()


def _gradient(top: NDArray, bottom: NDArray, height: int, width: int) -> NDArray:
    t = np.linspace(0, 1, height)[:, None, None]
    return np.broadcast_to((1 - t) * top + t * bottom, (height, width, 3)).copy()


def _vary(color: tuple[float, ...], rng: np.random.Generator) -> NDArray:
    return np.clip(np.array(color) * rng.uniform(0.8, 1.2) + rng.normal(0, 0.03, 3), 0, 1)


def _sky(height: int, width: int, rng: np.random.Generator) -> NDArray:
    top, bottom = (_vary(color, rng) for color in SKY_COLORS[rng.integers(len(SKY_COLORS))])
    image = _gradient(top, bottom, height, width)
    cover = 1 / (1 + np.exp(-(clouds(height, width, 3, rng) - rng.uniform(-0.5, 2)) / 0.4))
    return image + (np.array([0.95, 0.95, 0.97]) - image) * 0.85 * cover[:, :, None]


def _bokeh(height: int, width: int, rng: np.random.Generator) -> NDArray:
    """Out-of-focus foliage: soft clouds and translucent discs."""
    dark, bright = (_vary(color, rng) for color in BOKEH_COLORS[rng.integers(len(BOKEH_COLORS))])
    mixture = 1 / (1 + np.exp(-clouds(height, width, 3, rng, octaves=2)))[:, :, None]
    image = dark * (1 - mixture) + bright * mixture
    rows, columns = np.mgrid[:height, :width]
    # Discs of defocused highlights
    for _ in range(rng.integers(4, 16)):
        radius = rng.uniform(0.03, 0.15) * max(height, width)
        distance = np.hypot(rows - rng.uniform(0, height), columns - rng.uniform(0, width))
        disc = rng.uniform(0.1, 0.5) / (1 + np.exp(np.clip((distance - radius) / 2, -20, 20)))
        image += (_vary(tuple(bright), rng) * 1.15 - image) * disc[:, :, None]
    return image


def _landscape(ground: str, height: int, width: int, rng: np.random.Generator) -> NDArray:
    """Sky, a row of blurred hills, trees or houses at the horizon, and textured ground."""
    image = _sky(height, width, rng)
    far, near = (_vary(color, rng) for color in GROUND_COLORS[ground])
    horizon = int(height * rng.uniform(0.2, 0.6))
    columns = np.arange(width) / width
    # Silhouette of hills or trees above the horizon
    outline = sum(
        rng.uniform(0, 0.08) * np.sin(2 * np.pi * (k * columns + rng.random())) for k in range(1, 7)
    )
    top = horizon - height * (rng.uniform(0.02, 0.2) + outline)
    rows = np.arange(height)[:, None]
    trees = 1 / (1 + np.exp(-(rows - top) / 2.0))[:, :, None]
    tint = _vary(BOKEH_COLORS[rng.integers(len(BOKEH_COLORS))][0], rng)
    speckle = clouds(height, width, 8, rng)[:, :, None]
    image += (tint * (1 + 0.2 * speckle) - image) * trees * 0.9
    # Ground, textured by noise
    floor = _gradient(far, near, max(height - horizon, 1), width)
    floor *= 1 + rng.uniform(0.04, 0.14) * clouds(len(floor), width, 10, rng)[:, :, None]
    image[horizon:] = floor[: height - horizon]
    return image
