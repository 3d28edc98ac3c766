"""Points on meshes: even by area, fixed on their faces, differentiable in the vertices."""

import torch

from geometry.sphere_mesh import SphereMesh
from rendering.projection.surface import DEPTH, draw, place, squeeze_depth

FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
# Two triangles in the plane z = 0, of areas 1/2 and 1
PAPER = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 1, 0]]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_points_lie_on_their_faces_evenly_by_area():
    draws = draw(PAPER, FACES, 3000, seeded())
    points = place(draws, PAPER, torch.tensor([0]))[0]
    first = points[:, 0] > points[:, 1]
    assert first.sum().item() in range(999, 1002)
    assert (points[:, 2] == 0).all()
    assert (draws.weights >= 0).all()
    # The centroid of the surface, by those of its triangles
    centroid = (torch.tensor([2 / 3, 1 / 3]) * 0.5 + torch.tensor([0, 2 / 3]) * 1.0) / 1.5
    torch.testing.assert_close(points[:, :2].mean(0), centroid, atol=0.02, rtol=0)


def test_the_first_points_are_even_too():
    draws = draw(PAPER, FACES, 3000, seeded())
    first = draws.corners[0, :600, 1] == 1
    assert abs(first.float().mean().item() - 1 / 3) < 0.06


def test_meshes_have_the_places_of_their_template():
    other = PAPER * torch.tensor([1.0, 3.0, 1.0]) + torch.tensor([0.0, 0.0, 0.2])
    draws = draw(torch.cat([PAPER, PAPER.flip(2)]), FACES, 50, seeded())
    moved = place(draws, torch.cat([other, other, other]), torch.tensor([1, 0, 0]))
    expected = place(draws, PAPER, torch.tensor([0])) * torch.tensor([1.0, 3, 1])
    torch.testing.assert_close(moved[1], (expected + torch.tensor([0, 0, 0.2]))[0])
    assert torch.equal(moved[1], moved[2])
    assert not torch.equal(moved[0], moved[1])


def test_gradients_reach_the_corners_by_their_weights():
    vertices = PAPER.clone().requires_grad_()
    draws = draw(PAPER, FACES, 40, seeded())
    place(draws, vertices, torch.tensor([0]))[..., 0].sum().backward()
    sums = torch.zeros(4).index_add_(0, draws.corners.flatten(), draws.weights.flatten())
    assert vertices.grad is not None
    torch.testing.assert_close(vertices.grad[0, :, 0], sums)


def test_the_same_seed_draws_the_same_points():
    sphere = SphereMesh()
    one, same, other = (draw(sphere.vertices[None], sphere.faces, 90, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)


def test_depth_fits_into_the_grid_and_nothing_else_moves():
    deep = torch.tensor([[[0.1, 0.2, 5.0], [0.3, 0.4, -3.0], [0.0, 0.0, 1.0]]])
    flat = torch.tensor([[[0.1, 0.2, 0.5], [0.3, 0.4, 0.1], [0.0, 0.0, 0.3]]])
    points = squeeze_depth(torch.cat([deep, flat]))
    torch.testing.assert_close(points[0, :, 2], torch.tensor([DEPTH, -DEPTH, 0.0]))
    torch.testing.assert_close(points[1, :, 2], torch.tensor([0.2, -0.2, 0.0]))
    assert torch.equal(points[..., :2], torch.cat([deep, flat])[..., :2])
