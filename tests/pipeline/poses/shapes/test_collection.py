"""The shapes of a collection."""

from pathlib import Path

import torch

from geometry.camera import from_vector
from pipeline.poses.candidates import Candidates
from pipeline.poses.photographs import Photographs
from pipeline.poses.shapes.collection import ShapeFit, collect_shapes
from pipeline.poses.shapes.family import Family
from tests.pipeline.poses.shapes.test_learning import draw, photographs, true_family
from utils.row_files import Table


def test_stored_shapes_have_unit_spread_and_are_those_that_were_fitted(tmp_path: Path) -> None:
    """Two templates; the last image is not kept, and deviates from the others."""
    torch.manual_seed(0)
    families = [
        Family(torch.randn(962, 3), torch.randn(2, 962, 3), true_family().faces) for _ in range(2)
    ]
    templates = torch.randn(2, 962, 3)
    choice = torch.tensor([0, 1, 0, 1, 0, 1, 1])
    found = {
        "vectors": torch.randn(7, 8),
        "coefficients": 3 * torch.randn(7, 2) + 1,
        "iou": torch.rand(7, 1),
    }
    fit = ShapeFit(families, Candidates(from_vector(found["vectors"]), choice))
    table = Table(tmp_path, 7, fit.columns)
    table.write(range(7), found)
    kept = torch.arange(6)
    shapes = collect_shapes(families, templates, choice, table, kept)
    for number in range(2):
        mine = shapes.coefficients[kept][choice[kept] == number]
        torch.testing.assert_close(mine[:, 0], torch.ones(3))
        torch.testing.assert_close(mine.square().mean(0), torch.ones(3))
        torch.testing.assert_close(mine[:, 1:].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    # Every row means the same shape as before
    vertices = shapes.deform(templates, choice)
    for row in range(7):
        family = families[int(choice[row])]
        expected = family.vertices(found["coefficients"][row : row + 1])[0]
        torch.testing.assert_close(vertices[row], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(shapes.vectors, found["vectors"])


def test_fits_do_not_depend_on_the_batch() -> None:
    vectors, _, targets = photographs(3)
    family = true_family()
    masks = torch.nn.functional.interpolate(targets.masks[:, None], scale_factor=2)
    images = torch.cat([masks.expand(-1, 3, -1, -1), masks], dim=1)
    some = Photographs(torch.arange(3), images, images[:, :0])
    fit = ShapeFit([family], Candidates(from_vector(vectors), torch.zeros(3, dtype=torch.int64)))
    together = fit.measure(some)
    for row in range(3):
        alone = fit.measure(some.select(torch.tensor([row])))
        for name, values in together.items():
            assert torch.equal(values[row : row + 1], alone[name])
    # Overlaps are those of the drawn shapes
    covered = draw(family, together["vectors"], together["coefficients"])
    assert covered.shape == (3, 64, 64)
    assert (together["iou"] > 0.85).all()
