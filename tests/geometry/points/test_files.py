"""Files of points: every format gives the same points, and what cannot be used a line that says why."""

import numpy as np
import pytest

from geometry.mesh_files import load_mesh
from geometry.points.files import load_points
from tests.geometry.points.clouds import random, sphere
from utils.cli import UserError

POINTS, NORMALS = sphere(60)


def ply(columns: np.ndarray, order: str = "ascii") -> bytes:
    names = ("x", "y", "z", "nx", "ny", "nz")[: columns.shape[1]]
    head = f"ply\nformat {order} 1.0\nelement vertex {len(columns)}\n"
    head += "".join(f"property double {name}\n" for name in names) + "end_header\n"
    if order == "ascii":
        rows = "\n".join(" ".join(map(repr, row)) for row in columns.tolist())
        return (head + rows + "\n").encode()
    return head.encode() + columns.astype("<f8").tobytes()


def xyz(columns: np.ndarray, separator: str = " ") -> bytes:
    rows = "\n".join(separator.join(map(repr, row)) for row in columns.tolist())
    return f"# x y z\n\n{rows}\n".encode()


def saved(path, content):
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(content)
    return path


BOTH = np.hstack([POINTS, NORMALS])
GOOD = {
    "a.ply": (ply(POINTS), ply(BOTH)),
    "b.PLY": (ply(POINTS, "binary_little_endian"), ply(BOTH, "binary_little_endian")),
    "c.xyz": (xyz(POINTS), xyz(BOTH)),
    "d.xyz": (xyz(POINTS, ", "), xyz(BOTH, "\t")),
    "e.npz": ({"points": POINTS}, {"points": POINTS, "normals": 3 * NORMALS}),
}


@pytest.mark.parametrize("name", GOOD)
def test_formats_give_the_same_points(name, tmp_path):
    order = np.lexsort(POINTS.T[::-1])
    without, with_normals = (
        load_points(saved(tmp_path / name, content), up="z", front="-y") for content in GOOD[name]
    )
    assert without.normals is None
    np.testing.assert_allclose(without.positions, POINTS[order])
    np.testing.assert_allclose(with_normals.positions, POINTS[order])
    assert with_normals.normals is not None
    np.testing.assert_allclose(with_normals.normals, NORMALS[order])


def test_points_and_normals_are_turned_into_object_space(tmp_path):
    path = saved(tmp_path / "a.xyz", xyz(BOTH))
    cloud, turned = load_points(path), load_points(path, up="y", front="z")
    # y up, looking along z: as meshes in these axes
    np.testing.assert_allclose(turned.positions[:, 2], cloud.positions[:, 1])
    np.testing.assert_allclose(turned.positions[:, 1], -cloud.positions[:, 2])
    assert turned.normals is not None
    np.testing.assert_allclose(turned.normals, turned.positions, atol=1e-12)


def test_repeated_points_count_once(tmp_path):
    path = saved(tmp_path / "a.npz", {"points": np.repeat(POINTS, 3, axis=0)})
    assert len(load_points(path).positions) == len(POINTS)


def test_mesh_reader_says_what_to_do_with_points(tmp_path):
    with pytest.raises(UserError, match=r"60 points, no faces.*remesh\.py --from_points"):
        load_mesh(saved(tmp_path / "a.ply", ply(POINTS)))


LINE = np.linspace(-1, 1, 100)[:, None] * [1.0, 2.0, 3.0]
PLANE = random().random((100, 2)) @ [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]
HOLED, UNIT = POINTS.copy(), NORMALS.copy()
HOLED[3, 1], UNIT[5] = np.nan, 0.0
BAD = {
    "empty.ply": (b"", "no header"),
    "empty.xyz": (b"", "0 different points"),
    "empty.npz": (b"", "cannot read"),
    "nothing.ply": (ply(POINTS[:0]), "no x, y and z"),
    "nothing.npz": ({"points": POINTS[:0]}, "0 different points"),
    "one.xyz": (xyz(POINTS[:1]), "1 different points make no surface, expected at least 50"),
    "same.xyz": (xyz(np.ones((100, 3))), "1 different points"),
    "line.npz": ({"points": LINE}, "lie on a line"),
    "plane.npz": ({"points": PLANE}, "lie in a plane"),
    "nan.xyz": (xyz(HOLED), "the positions of 1 points are not finite"),
    "nan.npz": ({"points": POINTS, "normals": HOLED}, "the normals of 1 points are not finite"),
    "zero.npz": (
        {"points": POINTS, "normals": UNIT},
        "1 normals have no length.*--normals estimate",
    ),
    "columns.xyz": (xyz(BOTH[:, :4]), "4 columns"),
    "ragged.xyz": (b"1 2 3\n4 5\n", "point 1 has 2 columns, the first one 3"),
    "words.xyz": (b"1 2 x\n", "cannot read"),
    "garbage.ply": (bytes(range(256)) * 20, "no header"),
    "garbage.xyz": (bytes(range(256)) * 20, "cannot read"),
    "garbage.npz": (bytes(range(256)) * 20, "cannot read"),
    "cut.ply": (ply(POINTS, "binary_little_endian")[:-9], "cut"),
    "names.npz": ({"xyz": POINTS}, "expected an array points, found xyz"),
    "shape.npz": ({"points": POINTS[:, :2]}, r"points: expected numbers of shape \(N, 3\)"),
    "text.npz": ({"points": POINTS.astype(str)}, r"points: expected numbers of shape \(N, 3\)"),
    "objects.npz": ({"points": POINTS.astype(object)}, "allow_pickle"),
    "fewer.npz": ({"points": POINTS, "normals": NORMALS[1:]}, "60 points, but 59 normals"),
    "points.las": (b"LASF", r"expected one of \.ply, \.xyz, \.npz"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_one_line(name, tmp_path):
    content, message = BAD[name]
    path = saved(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as error:
        load_points(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_points(tmp_path / "none.ply")
