"""Semantic consistency: parts of templates against parts of photographs."""

import pytest
import torch
from torch import Tensor

from data.cache import pose_files, template_files
from data.detections import load_detections
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.companions.semantics import (
    CELLS,
    SemanticConsistency,
    part_distance,
)
from pipeline.reconstruction.dataset import Batch, Labels
from pipeline.reconstruction.model import Prediction
from rendering.rasterizer import rasterize
from tests.pipeline.reconstruction.toy import RUN, run
from utils.cli import UserError
from utils.run_directory import RunDirectory
from utils.seeding import torch_generator

SPHERE = SphereMesh()
PARTS = 3  # the first of them is none


def probabilities_of_bands() -> Tensor:
    """Returns parts (1, V, P) by height: below, in the middle, above."""
    z = SPHERE.vertices[:, 2]
    return torch.stack([z < -0.3, (z >= -0.3) & (z < 0.3), z >= 0.3], dim=-1).float()[None]


def screen_of(size: float) -> Tensor:
    """Returns a sphere on the screen, z up and towards the viewer."""
    x, y, z = SPHERE.vertices.unbind(-1)
    return size * torch.stack([x, z, -y], dim=-1)[None]


def labels() -> Labels:
    zero = torch.zeros(1, dtype=torch.int64)
    return Labels(None, zero, zero, zero.bool(), zero)  # type: ignore[arg-type] - poses are not read


def predicted(screen: Tensor) -> Prediction:
    return Prediction(screen, None, None, screen, screen)


def batch_of(maps: Tensor) -> Batch:
    parts = torch.cat([1 - maps.sum(1, keepdim=True), maps], dim=1)
    number = torch.zeros(1, dtype=torch.int64)
    return Batch(maps, parts, number, number.bool())


def test_the_distance_is_that_of_a_loop_over_cells_and_vertices() -> None:
    generator = torch_generator(0)
    screen = 2 * torch.rand(2, 20, 3, generator=generator) - 1
    probabilities = torch.rand(2, 20, 4, generator=generator)
    probabilities[0, :, 3] = 0  # a part that no vertex has
    maps = torch.rand(2, 4, CELLS, CELLS, generator=generator)
    maps[1, 2] = 0  # one that no pixel has
    images = []
    for b in range(2):
        parts = []
        for part in range(1, 4):
            own = [v for v in range(20) if int(probabilities[b, v].argmax()) == part]
            total = weight = 0.0
            for row in range(CELLS):
                for column in range(CELLS):
                    x, y = (column + 0.5) * 2 / CELLS - 1, 1 - (row + 0.5) * 2 / CELLS
                    w = float(maps[b, part, row, column])
                    if own and w:
                        squares = [
                            (screen[b, v, 0] - x) ** 2 + (screen[b, v, 1] - y) ** 2 for v in own
                        ]
                        total, weight = total + w * float(min(squares)), weight + w
            if weight:
                parts.append(total / weight)
        images.append(sum(parts) / len(parts))
    found = part_distance(screen, probabilities, maps)
    assert float(found) == pytest.approx(sum(images) / 2, rel=1e-4)


def test_nothing_is_measured_without_parts() -> None:
    screen = screen_of(0.5).requires_grad_()
    found = part_distance(screen, probabilities_of_bands(), torch.zeros(1, PARTS, 32, 32))
    found.backward()
    assert not found.detach()
    assert screen.grad is not None
    assert not screen.grad.any()


@pytest.mark.parametrize("kind", ["prob", "vertex", "both"])
def test_the_right_mesh_is_better_than_a_shifted_one_and_gradients_lead_back(kind: str) -> None:
    probabilities = probabilities_of_bands()
    shown = rasterize(screen_of(0.7), SPHERE.faces, 64, attributes=probabilities, soft=False)
    assert shown.attributes is not None
    semantics = SemanticConsistency(kind, probabilities, SPHERE)
    batch = batch_of(shown.attributes)

    def loss(screen: Tensor) -> Tensor:
        terms = semantics.terms(predicted(screen), labels(), batch)
        assert len(terms) == (2 if kind == "both" else 1)
        return torch.stack([term.weight * term.value for term in terms.values()]).sum()

    shift = torch.tensor([0.0, 0.2, 0.0])
    shifted = (screen_of(0.7) + shift).requires_grad_()
    wrong, right = loss(shifted), loss(screen_of(0.7))
    assert right < 0.2 * wrong.detach()
    if kind == "prob":
        assert float(right) == 0
    wrong.backward()
    assert shifted.grad is not None
    assert (shifted.grad * shift).sum() > 0


def save_semantic_template(names: list[str]) -> None:
    detections = load_detections("toy")
    templates = template_files.load_templates("bird", "singletpl")
    probabilities = torch.zeros(1, 962, 1 + len(names))
    probabilities[:, :, 0], probabilities[:, :481, 0] = 1, 0
    probabilities[:, :481, -1] = 1
    pose_files.save_semantic_template(
        "toy",
        "singletpl",
        pose_files.SemanticTemplate(probabilities, names),
        pose_files.origin_of(detections, templates),
    )


@pytest.mark.usefixtures("toy")
def test_a_run_compares_parts_by_their_names() -> None:
    save_semantic_template(["tail", "beak"])  # in another order than in the part maps
    run("--iters", "10", "--semantic_consistency", "both")
    record = RunDirectory(RUN).records()[-1]
    assert record["part_probability"] > 0
    assert record["part_distance"] > 0


@pytest.mark.usefixtures("toy")
def test_what_is_missing_is_told() -> None:
    with pytest.raises(
        UserError, match=r"semantic_template_singletpl.*pose_optimization_step2\.py"
    ):
        run("--iters", "1", "--semantic_consistency", "prob")
    save_semantic_template(["hoof"])
    with pytest.raises(UserError, match="--semantic_consistency prob: toy has no part maps"):
        run("--iters", "1", "--semantic_consistency", "prob")
    with pytest.raises(UserError, match=r"needs part maps\. Use --prediction_type"):
        run("--iters", "1", "--semantic_consistency", "prob", "--prediction_type", "texture")
