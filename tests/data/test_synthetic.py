"""Synthetic collections: deterministic, prepared without options, and true in every sign."""

import filecmp
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from data.cache.folders import collection_path
from data.cache.label_files import load_labels
from data.crops import ObjectImages
from data.definitions import CATEGORIES
from data.detections import load_detections
from data.ground_truth import load_ground_truth, load_true_shapes, project_true
from data.preparation.options import PrepareConfig
from data.preparation.preparation import prepare
from data.synthetic import __main__ as command
from data.synthetic.canvas import COLOR_NAMES, color_name
from data.synthetic.collection import SyntheticConfig, make_collection, open_studio
from data.synthetic.photographs import Photograph, take_photograph
from data.synthetic.scenes import View, project
from geometry import quaternion
from geometry.operators import split_edges
from rendering.rasterizer import rasterize
from utils.cli import UserError
from utils.files import read_json

COARSE = 9.0  # longer than any edge: the templates stay as they are in their files


def config(category: str, num_images: int = 2, image_size: int = 64, seed: int = 1, name: str = ""):
    return SyntheticConfig(name or f"synthetic_{category}", category, num_images, image_size, seed)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def bird_studio():
    return open_studio(config("bird", image_size=96), COARSE)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_is_photographed(category):
    studio = open_studio(config(category, image_size=48), COARSE)
    for index in range(len(studio.templates)):
        photograph = take_photograph(studio, index)
        height, width = photograph.mask.shape
        assert photograph.image.shape == (height, width, 3)
        assert max(height, width) <= 48
        assert photograph.mask.any()
        assert not photograph.mask[[0, -1]].all()
        assert photograph.image.std() > 5
        assert photograph.template == index
    assert len(studio.keypoint_names) >= 6


def test_photographs_depend_on_seed_and_index_only(bird_studio):
    first, again, other = (take_photograph(bird_studio, index) for index in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.vertices, again.vertices)
    assert not np.array_equal(first.vertices, other.vertices)


def test_a_longer_collection_begins_with_the_same_files():
    short = make_collection(config("bird", 1, name="short"), COARSE)
    long = make_collection(config("bird", 2, name="long"), COARSE)
    for name in ("images/00000.jpg", "masks/00000.png"):
        assert filecmp.cmp(short / name, long / name, shallow=False)


def test_keypoints_lie_on_the_object(bird_studio):
    visible = 0
    for index in range(4):
        photograph = take_photograph(bird_studio, index)
        shown = photograph.keypoints[photograph.keypoints[:, 2] > 0, :2].astype(int)
        assert all(_near_mask(photograph, x, y) for x, y in shown)
        visible += len(shown)
    assert visible >= 4


def _near_mask(photograph: Photograph, x: int, y: int) -> bool:
    return bool(photograph.mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any())


def test_left_side_of_an_object_that_faces_us_is_on_our_right(bird_studio):
    template = bird_studio.templates[0]
    facing_us = quaternion.from_view(*torch.tensor([90.0, 0.0, 0.0], dtype=torch.float64))
    view = View(facing_us, 30.0, np.array([48.0, 48.0]), float("inf"), 96, 96)
    pixels = project(template.vertices, view)
    left, right, beak = (
        pixels[template.keypoints[name]] for name in ("left_wing", "right_wing", "beak")
    )
    assert left[0] > 48 > right[0]
    assert beak[2] > left[2]  # nearer to the viewer
    top, bottom = template.vertices[:, 2].argmax(), template.vertices[:, 2].argmin()
    assert pixels[top, 1] < pixels[bottom, 1]


@pytest.mark.parametrize("category", ["bird", "car"])
def test_true_shapes_under_true_poses_cover_the_masks(category):
    make_collection(config(category, 3, 96), COARSE)
    detections = prepare(PrepareConfig(f"synthetic_{category}", None, 16, False))
    assert detections is not None
    assert detections.category == category
    assert collection_path(f"synthetic_{category}").exists()
    truth = load_ground_truth(load_detections(f"synthetic_{category}"))
    shapes = load_true_shapes(f"synthetic_{category}")
    assert truth is not None
    assert shapes is not None
    assert truth.known.all()
    crops = ObjectImages(detections, 64)
    for row in range(len(detections)):
        vertices = shapes.vertices_of(int(truth.shape_id[row]))
        screen = project_true(vertices, truth, row)[None]
        drawn = rasterize(screen, shapes.faces, 64, soft=False).coverage[0, 0] > 0
        mask = crops[row].image[3] > 0.5
        overlap = (drawn & mask).sum() / (drawn | mask).sum()
        assert overlap > 0.85


