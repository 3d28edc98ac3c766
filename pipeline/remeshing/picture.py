"""Picture of templates and the spheres fitted to them, outline on outline."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geometry import quaternion
from geometry.mesh_files import Mesh
from pipeline.remeshing.targets import silhouettes
from utils.pictures import draw_text, make_grid

SIZE = 192  # pixels of a view
VIEWS = {  # azimuth and elevation in degrees
    "side": (0.0, 0.0),
    "front": (90.0, 0.0),
    "above": (0.0, 90.0),
    "front and above": (60.0, 25.0),
    "back and above": (300.0, 25.0),
}
_BOTH, _TEMPLATE, _FITTED = (0.75, 0.75, 0.75), (0.85, 0.2, 0.2), (0.2, 0.35, 0.9)


def compare(
    templates: Sequence[Mesh], fitted: Sequence[Mesh], overlaps: Sequence[float]
) -> np.ndarray:
    """Draws a row of views per template: gray what both cover, red the template, blue the sphere only.

    Args:
        templates: T meshes in object space, max |coordinate| = 1.
        fitted: T meshes in the same frame.
        overlaps: T figures to write beside them.

    Returns:
        (h, w, 3) uint8.
    """
    # One cell per named view; the first one of a row shows the overlap
    angles = [[torch.tensor(angle) for angle in (*view, 0.0)] for view in VIEWS.values()]
    views = torch.stack([quaternion.from_view(*view) for view in angles])
    cells = []
    for template, mesh, overlap in zip(templates, fitted, overlaps, strict=True):
        masks = [silhouettes(either, views, SIZE) > 0.5 for either in (template, mesh)]
        pixels = (_colors(*masks).movedim(1, -1) * 255).round().to(torch.uint8).numpy()
        words = [f"{name}, IoU {overlap:.2f}" if not i else name for i, name in enumerate(VIEWS)]
        cells += [draw_text(*labeled) for labeled in zip(pixels, words, strict=True)]
    grid = make_grid(torch.from_numpy(np.array(cells)).movedim(-1, 1), len(VIEWS), value=255)
    return grid.movedim(0, -1).numpy()


def _colors(template: Tensor, mesh: Tensor) -> Tensor:
    """Colors (n, 3, s, s) in [0, 1] of two masks (n, s, s) on white."""
    shown = torch.ones(len(template), 3, *template.shape[1:])
    for where, color in ((template & mesh, _BOTH), (template & ~mesh, _TEMPLATE), (mesh & ~template, _FITTED)):  # fmt: skip
        shown = torch.where(where[:, None], torch.tensor(color)[:, None, None], shown)
    return shown
