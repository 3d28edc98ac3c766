"""Points on meshes: closed forms on triangles and spheres, and what the rasterizer shows."""

import pytest
import torch

from geometry.correspondence import SurfacePoints, locate, place
from geometry.sphere_mesh import SphereMesh

# A triangle, a nearer copy of its left half, and one that is turned away in front of both
SCREEN = torch.tensor(
    [
        [0, 0, 0],
        [4, 0, 0],
        [0, 4, 0],
        [0, 0, 1],
        [2, 0, 1],
        [0, 4, 1],
        [0, 0, 9],
        [0, 4, 9],
        [4, 0, 9],
    ]
).float()
FACES = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8]])


@pytest.mark.parametrize(
    ("point", "face", "expected"),
    [
        ((0.5, 0.5), 1, (0.5, 0.5, 1)),  # the nearer one
        ((2.5, 0.5), 0, (2.5, 0.5, 0)),
        ((3.0, 3.0), 0, (2, 2, 0)),  # beside it, at the foot of the perpendicular
        ((5.0, -1.0), 0, (4, 0, 0)),  # at a corner
        ((-1.0, 2.0), 1, (0, 2, 1)),  # at an edge of two, the nearer one
    ],
)
def test_points_are_on_the_nearest_face_that_is_seen(point, face, expected):
    found = locate(torch.tensor([point]), SCREEN, FACES)
    assert found.face.tolist() == [face]
    torch.testing.assert_close(place(found, SCREEN, FACES)[0], torch.tensor(expected).float())
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(1))


def test_a_mesh_that_is_turned_away_is_an_error():
    with pytest.raises(ValueError, match="faces towards the viewer"):
        locate(torch.zeros(1, 2), SCREEN, FACES[2:])


def test_points_of_a_sphere_are_where_its_equation_says():
    """Inside the outline z = sqrt(1 - x^2 - y^2); beside it, the point towards the origin."""
    sphere = SphereMesh()
    points = torch.tensor([[0.0, 0.0], [0.3, 0.5], [-0.6, 0.1], [3.0, 4.0]])
    found = place(locate(points, sphere.vertices, sphere.faces), sphere.vertices, sphere.faces)
    depth = (1 - points[:3].square().sum(1)).sqrt()
    torch.testing.assert_close(found[:3, :2], points[:3])
    torch.testing.assert_close(found[:3, 2], depth, atol=0.02, rtol=0)
    torch.testing.assert_close(found[3], torch.tensor([0.6, 0.8, 0]), atol=0.1, rtol=0)
    assert found[3].norm() == pytest.approx(1, abs=0.02)


def test_points_are_placed_as_by_a_loop():
    sphere = SphereMesh()
    generator = torch.Generator().manual_seed(0)
    face = torch.randint(len(sphere.faces), (2, 5), generator=generator)
    weights = torch.rand(2, 5, 3, generator=generator)
    vertices = torch.rand(2, 962, 3, generator=generator)
    placed = place(SurfacePoints(face, weights), vertices, sphere.faces)
    for b in range(2):
        for k in range(5):
            corners = vertices[b][sphere.faces[face[b, k]]]
            torch.testing.assert_close(placed[b, k], weights[b, k] @ corners)
