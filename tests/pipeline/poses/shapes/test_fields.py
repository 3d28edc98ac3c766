"""Smooth fields of meshes."""

import math

import torch

from geometry.sphere_mesh import SphereMesh
from pipeline.poses.shapes.fields import NUM_EVEN, NUM_ODD, cotangent_laplacian, smooth_fields
from tests.pipeline.poses import pose_world

MESH = SphereMesh()


def test_coordinates_are_eigenfunctions_of_the_sphere() -> None:
    """The Laplacian of a coordinate is twice the coordinate, and the areas add up to 4 pi."""
    vertices = MESH.vertices.double()
    stiffness, area = cotangent_laplacian(vertices, MESH.faces)
    torch.testing.assert_close(stiffness, stiffness.T)
    assert abs(area.sum().item() - 4 * math.pi) < 0.1
    energy = torch.einsum("vc,vw,wc->c", vertices, stiffness, vertices)
    mass = (area[:, None] * vertices.square()).sum(0)
    torch.testing.assert_close(energy / mass, torch.full((3,), 2.0).double(), rtol=0.02, atol=0)


def test_the_energy_of_a_linear_function_is_its_slope_times_the_area() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]]).double()
    stiffness, area = cotangent_laplacian(vertices, torch.tensor([[0, 1, 2]]))
    values = 3 * vertices[:, 0] - vertices[:, 1]
    assert abs((values @ stiffness @ values).item() - 10 * 1.0) < 1e-9
    torch.testing.assert_close(area, torch.full((3,), 1 / 3).double())


def test_fields_are_symmetric_and_ordered_by_smoothness() -> None:
    fields = smooth_fields(pose_world.body(), MESH)
    assert fields.shape == (2 * NUM_EVEN + NUM_ODD, 962, 3)
    mirrored = fields[:, MESH.negative] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored, fields[:, MESH.positive], rtol=0, atol=1e-6)
    size = fields.square().sum(-1).mean(-1).sqrt()
    assert size[:6].mean() > 1.5 * size[-6:].mean()


def test_no_field_moves_turns_or_scales_the_object() -> None:
    """What a least-squares fit finds of these motions in a random deformation is nothing."""
    body = pose_world.body()
    fields = smooth_fields(body, MESH)
    _, area = cotangent_laplacian(body.double(), MESH.faces)
    x, y, z = body.double().unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    for motion in [(zero, one, zero), (zero, zero, one), (zero, -z, y), (x, y, z)]:
        weighted = area[:, None] * torch.stack(motion, dim=1)
        share = (fields.double() * weighted).sum((1, 2)).abs()
        norm = (fields.double().square() * area[:, None]).sum((1, 2)).sqrt()
        assert (share < 1e-5 * norm * weighted.norm()).all()
