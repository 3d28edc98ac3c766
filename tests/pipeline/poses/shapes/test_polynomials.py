"""Stretches, tapers and bends of templates."""

import pytest
import torch

from geometry.shape_modes import deform
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.shapes.polynomials import deformation_fields, with_shape
from tests.pipeline.poses import pose_world


def test_deformed_templates_stay_mirror_symmetric() -> None:
    mesh = SphereMesh()
    body = pose_world.body()[None]
    coefficients = torch.randn(1, 11, generator=torch.Generator().manual_seed(0))
    found = deform(body, coefficients, deformation_fields(body))[0]
    mirrored = found * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored[mesh.negative], found[mesh.positive])


def test_stretches_of_all_axes_are_a_scale() -> None:
    body = pose_world.body()[None]
    fields = deformation_fields(body)
    coefficients = torch.zeros(1, 11)
    coefficients[0, [0, 3, 7]] = 0.2
    torch.testing.assert_close(deform(body, coefficients, fields), 1.2 * body)


def test_no_field_turns_or_moves_the_object() -> None:
    torch.manual_seed(0)
    vertices = torch.randn(1, 50, 3)
    fields = deformation_fields(vertices)[0].reshape(11, -1)
    x, y, z = vertices[0].unbind(-1)
    zero = torch.zeros_like(x)
    moves = [(zero, zero + 1, zero), (zero, zero, zero + 1), (zero, -z, y)]
    for move in moves:
        field = torch.stack(move, dim=-1).reshape(1, -1)
        solution = torch.linalg.lstsq(fields.T, field.T).solution
        assert (fields.T @ solution - field.T).norm() > 0.5 * field.norm()


def test_a_shape_is_the_posterior_mean_of_twenty_measurements() -> None:
    """A stretch that is measured as 0.5 with variance 0.3, whose usual size is 1."""
    stretch = torch.tensor([[0.5]], dtype=torch.float64)
    for _ in range(300):
        stretch = stretch.detach().requires_grad_()
        error = (stretch[:, 0] - 0.5).square() + 0.3
        (slope,) = torch.autograd.grad(with_shape(error, stretch).sum(), stretch)
        stretch = stretch - 0.2 * slope
    assert stretch.item() == pytest.approx(0.5 * (20 / 0.3) / (20 / 0.3 + 1), rel=1e-3)
