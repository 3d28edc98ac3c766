"""Mesh operators against closed forms and naive loops, on a cube and a tetrahedron."""

import numpy as np
import pytest
import torch
import trimesh

from geometry import operators
from geometry.sphere_mesh import SphereMesh

CUBE = trimesh.creation.box((1.0, 2.0, 3.0))  # 8 vertices, 12 faces, 18 edges
VERTICES = torch.from_numpy(np.array(CUBE.vertices))
FACES = np.array(CUBE.faces, np.int64)
EDGES = {tuple(sorted(edge)) for edge in CUBE.edges.tolist()}


def test_volume_is_that_of_the_box_wherever_it_lies_and_signed_by_orientation():
    faces = torch.from_numpy(FACES)
    assert operators.volume(VERTICES, faces).item() == pytest.approx(6)
    assert operators.volume(VERTICES + 5, faces).item() == pytest.approx(6)
    assert operators.volume(VERTICES, faces.flip(1)).item() == pytest.approx(-6)


def test_neighbors_are_the_faces_that_share_two_vertices():
    expected = [
        sorted((g for g in range(12) if len({*FACES[f]} & {*FACES[g]}) == 2), reverse=True)
        for f in range(12)
    ]
    assert operators.face_neighbors(FACES).tolist() == expected


def test_every_edge_of_the_table_has_the_face_of_its_direction_first():
    table = operators.edge_table(FACES)
    assert {(a, b) for a, b, *_ in table.tolist()} == EDGES
    for a, b, first, second in table.tolist():
        directed = {f: [(FACES[f][k], FACES[f][k - 2]) for k in range(3)] for f in (first, second)}
        assert (a, b) in directed[first]
        assert (b, a) in directed[second]


def test_flatness_of_a_box_counts_its_twelve_right_angles():
    neighbors = torch.from_numpy(operators.face_neighbors(FACES).copy())
    flatness = operators.flatness(VERTICES[None], torch.from_numpy(FACES), neighbors)
    assert flatness.item() == pytest.approx(12)  # (1 - cos 90°)^2 each; the 6 diagonals are flat


def test_stiffness_is_the_identity_plus_degrees_minus_adjacency():
    expected = np.eye(8)
    for a, b in EDGES:
        expected[[a, b], [a, b]] += 0.5
        expected[[a, b], [b, a]] -= 0.5
    actual = operators.stiffness_matrix(torch.from_numpy(FACES), 8, 0.5)
    assert np.array_equal(actual.numpy(), expected)


def test_split_edges_are_short_and_keep_the_surface():
    vertices, faces = operators.split_edges(np.array(CUBE.vertices), FACES, 0.7)
    result = trimesh.Trimesh(vertices, faces, process=False)
    assert result.edges_unique_length.max() <= 0.7
    assert result.is_watertight
    assert (result.volume, result.area) == pytest.approx((CUBE.volume, CUBE.area))
    assert np.array_equal(vertices[:8], CUBE.vertices)


def test_vertices_beyond_the_mirror_plane_cost_their_depth():
    vertices = torch.tensor([[[-0.5, 0, 0], [0.25, 0, 0], [-9.0, 0, 0]]])
    assert operators.half_space_penalty(vertices, torch.tensor([0, 1])).item() == 0.25


def test_the_laplacian_of_the_sphere_is_each_vertex_minus_the_mean_of_its_neighbors():
    sphere = SphereMesh(16)
    values = torch.randn(1, len(sphere.vertices), 2, generator=torch.Generator().manual_seed(0))
    result = sphere.laplacian(values)[0]
    for row, column in ((0, 0), (7, 31), (14, 5)):  # south, seam, north
        grid, (north, south) = sphere.grid, sphere.poles
        around = [grid[row, column - 1], grid[row, (column + 1) % 32]]
        around += [north if row == 14 else grid[row + 1, column]]
        around += [south if row == 0 else grid[row - 1, column]]
        expected = values[0, grid[row, column]] - values[0, torch.stack(around)].mean(0)
        torch.testing.assert_close(result[grid[row, column]], expected)
    expected = values[0, sphere.poles[0]] - values[0, sphere.grid[-1]].mean(0)
    torch.testing.assert_close(result[sphere.poles[0]], expected)
