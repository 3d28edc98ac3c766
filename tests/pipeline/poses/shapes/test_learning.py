"""Modes of shape of a family that is known."""

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import from_vector, project, to_vector
from geometry.distances import hard_iou
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.shapes.collection import SIZE
from pipeline.poses.shapes.family import Family, Fit, fit_shapes
from pipeline.poses.shapes.fields import smooth_fields
from pipeline.poses.shapes.learning import Examples, learn_family, principal_modes
from pipeline.poses.shapes.thin_parts import Targets, make_targets
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world

MESH = SphereMesh()
COUNT = 24


def true_family() -> Family:
    """Returns bodies that are longer or shorter, and whose head is lifted or lowered."""
    body = pose_world.body()
    y = body[:, 1]
    longer, head = torch.zeros(2, 962, 3)
    longer[:, 1] = 0.2 * y
    head[:, 2] = 0.2 * (-y).clamp(min=0)
    return Family(body + 0.3 * longer, torch.stack([longer, head]), MESH.faces)


def draw(family: Family, vectors: Tensor, coefficients: Tensor) -> Tensor:
    screen = project(family.vertices(coefficients), from_vector(vectors))
    return rasterize(screen, family.faces, SIZE, soft=False).coverage[:, 0]


def photographs(count: int) -> tuple[Tensor, Tensor, Targets]:
    """Returns poses (count, 8), coefficients (count, 2) and masks of objects seen from their sides."""
    generator = torch.manual_seed(0)
    sides = torch.tensor([0.0, 180.0]).repeat(count)[:count]
    azimuth = sides + 40 * torch.rand(count, generator=generator) - 20
    vectors = to_vector(pose_world.poses(azimuth.tolist(), [5.0] * count))
    vectors[:, 4] *= 0.8  # space for longer bodies
    coefficients = torch.randn(count, 2, generator=generator)
    return vectors, coefficients, make_targets(draw(true_family(), vectors, coefficients))


def test_known_modes_are_fitted() -> None:
    vectors, truth, targets = photographs(4)
    start = Fit(vectors, torch.zeros(4, 2))
    found = fit_shapes(true_family(), targets, start, 40)
    assert (found.coefficients - truth).abs().max() < 0.5
    overlap = hard_iou(draw(true_family(), found.vectors, found.coefficients), targets.masks)
    assert overlap.min() > 0.9
    # Rotations stay where they were
    assert quaternion.angle_between(found.vectors[:, :4], vectors[:, :4]).max() < 6


def test_unusual_shapes_cost_more_than_they_explain() -> None:
    """A mode that masks do not show stays at its mean."""
    vectors, _, targets = photographs(2)
    family = true_family()
    family = family._replace(modes=torch.cat([family.modes, 1e-3 * family.modes[:1]]))
    found = fit_shapes(family, targets, Fit(vectors, torch.zeros(2, 3)), 20)
    assert found.coefficients[:, 2].abs().max() < 0.15


def test_principal_modes_have_the_covariance_of_the_displacements() -> None:
    torch.manual_seed(0)
    fields, factor = torch.randn(5, 7, 3).double(), torch.randn(5, 5).double()
    covariance = factor @ factor.T
    modes = principal_modes(fields, covariance, 5).flatten(1)
    expected = fields.flatten(1).T @ covariance @ fields.flatten(1)
    torch.testing.assert_close(modes.T @ modes, expected)
    # Orthogonal, and the largest first
    gram = modes @ modes.T
    torch.testing.assert_close(gram, torch.diag(gram.diag()), atol=1e-9, rtol=0)
    assert (gram.diag().diff() < 0).all()


def test_without_images_the_template_is_the_mean() -> None:
    _, _, targets = photographs(1)
    nothing = Examples(targets.select(slice(0)), torch.zeros(0, 8), torch.zeros(0))
    family = learn_family(pose_world.body(), MESH, nothing, 3)
    assert torch.equal(family.mean, pose_world.body())
    assert torch.isfinite(family.modes).all()


@pytest.mark.slow
def test_a_family_is_learned_from_its_masks() -> None:
    vectors, _, targets = photographs(COUNT)
    examples = Examples(targets, vectors, torch.ones(COUNT))
    family = learn_family(pose_world.body(), MESH, examples, 4)
    # Symmetric
    shapes = family.vertices(torch.randn(3, 4))
    mirrored = shapes[:, MESH.negative] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored, shapes[:, MESH.positive], rtol=0, atol=1e-5)
    # The true modes are combinations of the learned ones, up to motions that the pose takes over
    flat = family.modes.flatten(1)
    fields = smooth_fields(pose_world.body(), MESH).flatten(1)
    for mode in true_family().modes:
        deformation = _project(fields, mode.flatten())
        rest = deformation - _project(flat, deformation)
        assert rest.norm() < 0.5 * deformation.norm()
    # Overlaps rise, and become those of true shapes
    none = torch.zeros(COUNT, 4)
    fit = fit_shapes(family, targets, Fit(vectors, none), 30)
    rigid = family._replace(mean=pose_world.body())
    before = hard_iou(draw(rigid, vectors, none), targets.masks)
    after = hard_iou(draw(family, fit.vectors, fit.coefficients), targets.masks)
    assert before.mean() < 0.85
    assert after.mean() > 0.93


def _project(rows: Tensor, vector: Tensor) -> Tensor:
    return rows.T @ torch.linalg.lstsq(rows.T, vector[:, None]).solution[:, 0]
