"""Renderings of several sides: made, arranged as a collection, and true in every sign."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import binary_closing

from data.detections import Detections
from data.ground_truth import load_ground_truth, project_true
from data.image_files import read_mask
from data.multiview import cameras
from data.multiview.layout import find_class, read_class
from data.multiview.objects import load_objects, load_true_points, views_path
from data.preparation.options import PrepareConfig
from data.preparation.preparation import prepare
from data.synthetic import __main__ as command
from data.synthetic.multiview import MultiviewConfig, make_renderings
from geometry import quaternion
from utils.cli import UserError
from utils.files import read_json

COARSE = 9.0  # longer than any edge: the templates stay as they are in their files
SIZE = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with datasets/cars/: 3 objects, 2 views of each."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_renderings(MultiviewConfig("cars", "car", 3, 2, SIZE, seed=1), COARSE)
    return folder


@pytest.fixture
def root(made, tmp_path, monkeypatch) -> Path:
    """A copy of datasets/cars/ in the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("datasets/cars")


def prepared(name: str = "cars", **options) -> Detections:
    detections = prepare(PrepareConfig(name, None, 16, False, **options))
    assert detections is not None
    return detections


def test_the_last_third_is_held_out(root):
    assert (root / "car.train").read_text() == "00000\n00001\n"
    assert (root / "car.valid").read_text() == "00002\n"


def test_true_points_under_true_cameras_cover_the_masks(root):
    detections = prepared()
    assert detections.category == "car"
    assert len(detections) == 6
    truth, points = load_ground_truth(detections), load_true_points("cars")
    assert truth is not None
    objects = load_objects(detections)
    assert [(each.name, each.part, each.rows) for each in objects] == [
        ("00000", "train", [0, 1]), ("00001", "train", [2, 3]), ("00002", "valid", [4, 5]),
    ]  # fmt: skip
    for each in objects:
        low, high = points[each.name].min(0), points[each.name].max(0)
        assert np.linalg.norm(high - low) == pytest.approx(1, abs=0.02)
        for row in each.rows:
            # Into pixels of the whole picture, whose cameras the file holds
            stored = np.load(root / "ground_truth.npz")
            at = stored["name"].tolist().index(f"{each.name}/render_{row % 2}")
            whole = truth._replace(
                scale=torch.tensor(stored["scale_px"] * 2 / SIZE)[:, None],
                translation=torch.tensor(stored["translation_px"] * 2 / SIZE - 1),
                rotation=torch.tensor(stored["rotation"]),
            )
            screen = project_true(torch.from_numpy(points[each.name]), whole, at)[:, :2].numpy()
            pixels = ((screen * [1, -1] + 1) / 2 * SIZE).astype(int)
            drawn = np.zeros((SIZE, SIZE), bool)
            drawn[pixels[:, 1], pixels[:, 0]] = True
            drawn = np.asarray(binary_closing(drawn), bool)  # between the points
            mask = read_mask(detections[row].image_path) > 0
            assert (drawn & mask).sum() / (drawn | mask).sum() > 0.9


def test_a_camera_before_the_front_sees_it_come_towards_the_viewer():
    # Models look along +y in Blender
    turned = cameras.rotations(np.array([[0.0, 2.0, 0.0]]))
    front = quaternion.rotate(turned, torch.tensor([[[0.0, -1.0, 0.0]]]).double())[0, 0]
    assert torch.allclose(front, torch.tensor([0.0, 0.0, -1.0]).double(), atol=1e-12)


def test_positions_and_rotations_agree():
    position = cameras.position(200.0, 35.0, 3.0)
    azimuth, elevation, roll = quaternion.to_view(cameras.rotations(np.array([position])))
    assert torch.allclose(
        torch.stack([azimuth, elevation, roll])[:, 0], torch.tensor([200.0, 35, 0]).double()
    )
    assert np.linalg.norm(position) == pytest.approx(3)


