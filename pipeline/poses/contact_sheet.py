"""Pictures of estimated poses: images from the worst to the best, and from where objects are seen."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from geometry import quaternion
from geometry.camera import Pose
from pipeline.poses.semantic_template import SemanticModel
from utils.pictures import draw_text, make_grid, part_palette, save_image, to_uint8

TILE = 128  # pixels
COLUMNS = 6
LARGEST_SHEET = 60  # images
CELL = 12  # pixels of 10 degrees in the histogram
MARGIN = 28
OUTLINE = (1.0, 0.2, -0.6)  # RGB in [-1, 1]
NOSE = (1.0, -1.0, -1.0)
NOSE_SHARE = 0.1  # of the length of a template, from its front end on
OUTPUT_FOLDER = Path("output")


class Fits(NamedTuple):
    """Images and the poses chosen for them.

    Attributes:
        images: (N, 4, h, w) RGB in [-1, 1] and mask.
        pose: N poses.
        choice: (N,) template of each.
        confidence: (N,).
    """

    images: Tensor
    pose: Pose
    choice: Tensor
    confidence: Tensor


def shown_rows(confidence: Tensor) -> Tensor:
    """Returns the rows of a contact sheet, evenly spread from the worst to the best."""
    order = confidence.argsort(stable=True)
    count = min(LARGEST_SHEET, len(order))
    return order[torch.linspace(0, len(order) - 1, count).round().long()]


def contact_sheet(fits: Fits, model: SemanticModel) -> NDArray[np.uint8]:
    """Returns a picture with two tiles per image, in their order.

    Left the photograph with the outline of the fitted template and the confidence, right the mask in
    gray below the colors of the template's parts, its front end in red where it is seen.
    """
    marks = torch.cat([model.probabilities, front_end(model.templates)[..., None]], dim=2)
    raster = model._replace(probabilities=marks).render(fits.pose, fits.choice, TILE)
    assert raster.attributes is not None
    shown, nose = raster.attributes.split([marks.shape[2] - 1, 1], dim=1)
    # The outline lies on the pixels that an erosion takes away
    images = functional.interpolate(fits.images, (TILE, TILE), mode="bilinear", antialias=True)
    coverage = raster.coverage
    inner = -functional.max_pool2d(-coverage, 3, stride=1, padding=1)
    edge = coverage - inner
    color = images.new_tensor(OUTLINE)[:, None, None]
    photographs = images[:, :3] * (1 - edge) + color * edge
    # "No part" is white, parts have the colors of the palette
    palette = torch.from_numpy(part_palette(shown.shape[1] - 1)).to(images) / 127.5 - 1
    palette = torch.cat([palette.new_ones(1, 3), palette])
    parts = torch.einsum("nkhw,kc->nchw", shown, palette)
    parts = torch.where(nose > 0.5, images.new_tensor(NOSE)[:, None, None], parts)
    # Side by side, labeled with the confidence
    gray = images[:, 3:] - 1
    pairs = torch.cat([photographs, torch.where(coverage > 0, parts, gray)], dim=3)
    labels = [f"{100 * value:.0f} %" for value in fits.confidence.tolist()]
    tiles = [draw_text(pair, text) for pair, text in zip(to_uint8(pairs), labels, strict=True)]
    labeled = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return to_uint8(make_grid(labeled, COLUMNS))


def front_end(templates: Tensor) -> Tensor:
    """Returns 1 for the vertices (T, V) at the front ends of templates (T, V, 3), and else 0."""
    # The front points along -y
    length = templates[..., 1] - templates[..., 1].amin(dim=1, keepdim=True)
    return (length < NOSE_SHARE * length.amax(dim=1, keepdim=True)).to(templates)


def view_histogram(rotation: Tensor) -> NDArray[np.uint8]:
    """Returns a map of the views (N, 4): azimuth to the right, elevation upwards, brighter = more."""
    # Count the views in cells of 10 degrees
    azimuth, elevation, _ = quaternion.to_view(rotation.double())
    column = (azimuth / 10).long().clamp(0, 35)
    row = ((90 - elevation) / 10).long().clamp(0, 17)
    counts = torch.bincount(row * 36 + column, minlength=18 * 36).reshape(18, 36).double()
    # The root shows rare views too
    level = (counts / counts.max()).sqrt().numpy()
    cells = np.kron(level, np.ones((CELL, CELL)))
    field = np.pad((cells * 255).astype(np.uint8), MARGIN, constant_values=40)
    picture = np.repeat(field[..., None], 3, axis=2)
    for degrees, name in ((0, "right"), (90, "towards"), (180, "left"), (270, "away")):
        x = MARGIN + degrees * CELL // 10
        picture = draw_text(picture, f"{degrees} {name}", (x, picture.shape[0] - MARGIN + 4))
    for degrees in (90, 0, -90):
        picture = draw_text(picture, f"{degrees}", (2, MARGIN + (90 - degrees) * CELL // 10 - 6))
    return picture


def save_pictures(name: str, fits: Fits, model: SemanticModel, rotation: Tensor) -> None:
    """Writes output/<name>.png, a contact sheet, and output/<name>_views.png, of all views (N, 4)."""
    save_image(OUTPUT_FOLDER / f"{name}.png", contact_sheet(fits, model))
    save_image(OUTPUT_FOLDER / f"{name}_views.png", view_histogram(rotation))
