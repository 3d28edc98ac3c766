"""The shapes of a collection: modes are learned from some of its photographs, and fitted to all of them."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from data.cache.pose_files import FittedShapes
from geometry.camera import VECTOR_SIZE, from_vector, project, to_vector
from geometry.distances import hard_iou
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.candidates import Candidates
from pipeline.poses.evidence.outlines import shrink
from pipeline.poses.photographs import Photographs, Reader
from pipeline.poses.shapes.family import Family, Fit, fit_shapes
from pipeline.poses.shapes.learning import Examples, learn_family
from pipeline.poses.shapes.thin_parts import make_targets
from rendering.rasterizer import rasterize
from utils.progress import progress
from utils.row_files import Column, Table

LARGEST_SAMPLE = 128  # photographs that modes are learned from: four for each of the fields
SIZE = 64  # pixels of the masks
STEPS = 30  # of the fit of each photograph

logger = logging.getLogger(__name__)


def learn_families(
    reader: Reader,
    templates: Tensor,
    mesh: SphereMesh,
    chosen: Candidates,
    confidence: Tensor,
    count: int,
) -> list[Family]:
    """Learns `count` modes of shape of each template (T, V, 3).

    Args:
        reader: of the N photographs, of which LARGEST_SAMPLE at most are read, evenly spread.
        templates: object space.
        mesh: their topology.
        chosen: (N,) poses.
        confidence: (N,) probability that they are right.
        count: number of modes.
    """
    # Small masks of all that is learned from, in the order of the collection
    total = len(confidence)
    rows = torch.linspace(0, total - 1, min(total, LARGEST_SAMPLE)).round().long()
    masks = torch.cat([_small_masks(some) for some in reader.batches(rows.tolist())])
    sample, weight = chosen.select(rows).to(masks.device), confidence[rows].to(masks)
    vectors, targets = to_vector(sample.pose), make_targets(masks)
    # Each template by itself
    families = []
    for number, template in enumerate(progress(templates, description="learning shapes")):
        mine = (sample.choice == number).nonzero()[:, 0]
        examples = Examples(targets.select(mine), vectors[mine], weight[mine])
        families.append(learn_family(template, mesh, examples, count))
    return families


class ShapeFit:
    """Fits shapes to photographs."""

    def __init__(self, families: list[Family], chosen: Candidates) -> None:
        """Begins at the chosen poses (N,) of a collection."""
        self._families, self._chosen = families, chosen
        count = families[0].modes.shape[0]
        self.columns = {
            "vectors": Column((VECTOR_SIZE,)),
            "coefficients": Column((count,)),
            "iou": Column((1,)),
        }

    def measure(self, photographs: Photographs) -> Mapping[str, Tensor]:
        """Returns poses, coefficients and overlaps of n photographs, as `columns` describes them."""
        masks = photographs.masks
        half = shrink(masks[:, None], masks.shape[-1] // 2)[:, 0]
        chosen = self._chosen.select(photographs.rows).to(masks.device)
        found = {
            name: masks.new_zeros(len(masks), *column.shape)
            for name, column in self.columns.items()
        }
        small = _small_masks(photographs)
        for number, family in enumerate(self._families):
            mine = (chosen.choice == number).nonzero()[:, 0]
            if len(mine):
                start = to_vector(chosen.select(mine).pose)
                none = masks.new_zeros(len(mine), len(family.modes))
                fit = fit_shapes(family, make_targets(small[mine]), Fit(start, none), STEPS)
                found["vectors"][mine], found["coefficients"][mine] = fit
                found["iou"][mine] = _overlaps(family, fit, half[mine])
        return {name: values.cpu() for name, values in found.items()}


def collect_shapes(
    families: list[Family], templates: Tensor, choice: Tensor, table: Table, rows: Tensor
) -> FittedShapes:
    """Returns the fitted shapes of N photographs, in modes of unit spread over those that are kept.

    Args:
        families: of T templates.
        templates: (T, V, 3).
        choice: (N,) template of each.
        table: what `ShapeFit` measured.
        rows: (K,) photographs that are kept.
    """
    found = table.read(range(len(choice)))
    modes, coefficients = [], found["coefficients"].clone()
    kept = torch.zeros_like(choice, dtype=torch.bool).index_fill(0, rows, True)
    for number, (family, template) in enumerate(zip(families, templates, strict=True)):
        mine = choice == number
        mean, spread = _moments(coefficients[mine & kept])
        coefficients[mine] = (coefficients[mine] - mean) / spread
        shift = family.vertices(mean[None].to(family.modes)) - template
        scaled = spread.to(family.modes)[:, None, None] * family.modes
        modes.append(torch.cat([shift, scaled]).cpu())
    # Every object has 1 of the mean deviation
    coefficients = torch.cat([torch.ones(len(choice), 1), coefficients], dim=1)
    return FittedShapes(torch.stack(modes), coefficients, found["vectors"], found["iou"])


def _moments(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and spread (M,) of coefficients (k, M); 0 and 1 where they tell none."""
    if len(coefficients) < 2:
        return torch.zeros(coefficients.shape[1]), torch.ones(coefficients.shape[1])
    spread = coefficients.std(dim=0, correction=0)
    return coefficients.mean(dim=0), torch.where(spread > 0, spread, 1.0)


def _small_masks(photographs: Photographs) -> Tensor:
    return shrink(photographs.masks[:, None], SIZE)[:, 0]


def _overlaps(family: Family, fit: Fit, masks: Tensor) -> Tensor:
    """Returns the overlaps (B, 1) of fitted shapes with their masks (B, h, h)."""
    screen = project(family.vertices(fit.coefficients), from_vector(fit.vectors))
    coverage = rasterize(screen, family.faces, masks.shape[-1], soft=False).coverage[:, 0]
    return hard_iou(coverage, masks)[:, None]