def test_cameras_of_matlab_are_those_of_json(root):
    prepared()
    expected = np.load(root / "ground_truth.npz")["rotation"]
    for path in sorted(root.glob("car/*/camera_*.json")):
        savemat(path.with_suffix(".mat"), {"pos": np.array([read_json(path)["pos"]])})
        path.unlink()
    shutil.rmtree(root / "images")
    prepared()
    assert np.array_equal(np.load(root / "ground_truth.npz")["rotation"], expected)


def test_renderings_elsewhere_are_linked(root, tmp_path):
    source = tmp_path / "downloads"
    root.rename(source)
    for path in (source / "car", source / "car.train", source / "car.valid"):
        path.rename(path.with_name(path.name.replace("car", "02958343")))
    detections = prepared("shapenet", source=(source,))
    assert detections.category == "car"
    assert len(detections) == 6
    assert Path(detections[0].image_path).resolve().is_relative_to(source)


def test_without_meshes_and_cameras_nothing_is_known(root):
    for path in [*root.glob("car/*/camera*"), *root.glob("car/*/model.obj")]:
        path.unlink()
    assert load_ground_truth(prepared()) is None
    assert load_true_points("cars") == {}


def test_the_same_object_is_painted_alike_in_all_views(made):
    # Views of a car share their most common color, and cars differ
    pictures = [
        np.asarray(Image.open(p)) for p in sorted(made.glob("datasets/cars/car/*/render*.png"))
    ]
    hues = []
    for picture in pictures:
        color = picture[picture[..., 3] == 255][:, :3].astype(float)
        hues.append(np.median(color / color.sum(1, keepdims=True).clip(1), axis=0))
    hues = np.array(hues).reshape(3, 2, 3)
    assert np.abs(hues[:, 0] - hues[:, 1]).max() < 0.5 * np.abs(hues[0] - hues[1]).max()


def remove_lists(root: Path) -> None:
    (root / "car.valid").unlink()


def name_twice(root: Path) -> None:
    (root / "car.valid").write_text("00001\n")


def name_unknown(root: Path) -> None:
    (root / "car.train").write_text("somewhere/00007\n")


def keep_one_view(root: Path) -> None:
    (root / "car/00001/render_1.png").unlink()


def remove_alpha(root: Path) -> None:
    path = root / "car/00002/render_0.png"
    Image.open(path).convert("RGB").save(path)


def spoil_camera(root: Path) -> None:
    (root / "car/00000/camera_1.json").write_text('{"pos": [0, 0, 0]}')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove_lists, r"car\.valid does not exist"),
        (name_twice, "both name 00001"),
        (name_unknown, "00007 is no folder"),
        (keep_one_view, "1 render_\\*.png, as in 1 of 3 models; expected at least 2 views"),
        (remove_alpha, "render_0.png: has no transparency"),
        (spoil_camera, "camera_1.json: pos is no position"),
    ],
)
def test_bad_layouts_are_refused_in_one_line(root, spoil, words):
    spoil(root)
    with pytest.raises(UserError, match=words) as refusal:
        prepared()
    assert "\n" not in str(refusal.value)
    assert not (root / "images").exists()


def test_one_of_several_classes_must_be_chosen(root):
    shutil.copytree(root / "car", root / "03001627")
    with pytest.raises(UserError, match=r"renderings of \w+, \w+: say"):
        find_class(root, None)
    assert find_class(root, "chair") == (root / "03001627", "chair")
    assert [model.part for model in read_class(root / "car")] == ["train", "train", "valid"]


def test_a_source_without_renderings_is_refused(root):
    with pytest.raises(UserError, match="has no renderings"):
        prepared("others", source=(root / "car",))


def test_photographs_of_single_objects_have_no_views(root):
    detections = prepared()
    views_path("cars").unlink()
    with pytest.raises(UserError, match="several views of each object"):
        load_objects(detections)


def test_options_of_the_other_kind_are_refused(capsys):
    for words in (
        ["--num_shapes", "4"],
        ["--multiview", "--num_images", "4"],
        ["--multiview", "--num_views", "1"],
    ):
        with pytest.raises(SystemExit):
            command.main(["--category", "car", *words])
        assert "multiview" in capsys.readouterr().err