def test_keypoint_vertices_are_the_same_for_all_shapes():
    folder = make_collection(config("car", 2), COARSE)
    truth, shapes = np.load(folder / "ground_truth.npz"), np.load(folder / "shapes.npz")
    names = truth["keypoint_names"].tolist()
    points = shapes["vertices"][:, truth["keypoint_vertex"]]  # (S, K, 3)
    assert (points[:, names.index("left_headlight"), 0] > 0).all()
    assert (points[:, names.index("right_headlight"), 0] < 0).all()
    assert (points[:, names.index("left_headlight"), 1] < 0).all()
    assert (points[:, names.index("left_light"), 1] > 0).all()


def test_shapes_hold_one_template_and_points():
    folder = make_collection(config("car", 2), COARSE)
    shapes, studio = np.load(folder / "shapes.npz"), open_studio(config("car"), COARSE)
    for vertices, template in zip(shapes["vertices"], studio.templates, strict=True):
        mesh = trimesh.Trimesh(vertices, shapes["faces"], process=False)
        solid = mesh.area_faces > 0
        assert abs(int(solid.sum()) - len(template.coarse_faces)) < 0.01 * len(solid)


def test_splitting_edges_keeps_the_surface_closed():
    box = trimesh.creation.box()
    vertices, faces = split_edges(box.vertices, box.faces, 0.3)
    fine = trimesh.Trimesh(vertices, faces, process=False)
    assert fine.is_watertight
    assert fine.edges_unique_length.max() <= 0.3
    assert fine.area == pytest.approx(box.area)
    assert fine.volume == pytest.approx(box.volume)


def test_an_existing_collection_is_not_overwritten(tmp_path):
    (tmp_path / "datasets" / "synthetic_bird").mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        command.main(["--category", "bird"])


def test_an_interrupted_collection_does_not_appear(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data.synthetic.collection.take_photograph", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_collection(config("bird", 1), COARSE)
    assert not (tmp_path / "datasets" / "synthetic_bird").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert make_collection(config("bird", 1), COARSE).is_dir()


def test_two_processes_do_not_make_one_collection(monkeypatch):
    told = []

    @contextmanager
    def taken(path, what):
        told.append((path.name, what))
        raise UserError(f"{what} is in use by process 7.")
        yield

    monkeypatch.setattr("data.synthetic.collection.exclusive", taken)
    with pytest.raises(UserError, match="in use by process 7"):
        make_collection(config("bird"))
    assert told == [(".synthetic_bird.lock", "datasets/synthetic_bird/")]
    assert not list(Path("datasets").glob(".*.unfinished"))


def test_colors_have_the_names_that_people_give_them():
    named = {
        "red": (0.8, 0.1, 0.1), "orange": (0.9, 0.5, 0.1), "yellow": (0.9, 0.85, 0.1),
        "green": (0.1, 0.5, 0.2), "blue": (0.1, 0.2, 0.7), "purple": (0.5, 0.1, 0.6),
        "brown": (0.4, 0.2, 0.1), "white": (0.95, 0.95, 0.93), "silver": (0.7, 0.7, 0.72),
        "gray": (0.4, 0.4, 0.4), "black": (0.08, 0.08, 0.1),
    }  # fmt: skip
    assert {name: color_name(color) for name, color in named.items()} == {n: n for n in named}
    assert set(named) == set(COLOR_NAMES)


def test_cars_are_labeled_by_their_paint_and_birds_are_not():
    folder = make_collection(config("car", 4), COARSE)
    studio = open_studio(config("car"), COARSE)
    labels = read_json(folder / "labels.json")
    assert labels["color"] == {f"{i:05d}": take_photograph(studio, i).paint for i in range(4)}
    assert set(labels["color"].values()) <= set(COLOR_NAMES)
    detections = prepare(PrepareConfig("synthetic_car", None, 16, False))
    assert detections is not None
    paths = [item.image_path for item in detections.items]
    assert load_labels("synthetic_car", ["color"], paths).values.shape == (4, 1)
    assert not (make_collection(config("bird", 1), COARSE) / "labels.json").exists()
