"""Semantic consistency: the parts of the template must lie on the parts of the photographs.

Step 2 knows which part every vertex of a template belongs to. `prob` renders these probabilities on the
predicted meshes and compares them with the part maps, `vertex` asks that every pixel of a part has a vertex of
it nearby; all parts count alike. Both move the meshes only (after Li et al. 2020, https://arxiv.org/abs/2003.06473, section 3.2).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.cache import pose_files
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Batch, Labels, ReconstructionData
from pipeline.reconstruction.model import Prediction
from rendering.rasterizer import rasterize
from utils.cli import UserError
from utils.training import Term

PROB_WEIGHT, VERTEX_WEIGHT = 5.0, 10.0  # in the loss
CELLS = 16  # squares in a row, into which part maps are divided for the distances


class SemanticConsistency:
    """The terms of the loss that compare the parts of templates and photographs."""

    def __init__(self, kind: str, probabilities: Tensor, sphere: SphereMesh) -> None:
        """Collects what all steps share.

        Args:
            kind: prob, vertex or both.
            probabilities: (T, V, P) of the vertices of all templates, in the channels of the part maps:
                object without part, then the parts of the category.
            sphere: topology.
        """
        self.kind, self.probabilities, self.sphere = kind, probabilities, sphere

    def terms(self, prediction: Prediction, labels: Labels, batch: Batch) -> dict[str, Term]:
        """Returns the terms of a batch with its labels."""
        probabilities, maps = self.probabilities[labels.template], batch.parts[:, 1:]
        terms = {}
        if self.kind in ("prob", "both"):
            size = maps.shape[-1]
            shown = rasterize(
                prediction.screen, self.sphere.faces, size, attributes=probabilities, soft=False
            )
            assert shown.attributes is not None
            terms["part_probability"] = Term(F.mse_loss(shown.attributes, maps), PROB_WEIGHT)
        if self.kind in ("vertex", "both"):
            distance = part_distance(prediction.screen, probabilities, maps)
            terms["part_distance"] = Term(distance, VERTEX_WEIGHT)
        return terms


def part_distance(screen: Tensor, probabilities: Tensor, maps: Tensor) -> Tensor:
    """Returns the mean squared distance of the pixels of parts to the nearest vertex of the same part.

    Pixels ask for vertices, not vertices for pixels: those on the far side of an object have none.

    Args:
        screen: (B, V, 3) vertices, screen space.
        probabilities: (B, V, P) of their parts, the first being none.
        maps: (B, P, h, w) of the parts of the pixels.
    """
    # Part maps in coarse cells, whose centers are x right and y up in [-1, 1]
    weight = F.adaptive_avg_pool2d(maps[:, 1:], CELLS).flatten(2)
    steps = (torch.arange(CELLS, device=screen.device, dtype=screen.dtype) + 0.5) * 2 / CELLS - 1
    y, x = torch.meshgrid(-steps, steps, indexing="ij")
    cells = torch.stack([x, y], dim=-1).flatten(0, 1)
    square = (cells[:, None] - screen[:, None, :, :2]).square().sum(-1)  # (B, cells, V)
    # One part after another; those that the photograph or the template lacks count nothing
    label, sums, parts = probabilities.argmax(2), [], []
    for part in range(1, probabilities.shape[2]):
        own = label == part
        present = own.any(1) & (weight[:, part - 1].sum(1) > 0)
        nearest = square.masked_fill(~own[:, None], torch.inf).amin(2)
        mean = (weight[:, part - 1] * nearest.where(present[:, None], 0)).sum(1)
        sums.append(mean / weight[:, part - 1].sum(1).clamp(min=1e-6))
        parts.append(present)
    count = torch.stack(parts).sum(0).clamp(min=1)
    return (torch.stack(sums).sum(0) / count).mean()


def make_semantics(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device
) -> SemanticConsistency | None:
    """Returns the terms of a run; None if it has none.

    Raises:
        UserError: if the photographs have no part maps, or step 2 has left no semantic template.
    """
    kind = config.optimizer.semantic_consistency
    if kind == "none":
        return None
    option = f"--semantic_consistency {kind}"
    if not config.model.predicts_parts:
        raise UserError(f"{option}: needs part maps. Use --prediction_type semantics or both.")
    tables = []
    for number, (detections, origin) in enumerate(zip(data.detections, data.origins, strict=True)):
        template = pose_files.load_semantic_template(detections.dataset, config.data.mode, origin)
        names = data.own_parts(number)
        if not set(template.part_names) & set(names):
            raise UserError(f"{option}: {detections.dataset} has no part maps. Use none.")
        # Channels of the template to those of the part maps
        table = template.probabilities.new_zeros(
            *template.probabilities.shape[:2], data.selection.shape[1]
        )
        table[..., 0] = template.probabilities[..., 0]
        for channel, name in enumerate(template.part_names, start=1):
            if name in names:
                table[..., 1 + names.index(name)] = template.probabilities[..., channel]
        tables.append(table)
    sphere = SphereMesh(config.model.rings)
    probabilities = SphereMesh().resample(torch.cat(tables), sphere)
    return SemanticConsistency(kind, probabilities.to(device), sphere.to(device))
