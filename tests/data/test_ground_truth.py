"""True poses: reading, projection into the crop, and the rotation report."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data import prepare
from data.cache.storage import save_arrays
from data.crops import ObjectImages, to_pixels
from data.detections import Detections, load_detections
from data.ground_truth import (
    GroundTruth,
    load_ground_truth,
    load_keypoints,
    load_true_shapes,
    project_true,
    rotation_report,
)
from geometry import quaternion
from rendering.rasterizer import rasterize
from utils.cli import UserError


@pytest.fixture
def toy(collection: Path) -> Detections:
    prepare.main(["--dataset", "toy", "--category", "bird"])
    return load_detections("toy")


def write(folder: Path, names: list[str], **changes: np.ndarray) -> None:
    n = len(names)
    arrays = {
        "name": np.array(names),
        "rotation": np.eye(4, dtype=np.float32)[np.arange(n) % 4],
        "scale_px": np.full(n, 22.0, np.float32),
        "translation_px": np.tile(np.array([30, 20], np.float32), (n, 1)),
        "camera_distance": np.full(n, np.inf, np.float32),
        "shape_id": np.arange(n),
    }
    save_arrays(folder / "ground_truth.npz", arrays | changes)


def test_rows_are_matched_by_the_names_of_the_images(collection: Path, toy: Detections):
    assert load_ground_truth(toy) is None
    write(collection, ["2", "x", "0"])
    truth = load_ground_truth(toy)
    assert truth is not None
    assert truth.known.tolist() == [True, False, True]
    assert truth.shape_id.tolist() == [2, -1, 0]
    assert truth.rotation[0].tolist() == [0, 0, 1, 0]
    write(collection, ["x"])
    with pytest.raises(UserError, match="names none of the 3 images of toy"):
        load_ground_truth(toy)
    (collection / "ground_truth.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"ground_truth\.npz: cannot be read"):
        load_ground_truth(toy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotation", np.full((3, 4), np.nan, np.float32)),
        ("scale_px", np.array([1, np.inf, 1], np.float32)),
        ("translation_px", np.zeros((3, 3), np.float32)),
        ("camera_distance", np.array([1, np.nan, np.inf], np.float32)),
        ("camera_distance", np.array(["far"] * 3)),
        ("shape_id", np.arange(2)),
    ],
)
def test_cameras_that_are_no_numbers_are_refused(collection: Path, toy: Detections, name, value):
    write(collection, ["2", "1", "0"], **{name: value})
    with pytest.raises(UserError, match=rf"ground_truth\.npz: {name} .*remove it"):
        load_ground_truth(toy)


def test_true_poses_map_back_to_the_pixels_they_were_given_in(collection: Path, toy: Detections):
    distance = np.array([np.inf, 4.0, 4.0], np.float32)
    write(collection, ["0", "1", "2"], camera_distance=distance)
    truth = load_ground_truth(toy)
    assert truth is not None
    points = torch.tensor([[0.5, 0.25, 0.0], [0.0, 0.0, 1.0]])
    # Rows 0 and 1 are turned by nothing and by 180 degrees about x; z leads away from the viewer
    expected = {0: [[41.0, 25.5], [30, 20]], 1: [[41.0, 14.5], [30, 20]]}
    for row, pixels in expected.items():
        box = ObjectImages(toy, 8).box(row)
        screen = project_true(points, truth, row)
        torch.testing.assert_close(to_pixels(screen[:, :2], box), torch.tensor(pixels))
    # Nearer points are magnified: row 1 shows the point (1, 0, 1) at distance 4 - 1
    screen = project_true(torch.tensor([[1.0, 0, 1]]), truth, 1)
    assert to_pixels(screen[:, :2], ObjectImages(toy, 8).box(1))[0, 0] == pytest.approx(
        30 + 22 * 4 / 3, abs=1e-4
    )
    assert screen[0, 2] > 0


def test_rotation_report_counts_known_rows_only():
    angles = torch.tensor([0.0, 20, 40, 180])
    axis = torch.tensor([[0.0, 0, 1]]).expand(4, 3)
    estimated = quaternion.from_axis_angle(axis, angles)
    identity = torch.eye(4)[:1].expand(4, 4)
    nothing = torch.zeros(4)
    known = torch.tensor([True, True, True, False])
    truth = GroundTruth(identity, known, nothing, nothing, nothing, nothing)
    report = rotation_report(-estimated, truth)
    assert report["images"] == 3
    assert report["median_degrees"] == pytest.approx(20, abs=1e-3)
    assert report["share_under_30"] == pytest.approx(2 / 3)
    expected = np.mean(np.sin(np.radians([0, 10, 20])) ** 2)
    assert report["squared_distance"] == pytest.approx(expected, abs=1e-6)
    kept = rotation_report(estimated[1:3], truth, torch.tensor([1, 2]))
    assert kept["images"] == 2
    none = rotation_report(estimated[3:], truth, torch.tensor([3]))
    assert none == {
        "images": 0, "median_degrees": None, "share_under_30": None, "squared_distance": None
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"expected shape \(4, 4\)"):
        rotation_report(estimated[:2], truth)


@pytest.mark.parametrize(("name", "category"), [("photobirds", "bird"), ("photocars", "car")])
def test_true_shapes_under_true_poses_cover_the_masks(
    name: str, category: str, shared: Path, tmp_path: Path, monkeypatch
):
    # A part of the collection, linked file by file: decoding all of it would take seconds
    source, target = shared / "data" / name, tmp_path / "datasets" / name
    for folder, suffix in (("images", "jpg"), ("masks", "png"), ("parts", "png")):
        (target / folder).mkdir(parents=True)
        for stem in ("0000", "0043", "0117", "0169", "0238"):
            (target / folder / f"{stem}.{suffix}").symlink_to(source / folder / f"{stem}.{suffix}")
    for file in ("parts.json", "ground_truth.npz", "shapes.npz"):
        (target / file).symlink_to(source / file)
    monkeypatch.chdir(tmp_path)
    prepare.main(["--dataset", name, "--category", category])
    detections = load_detections(name)
    truth, shapes = load_ground_truth(detections), load_true_shapes(name)
    assert truth is not None
    assert shapes is not None
    assert truth.known.all()
    images = ObjectImages(detections, 128)
    for row in range(len(detections)):
        screen = project_true(shapes.vertices_of(int(truth.shape_id[row])), truth, row)
        raster = rasterize(screen[None], shapes.faces, 128, attributes=screen[None], soft=False)
        drawn, mask = raster.coverage[0, 0] > 0.5, images[row].image[3] > 0.5
        iou = (drawn & mask).sum() / (drawn | mask).sum()
        assert iou > 0.97
    with pytest.raises(KeyError):
        shapes.vertices_of(99)


def test_keypoints_are_where_their_pixels_lie_in_the_crop(collection: Path, toy: Detections):
    """The object of photograph 0 spans columns 10-49 and rows 5-34: a box of 40 in a crop of 44."""
    assert load_keypoints(toy) is None
    write(collection, ["2", "0"])
    assert load_keypoints(toy) is None
    points = np.array([[[0, 0, 1], [0, 0, 1]], [[30, 20, 1], [52, 42, 0]]], np.float32)
    write(collection, ["2", "0"], keypoints=points, keypoint_names=np.array(["beak", "tail"]))
    found = load_keypoints(toy)
    assert found is not None
    assert found.names == ["beak", "tail"]
    assert found.visible.tolist() == [[True, False], [False, False], [True, True]]
    torch.testing.assert_close(found.position[0], torch.tensor([[0.0, 0], [1, -1]]))
    assert found.extent[0] == pytest.approx(2 * 40 / 44)
    for row, pixel in ((0, [30.0, 20.0]), (2, [0.0, 0.0])):
        back = to_pixels(found.position[row], ObjectImages(toy, 8).box(row))
        torch.testing.assert_close(back[0], torch.tensor(pixel))


def test_keypoints_without_names_are_numbered(collection: Path, toy: Detections):
    write(collection, ["0"], keypoints=np.ones((1, 2, 3), np.float32))
    found = load_keypoints(toy)
    assert found is not None
    assert found.names == ["1", "2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": np.full((1, 2, 3), np.nan, np.float32)}, "keypoints is float32"),
        ({"keypoints": np.ones((1, 2, 2), np.float32)}, "keypoints is float32"),
        ({"keypoints": np.ones((1, 2, 3)), "keypoint_names": np.array(["a"])}, "1 names for 2"),
    ],
)
def test_damaged_keypoints_are_refused(collection: Path, toy: Detections, changes, message):
    write(collection, ["0"], **changes)
    with pytest.raises(UserError, match=rf"ground_truth\.npz: {message}.*remove it"):
        load_keypoints(toy)
