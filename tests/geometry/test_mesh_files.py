"""Meshes in files: axes, handedness and errors."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from geometry.mesh_files import load_mesh, object_axes, save_meshes, save_textured_mesh, to_y_up
from utils.cli import UserError


def test_export_turns_up_into_y_and_front_into_z_without_a_reflection():
    assert to_y_up(torch.eye(3)).tolist() == [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    assert torch.linalg.det(to_y_up(torch.eye(3))) == 1


def test_exported_mesh_is_outward_and_comes_back(template, tmp_path):
    vertices = template.vertices * torch.tensor([0.3, 1.0, 0.5])
    path = tmp_path / "mesh_0.obj"
    texture = torch.zeros(3, 8, 8)
    save_textured_mesh(path, vertices, template.faces, template.uvs, template.face_uvs, texture)
    assert trimesh.Trimesh(*load_mesh(path)).volume > 0
    mesh = load_mesh(path, up="y", front="z")
    assert trimesh.Trimesh(*mesh).volume > 0
    # Importers may split vertices at seams of the texture
    np.testing.assert_allclose(mesh.vertices[mesh.faces], vertices[template.faces], atol=1e-5)


def test_exported_texture_is_upright_and_named_by_the_material(template, tmp_path):
    texture = -torch.ones(3, 8, 8)
    texture[:, 0] = 1.0  # row 0: north pole, v = 1
    path = tmp_path / "mesh_3.obj"
    args = (template.vertices, template.faces, template.uvs, template.face_uvs, texture)
    save_textured_mesh(path, *args)
    pixels = np.asarray(Image.open(tmp_path / "mesh_3.png"))
    assert pixels[0].min() == 255
    assert pixels[1:].max() == 0
    assert "map_Kd mesh_3.png" in (tmp_path / "mesh_3.mtl").read_text()
    text = path.read_text()
    assert text.startswith("mtllib mesh_3.mtl\no mesh_3\n")
    assert "usemtl mesh_3" in text
    v = [float(line.split()[2]) for line in text.splitlines() if line.startswith("vt ")]
    assert min(v) == pytest.approx(1 / 16)  # the center of the last row of 8 texels
    assert max(v) == pytest.approx(15 / 16)


def test_several_meshes_share_one_file(template, tmp_path):
    save_meshes(tmp_path / "all.obj", template.vertices.expand(2, -1, -1), template.faces)
    text = (tmp_path / "all.obj").read_text()
    assert text.count("\no ") + text.startswith("o ") == 2
    assert len(load_mesh(tmp_path / "all.obj").faces) == 2 * 1920


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z"])
@pytest.mark.parametrize("front", ["x", "-x", "y", "-y", "z", "-z"])
def test_axes_give_a_rotation_that_puts_up_up_and_front_in_front(up, front):
    if up[-1] == front[-1]:
        with pytest.raises(UserError, match="two different axes"):
            object_axes(up, front)
        return
    matrix = object_axes(up, front)
    assert np.linalg.det(matrix) == pytest.approx(1)
    for name, expected in ((up, [0, 0, 1]), (front, [0, -1, 0])):
        axis = np.eye(3)["xyz".index(name[-1])] * (-1 if name[0] == "-" else 1)
        np.testing.assert_array_equal(matrix @ axis, expected)


def test_default_axes_leave_vertices_as_they_are():
    np.testing.assert_array_equal(object_axes("z", "-y"), np.eye(3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.obj", None, "missing.obj"),
        ("points.obj", "v 0 0 0\n", "no faces"),
        ("broken.ply", "not a mesh", "cannot read"),
        ("picture.psd", "not a mesh", "cannot read"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_mesh(path)
