"""Tests of the surface of a cloud that fills an object."""

import numpy as np
import pytest
import torch
import trimesh

from pipeline.reconstruction.points.surface import (
    density_normals,
    rebuild,
    visible_points,
    without_strays,
)

RADIUS = 0.35


def ball(count: int) -> torch.Tensor:
    """Returns points evenly distributed inside a ball."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return RADIUS * direction * torch.rand(count, 1, generator=generator) ** (1 / 3)


def test_what_is_inside_a_ball_cannot_be_seen():
    points = ball(6000)
    seen = visible_points(points).norm(dim=1)
    assert 500 < len(seen) < 1500
    assert seen.min() > 0.8 * RADIUS
    outer = points.norm(dim=1) > 0.97 * RADIUS
    assert (seen > 0.97 * RADIUS).sum() > 0.8 * outer.sum()


def test_normals_of_a_ball_look_outward():
    points = ball(6000)
    outer = points[points.norm(dim=1) > 0.9 * RADIUS]
    normals = density_normals(points, outer)
    assert torch.allclose(normals.norm(dim=1), torch.ones(len(outer)), atol=1e-5)
    cosine = (normals * outer).sum(1) / outer.norm(dim=1)
    assert cosine.min() > 0.8
    assert cosine.mean() > 0.97


def test_strays_are_left_out_and_nothing_else():
    points = ball(1000)
    strays = torch.tensor([[0.49, 0.49, 0.49], [-0.49, 0.4, -0.49], [0.48, -0.49, 0.0]])
    kept = without_strays(torch.cat([strays, points]))
    assert torch.equal(kept[:5], points[:5])
    assert len(kept) > 990


def test_all_of_a_few_points_can_be_seen():
    few = ball(20)
    assert torch.equal(visible_points(few), few)


def test_the_surface_of_a_ball_is_a_sphere():
    mesh = trimesh.Trimesh(*rebuild(ball(6000), 5))
    assert mesh.is_watertight
    assert mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.12)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS).mean() < 0.03


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="only 20 different points"):
        rebuild(ball(20), 5)
