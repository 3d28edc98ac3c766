"""The sphere, its tables and its deformation, against reference arrays and by properties."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geometry.operators import face_neighbors
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import average_poles, double_map, mirror_map, symmetric_extension
from geometry.uv_sphere import uv_sphere


def random_map(count: int = 2, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return symmetric_extension(0.2 * torch.randn(count, 3, size, size // 2, generator=generator))


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    uvs = np.array([line[1:3] for line in lines if line[0] == "vt"], float)
    corners = [[c.split("/")[:2] for c in line[1:]] for line in lines if line[0] == "f"]
    indices = np.array(corners, int) - 1
    return uvs, indices[..., 0], indices[..., 1]


def test_sphere_of_31_rings_has_the_reference_order(golden):
    arrays, sphere = golden("sphere31"), uv_sphere(31)
    np.testing.assert_array_equal(sphere.faces, arrays["faces"])
    np.testing.assert_array_equal(sphere.face_uvs, arrays["face_uvs"])
    np.testing.assert_allclose(sphere.vertices, arrays["vertices"], atol=3e-6)
    np.testing.assert_allclose(sphere.uvs, arrays["uvs"], atol=3e-6)


def test_sphere_of_16_rings_has_the_order_of_published_meshes(shared):
    folder = shared / "data" / "upstream" / "generated_birds"
    uvs, faces, face_uvs = read_obj(sorted(folder.glob("*.obj"))[0])
    sphere = uv_sphere(16)
    np.testing.assert_array_equal(sphere.faces, faces)
    np.testing.assert_array_equal(sphere.face_uvs, face_uvs)
    np.testing.assert_allclose(sphere.uvs, uvs, atol=1e-5)


@pytest.mark.parametrize(("rings", "segments"), [(16, 32), (31, 32), (63, 64)])
def test_spheres_are_closed_and_outward_in_space_and_in_texture(rings, segments):
    sphere = uv_sphere(rings)
    assert len(sphere.vertices) == (rings - 1) * segments + 2
    assert len(sphere.faces) == 2 * segments * (rings - 1)
    np.testing.assert_allclose(np.linalg.norm(sphere.vertices, axis=1), 1)
    a, b, c = np.moveaxis(sphere.vertices[sphere.faces], 1, 0)
    assert (np.einsum("fi,fi->f", np.cross(b - a, c - a), a + b + c) > 0).all()
    a, b, c = np.moveaxis(sphere.uvs[sphere.face_uvs], 1, 0)
    assert ((b - a)[:, 0] * (c - a)[:, 1] > (b - a)[:, 1] * (c - a)[:, 0]).all()
    assert face_neighbors(sphere.faces).shape == sphere.faces.shape


def test_poles_lie_on_the_y_axis_and_north_is_v_one(template):
    north, south = template.vertices[template.poles]
    assert north.tolist() == [0, 1, 0]
    assert south.tolist() == [0, -1, 0]
    assert template.topology_map[template.poles].tolist() == [[0, -1], [0, 1]]


def test_middle_of_the_texture_is_the_positive_x_side(template):
    u = (template.topology_map[:, 0] + 1) / 2
    middle = (u > 0.26) & (u < 0.74)
    middle[template.poles] = False
    assert (template.vertices[middle, 0] > 0).all()


def test_quarter_u_is_the_top_of_the_object(template):
    ring = template.grid[15]
    assert template.vertices[ring[8], 2] == template.vertices[ring, 2].max()
    assert template.vertices[ring[24], 2] == template.vertices[ring, 2].min()


def test_tables_are_those_of_the_reference(golden, template):
    arrays = golden("sphere31")
    for name, key in [
        ("negative", "neg"),
        ("positive", "pos"),
        ("zero", "zero"),
        ("neighbors", "ff"),
        ("poles", "poles"),
    ]:
        assert torch.equal(getattr(template, name), arrays[key].long()), name
    torch.testing.assert_close(template.topology_map, arrays["topo_map"], atol=5e-6, rtol=0)
    torch.testing.assert_close(template.tangent_frames, arrays["tangent_map"], atol=3e-5, rtol=0)
    connectivity = golden("rendering")["uv_connectivity"]
    assert torch.equal(template.grid, connectivity[:, :-1])


def test_deformation_is_that_of_the_reference(golden, template):
    arrays = golden("rendering")
    vertices = template.deform(arrays["disp_map"])
    torch.testing.assert_close(vertices, arrays["vertex_positions"], atol=1e-5, rtol=0)


def test_zero_map_leaves_the_sphere(template):
    assert torch.equal(template.deform(torch.zeros(1, 3, 32, 32))[0], template.vertices)


def test_normal_channel_scales_the_sphere(template):
    displacement = torch.zeros(1, 3, 32, 32)
    displacement[:, 0] = 0.5
    expected = 1.5 * template.vertices
    torch.testing.assert_close(template.deform(displacement)[0], expected, atol=1e-6, rtol=0)


def test_deformed_meshes_are_exactly_symmetric(template):
    vertices = template.deform(random_map())
    mirrored = vertices[:, template.positive] * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(vertices[:, template.negative], mirrored)
    assert (vertices[:, template.zero, 0] == 0).all()


def test_mirrored_map_deforms_to_the_same_mesh(template):
    displacement = random_map()
    mirrored = mirror_map(displacement)
    torch.testing.assert_close(template.deform(mirrored), template.deform(displacement))


def test_deformation_passes_gradients_to_the_map(template):
    displacement = random_map().requires_grad_()
    template.deform(displacement).square().sum().backward()
    assert displacement.grad is not None
    assert (displacement.grad[..., 1:-1, 9:23].abs().sum((0, 1)) > 0).all()
    assert (displacement.grad[..., :6].abs() == 0)[..., 1:-1, :].all()


def test_symmetrize_averages_pairs_and_keeps_sides(template):
    generator = torch.Generator().manual_seed(1)
    vertices = template.vertices + 0.05 * torch.randn(2, 962, 3, generator=generator)
    symmetric = template.symmetrize(vertices)
    assert (symmetric[:, template.positive, 0] >= 0).all()
    assert (symmetric[:, template.zero, 0] == 0).all()
    torch.testing.assert_close(template.symmetrize(symmetric), symmetric)
    pair = (template.positive[3], template.negative[3])
    height = (vertices[:, pair[0], 2] + vertices[:, pair[1], 2]) / 2
    torch.testing.assert_close(symmetric[:, pair[0], 2], height)


@pytest.fixture(scope="module")
def fine() -> SphereMesh:
    return SphereMesh(63)


def test_finer_spheres_are_symmetric_and_scaled_by_constant_maps(fine: SphereMesh) -> None:
    assert fine.vertices.shape == (3970, 3)
    assert torch.equal(fine.deform(torch.zeros(1, 3, 64, 64))[0], fine.vertices)
    constant = torch.zeros(1, 3, 64, 64)
    constant[:, 0] = 0.5
    torch.testing.assert_close(fine.deform(constant)[0], 1.5 * fine.vertices, atol=1e-6, rtol=0)
    vertices = fine.deform(random_map(size=64))
    mirrored = vertices[:, fine.positive] * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(vertices[:, fine.negative], mirrored)
    assert (vertices[:, fine.zero, 0] == 0).all()
    assert len(fine.zero) == 126  # two meridians of 62 vertices, and the poles


@pytest.mark.slow
def test_maps_of_finer_meshes_deform_the_sphere_into_them(fine: SphereMesh) -> None:
    mesh = fine.vertices[None] * torch.tensor([0.5, 1.2, 0.8])
    maps = fine.half_displacement_map(mesh)
    assert maps.shape == (1, 3, 64, 32)
    again = fine.deform(symmetric_extension(average_poles(maps)))
    torch.testing.assert_close(again, mesh, rtol=0, atol=0.006)


def test_resampled_meshes_lie_on_the_edges_and_diagonals_they_come_from(fine: SphereMesh) -> None:
    """Of a sphere: chords of every second segment, and between rings that are half as dense."""
    coarse = SphereMesh()
    mesh = coarse.resample(coarse.vertices[None], fine)[0]
    # Poles and the mirror plane stay what they are
    torch.testing.assert_close(mesh[fine.poles], fine.vertices[fine.poles])
    torch.testing.assert_close(mesh[fine.positive, 1:], mesh[fine.negative, 1:], atol=2e-7, rtol=0)
    torch.testing.assert_close(mesh[fine.positive, 0], -mesh[fine.negative, 0], atol=2e-7, rtol=0)
    # Ring 21 of 63 lies at a third, between rings 10 and 11 of 31; 42 segments are 21 of 32
    below, above = coarse.vertices[coarse.grid[9:11, 21]]
    expected = (2 * below + above) / 3
    torch.testing.assert_close(mesh[fine.grid[20, 42]], expected, atol=1e-6, rtol=0)
    below, above = coarse.vertices[coarse.grid[9:11, 21:23]].mean(1)
    expected = (2 * below + above) / 3
    torch.testing.assert_close(mesh[fine.grid[20, 43]], expected, atol=1e-6, rtol=0)
    # The same rings: nothing changes
    assert torch.equal(coarse.resample(coarse.vertices[None], SphereMesh())[0], coarse.vertices)
    assert coarse.resample(torch.zeros(0, 962, 3), fine).shape == (0, 3970, 3)


def test_doubled_maps_continue_lines_and_spread_a_texel() -> None:
    # Linear in v, whose ends are the first and last row, and in u, whose texels have their middles there
    v, u = torch.linspace(0, 1, 32), (torch.arange(16) + 0.5) / 16
    fine_v, fine_u = torch.linspace(0, 1, 64), (torch.arange(32) + 0.5) / 32
    plane = double_map((2 * v[:, None] + 3 * u)[None, None])[0, 0]
    expected = 2 * fine_v[:, None] + 3 * fine_u
    inner = (slice(1, -1), slice(2, -2))
    torch.testing.assert_close(plane[inner], expected[inner], atol=1e-6, rtol=0)
    # (1, 3, 3, 1) / 4 by interpolation, then (1, 2, 1) / 4
    column = torch.zeros(1, 1, 32, 16)
    column[..., 5] = 1
    spread = torch.tensor([1.0, 5, 10, 10, 5, 1]) / 16
    torch.testing.assert_close(double_map(column)[0, 0, 30, 8:14], spread)
    assert double_map(column)[0, 0, 30, :8].abs().max() == 0
    torch.testing.assert_close(double_map(torch.ones(1, 1, 32, 16)), torch.ones(1, 1, 64, 32))


def test_laplacian_and_edge_length_are_those_of_the_reference(golden, template):
    arrays = golden("rendering")
    vertices = arrays["vertex_positions"]
    energy = template.laplacian(vertices).square().sum((1, 2))
    torch.testing.assert_close(energy, arrays["laplacian"], atol=0, rtol=1e-5)
    length = template.edge_length(vertices).double()
    torch.testing.assert_close(length, arrays["length_reg"].double(), atol=1e-6, rtol=0)


def test_laplacian_of_constants_is_zero_and_at_a_pole_it_is_the_ring_mean(template):
    ones = torch.ones(1, 962, 1)
    assert template.laplacian(ones).abs().max() < 1e-6
    spike = torch.zeros(1, 962, 1)
    spike[0, template.poles[0]] = 1.0
    values = template.laplacian(spike)[0, :, 0]
    assert values[template.poles[0]] == 1
    assert values[template.poles[1]] == 0
    assert (values[template.grid[-1]] == -0.25).all()


def test_other_numbers_of_rings_are_refused():
    with pytest.raises(ValueError, match=r"rings: expected one of \[16, 31, 63\], got 12"):
        uv_sphere(12)
    assert SphereMesh(16).deform(torch.zeros(1, 3, 32, 32)).shape == (1, 482, 3)


def test_maps_of_wrong_shape_are_refused(template):
    with pytest.raises(ValueError, match="displacement_map"):
        template.deform(torch.zeros(1, 4, 32, 32))


def test_open_meshes_have_no_neighbor_table():
    with pytest.raises(ValueError, match="closed mesh"):
        face_neighbors(np.array([[0, 1, 2], [2, 1, 3]]))


def test_a_map_of_vertex_values_has_at_each_vertex_its_value(template: SphereMesh) -> None:
    size = 310  # texels of 1/310, so that the rings lie midway between two rows
    maps = template.vertex_map(template.vertices[None], size)
    x, y = template.topology_map.unbind(-1)
    where = torch.stack([x, y], dim=-1)[None, None]
    sampled = torch.nn.functional.grid_sample(
        maps, where, align_corners=False, padding_mode="border"
    )[0, :, 0].T
    inner = template.grid.flatten()
    torch.testing.assert_close(sampled[inner], template.vertices[inner], atol=0.03, rtol=0)
    # The poles are whole rows: v = 1 in the first one
    assert (maps[0, 1, 0] > 0.99).all()
    assert (maps[0, 1, -1] < -0.99).all()
