"""Every artifact survives a round trip; missing, damaged and foreign ones are one-line errors."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache import feature_statistics, folders, pose_files, pseudo_files, template_files
from data.cache.feature_statistics import FeatureStatistics
from data.cache.pose_files import EstimatedPoses, FittedShapes, Hypotheses, SemanticTemplate
from data.cache.pseudo_files import PoseMetadata, PseudoItem
from data.cache.storage import Origin
from geometry.camera import Pose
from utils import checkpoint
from utils.cli import UserError
from utils.files import write_json

MODE = "singletpl"
ORIGIN = Origin(detections="abc", templates="def")


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pose(*shape: int) -> Pose:
    return Pose(*(torch.rand(*shape, size) for size in (1, 2, 4, 1)))


def hypotheses() -> Hypotheses:
    return Hypotheses(pose(3, 5), torch.rand(3, 5, 2), torch.rand(3, 5))


def estimated() -> EstimatedPoses:
    weights, iou, miou, confidence = torch.rand(4, 2, 1)
    return EstimatedPoses(torch.tensor([0, 2]), pose(2), weights, iou, miou, confidence)


def estimated_with_shapes() -> EstimatedPoses:
    shapes = FittedShapes(
        torch.rand(1, 3, 962, 3), torch.rand(2, 3), torch.rand(2, 8), torch.rand(2, 1)
    )
    return estimated()._replace(shapes=shapes)


def semantic_template() -> SemanticTemplate:
    return SemanticTemplate(torch.rand(2, 962, 3), ["head", "leg"])


def metadata(size: int = 2) -> PoseMetadata:
    p = pose(size)
    translation = torch.cat([p.translation, torch.zeros(size, 1)], dim=1)
    category = torch.zeros(size, dtype=torch.int64)
    paths = [f"datasets/toy/images/ä{i}.png" for i in range(size)]
    return PoseMetadata(p.scale, translation, p.rotation, p.z0, category, paths)


def pseudo_item(resolution: int = 8) -> PseudoItem:
    rng = np.random.default_rng(0)
    return PseudoItem(
        mesh=rng.random((3, 32, 32), dtype=np.float32),
        seg=rng.random((4, 16, 16), dtype=np.float32),
        texture=rng.random((3, resolution, resolution)).astype(np.float16),
        texture_alpha=rng.random((1, resolution, resolution)).astype(np.float16),
        image=rng.random((4, 299, 299)).astype(np.float16),
        category=7,
    )


def assert_same(a, b) -> None:
    assert type(a) is type(b)
    if isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray | torch.Tensor):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    else:
        assert a == b


def test_pose_files_survive_round_trips_under_the_published_names():
    path = pose_files.save_hypotheses("toy", MODE, h := hypotheses(), ORIGIN)
    assert str(path) == "cache/toy/camera_hypotheses_silhouette_singletpl.bin"
    assert_same(pose_files.load_hypotheses("toy", MODE, ORIGIN), h)
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"R", "s", "t", "z0", "w", "iou", "fingerprint", "templates"}
    assert content["R"].shape == (3, 5, 4)

    path = pose_files.save_estimated_poses("toy", MODE, e := estimated(), ORIGIN)
    assert str(path) == "cache/toy/poses_estimated_singletpl.bin"
    assert_same(pose_files.load_estimated_poses("toy", MODE, ORIGIN), e)

    template = semantic_template()
    pose_files.save_semantic_template("toy", MODE, template, ORIGIN)
    assert_same(pose_files.load_semantic_template("toy", MODE, ORIGIN), template)


def test_shapes_survive_a_round_trip_and_are_complete():
    """Published poses have none; without one of their entries, the others mean nothing."""
    e = estimated_with_shapes()
    path = pose_files.save_estimated_poses("toy", MODE, e, ORIGIN)
    assert_same(pose_files.load_estimated_poses("toy", MODE, ORIGIN), e)
    content = torch.load(path, weights_only=True)
    assert {"modes", "shapes", "shape_poses", "shape_iou"} < content.keys()
    for name in ("modes", "shapes", "shape_poses", "shape_iou"):
        checkpoint.save(path, {key: value for key, value in content.items() if key != name})
        with pytest.raises(UserError, match=rf"has no {name}\..*step2\.py --dataset toy"):
            pose_files.load_estimated_poses("toy", MODE, ORIGIN)


def test_fitted_shapes_are_templates_with_their_modes():
    poses, templates = estimated_with_shapes(), torch.rand(1, 962, 3)
    assert poses.shapes is not None
    found = poses.vertices(templates, torch.tensor([1]))
    naive = templates[0].clone()
    for m in range(3):
        naive += poses.shapes.coefficients[1, m] * poses.shapes.modes[0, m]
    torch.testing.assert_close(found, naive[None])
    assert torch.equal(estimated().vertices(templates, torch.tensor([0, 1])), templates[[0, 0]])


def test_poses_of_other_detections_are_refused():
    pose_files.save_hypotheses("toy", MODE, hypotheses(), ORIGIN)
    pose_files.save_estimated_poses("toy", MODE, estimated(), ORIGIN)
    pose_files.save_semantic_template("toy", MODE, semantic_template(), ORIGIN)
    for what in ("detections", "templates"):
        origin = ORIGIN._replace(**{what: "new"})
        with pytest.raises(UserError, match=rf"other {what}.*step1\.py --dataset toy --mode singl"):
            pose_files.load_hypotheses("toy", MODE, origin)
        for load in (pose_files.load_estimated_poses, pose_files.load_semantic_template):
            with pytest.raises(UserError, match=rf"other {what}.*step2\.py --dataset toy --mode s"):
                load("toy", MODE, origin)


def test_poses_that_do_not_tell_their_templates_are_read():
    path = pose_files.save_estimated_poses("toy", MODE, e := estimated(), ORIGIN)
    content = checkpoint.load(path)
    del content["templates"]
    checkpoint.save(path, content)
    other = ORIGIN._replace(templates="new")
    assert_same(pose_files.load_estimated_poses("toy", MODE, other), e)


def test_templates_survive_a_round_trip_and_are_checked():
    vertices = torch.rand(1, 962, 3)
    path = template_files.save_templates("bird", MODE, vertices)
    assert str(path) == "cache/remeshed_templates/singletpl/bird_templates.pth"
    assert torch.equal(template_files.load_templates("bird", MODE), vertices)
    for spoiled, message in [
        (torch.rand(2, 962, 3), "singletpl expects 1 template, got 2"),
        (torch.rand(1, 482, 3), r"\(1, 482, 3\), expected finite numbers \(T, 962, 3\)"),
        (torch.full((1, 962, 3), torch.nan), "expected finite numbers"),
    ]:
        template_files.save_templates("bird", MODE, spoiled)
        with pytest.raises(UserError, match=message):
            template_files.load_templates("bird", MODE)


def test_metadata_survives_a_round_trip_without_pickle():
    pseudo_files.save_metadata("toy", MODE, m := metadata())
    loaded = pseudo_files.load_metadata("toy", MODE)
    assert_same(loaded, m)
    assert torch.equal(loaded.pose.translation, m.translation[:, :2])
    with np.load("cache/toy/poses_metadata_singletpl.npz", allow_pickle=False) as arrays:
        assert {*arrays} == {
            "scale",
            "translation",
            "rotation",
            "z0",
            "category",
            "path",
            "templates",
        }


def test_templates_are_told_apart_by_their_vertices():
    first, second = torch.rand(2, 962, 3), torch.rand(1, 962, 3)
    fingerprints = [
        template_files.templates_fingerprint(x) for x in (first, first.double(), second)
    ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert template_files.present_fingerprint("cub", MODE) is None
    template_files.save_templates("bird", MODE, second)
    assert template_files.present_fingerprint("cub", MODE) == fingerprints[2]
    assert template_files.present_fingerprint("toy", MODE) is None  # of an unknown category


def test_pseudo_ground_truth_of_other_templates_is_refused():
    old = template_files.templates_fingerprint(torch.zeros(1, 962, 3))
    template_files.save_templates("bird", MODE, torch.ones(1, 962, 3))
    for templates in (old, ""):  # known, and those of a published file
        pseudo_files.save_metadata("cub", MODE, metadata()._replace(templates=templates))
        source = pseudo_files.source_path(pseudo_files.pseudo_folder("cub", 8, MODE))
        for i in range(2):
            pseudo_files.save_pseudo_item("cub", 8, MODE, i, pseudo_item())
        write_json(source, {"templates": templates})
        if templates:
            with pytest.raises(UserError, match=r"metadata.*other templates.*--generate_pseudogt$"):
                pseudo_files.load_metadata("cub", MODE)
            with pytest.raises(UserError, match=r"other templates.*--pseudogt_resolution 8$"):
                pseudo_files.check_pseudo_ground_truth("cub", 8, MODE, 2)
        else:
            assert pseudo_files.load_metadata("cub", MODE).templates == ""
            pseudo_files.check_pseudo_ground_truth("cub", 8, MODE, 2)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"templates": 3}'])
def test_a_damaged_record_of_pseudo_ground_truth_is_named(content: str):
    pseudo_files.save_pseudo_item("toy", 8, MODE, 0, pseudo_item())
    path = pseudo_files.source_path(pseudo_files.pseudo_folder("toy", 8, MODE))
    path.write_text(content)
    for check in (
        lambda: pseudo_files.check_pseudo_ground_truth("toy", 8, MODE, 1),
        lambda: pseudo_files.check_common_parts("toy", 8, MODE),
    ):
        with pytest.raises(
            UserError, match=r"source\.json is .*xport them again with: .*resolution 8$"
        ):
            check()


def test_pseudo_ground_truth_items_survive_round_trips():
    path = pseudo_files.save_pseudo_item("toy", 8, MODE, 0, item := pseudo_item())
    assert str(path) == "cache/toy/pseudogt_8x8_singletpl/0.npz"
    assert_same(pseudo_files.load_pseudo_item("toy", 8, MODE, 0), item)
    only = pseudo_files.load_pseudo_arrays("toy", 8, MODE, 0, ["mesh"])
    assert only.keys() == {"mesh"}
    for i in (10, 2):
        pseudo_files.save_pseudo_item("toy", 8, MODE, i, item)
    names = [path.name for path in pseudo_files.pseudo_item_paths("toy", 8, MODE)]
    assert names == ["0.npz", "2.npz", "10.npz"]
    with pytest.raises(UserError, match=r"has 3 items, but .*singletpl.npz lists 4.*resolution 8"):
        pseudo_files.check_pseudo_ground_truth("toy", 8, MODE, 4)


@pytest.mark.parametrize("features", ["fid", "standard_fid", "proxy"])
def test_statistics_store_the_lower_triangle(features):
    half = np.random.default_rng(0).random((5, 9), dtype=np.float32)
    covariance = (half @ half.T).astype(np.float64)
    mean = half[:, 0].astype(np.float64)
    statistics = FeatureStatistics(mean, covariance, 12, half.T, "network", "images")
    path = feature_statistics.save_statistics("toy", statistics, features)
    assert str(path) == f"cache/toy/precomputed_{features}_299x299.npz"
    loaded = feature_statistics.load_statistics("toy", features)
    np.testing.assert_array_equal(
        loaded.covariance, np.tril(covariance) + np.tril(covariance, -1).T
    )
    np.testing.assert_array_equal(loaded.mean, statistics.mean)
    assert (loaded.num_images, loaded.network, loaded.images) == (12, "network", "images")
    np.testing.assert_array_equal(loaded.sample, half.T)
    assert not np.triu(np.load(path)["stats_s"], 1).any()


def test_pooled_statistics_are_those_of_all_images():
    features = np.random.default_rng(0).normal(size=(30, 3)) * [1, 5, 2] + np.arange(30)[:, None]
    groups = features[:7], features[7:30]
    parts = [
        FeatureStatistics(g.mean(0), np.cov(g.T), len(g), g.astype(np.float32)) for g in groups
    ]
    pooled = feature_statistics.pool(parts)
    np.testing.assert_allclose(pooled.mean, features.mean(0))
    np.testing.assert_allclose(pooled.covariance, np.cov(features.T))
    assert pooled.num_images == 30
    np.testing.assert_array_equal(pooled.sample, features.astype(np.float32))
    # A sample of a third of one part: a third of the other, too
    thinned = feature_statistics.pool([parts[0], parts[1]._replace(sample=parts[1].sample[::3])])
    np.testing.assert_array_equal(thinned.sample[:3], parts[0].sample[::3])
    np.testing.assert_array_equal(thinned.sample[3:], parts[1].sample[::3])
    assert feature_statistics.pool(parts[:1]) is parts[0]


LOADERS = {
    "remesh.py --mode singletpl --classes bird": lambda: template_files.load_templates(
        "bird", MODE
    ),
    "step1.py --dataset toy": lambda: pose_files.load_hypotheses("toy", MODE, ORIGIN),
    "step2.py --dataset toy": lambda: pose_files.load_estimated_poses("toy", MODE, ORIGIN),
    "--dataset toy --mode singletpl --generate_pseudogt": lambda: pseudo_files.load_metadata(
        "toy", MODE
    ),
    "--generate_pseudogt --pseudogt_resolution 8": lambda: pseudo_files.load_pseudo_item(
        "toy", 8, MODE, 0
    ),
    "--dataset toy --generate_pseudogt": lambda: feature_statistics.load_statistics("toy"),
    "data.prepare --dataset toy --category": lambda: folders.category_of("toy"),
}


@pytest.mark.parametrize("command", LOADERS)
def test_missing_files_name_the_command_that_makes_them(command: str):
    with pytest.raises(UserError) as error:
        LOADERS[command]()
    assert "does not exist" in str(error.value)
    assert command in str(error.value)
    assert "\n" not in str(error.value)


def save_everything() -> list[Path]:
    statistics = FeatureStatistics(np.zeros(2), np.eye(2), 3, np.zeros((3, 2)))
    return [
        template_files.save_templates("bird", MODE, torch.rand(1, 962, 3)),
        pose_files.save_hypotheses("toy", MODE, hypotheses(), ORIGIN),
        pose_files.save_estimated_poses("toy", MODE, estimated(), ORIGIN),
        pseudo_files.save_metadata("toy", MODE, metadata()),
        pseudo_files.save_pseudo_item("toy", 8, MODE, 0, pseudo_item()),
        feature_statistics.save_statistics("toy", statistics),
    ]


def test_damaged_files_are_one_line_errors():
    for path, load in zip(save_everything(), LOADERS.values(), strict=False):
        for content in (b"", b"rubbish" * 30, path.read_bytes()[: path.stat().st_size // 2]):
            path.write_bytes(content)
            with pytest.raises(UserError) as error:
                load()
            assert str(path) in str(error.value)
            assert "\n" not in str(error.value)


def test_forty_of_forty_flipped_bits_are_noticed():
    rng = np.random.default_rng(0)
    paths = save_everything()
    del paths[4]  # items are read in part, see below
    loaders = [load for key, load in LOADERS.items() if "resolution" not in key]
    for path, load in zip(paths, loaders, strict=False):
        intact = path.read_bytes()
        for bit in rng.choice(8 * len(intact), 40, replace=False):
            changed = bytearray(intact)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            with pytest.raises(UserError, match=str(path)):
                load()
        path.write_bytes(intact)
        load()


def test_flipped_bits_of_an_item_never_change_what_is_read():
    path = pseudo_files.save_pseudo_item("toy", 8, MODE, 0, item := pseudo_item())
    intact = path.read_bytes()
    refused = 0
    for bit in np.random.default_rng(0).choice(8 * len(intact), 60, replace=False):
        changed = bytearray(intact)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert_same(pseudo_files.load_pseudo_item("toy", 8, MODE, 0), item)
        except UserError:
            refused += 1
    assert refused > 50


def test_a_bare_array_is_no_archive():
    Path("cache/toy").mkdir(parents=True)
    with open("cache/toy/poses_metadata_singletpl.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="cannot be read"):
        pseudo_files.load_metadata("toy", MODE)


def test_pickled_metadata_of_another_system_is_refused():
    Path("cache/toy").mkdir(parents=True)
    np.savez("cache/toy/poses_metadata_singletpl.npz", data=np.array({"scale": 1}, dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        pseudo_files.load_metadata("toy", MODE)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_leaves_nothing_half_written(function: str, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(OSError, match="No space left"):
            pseudo_files.save_pseudo_item("toy", 8, MODE, 0, pseudo_item())
        with pytest.raises(OSError, match="No space left"):
            pose_files.save_hypotheses("toy", MODE, hypotheses(), ORIGIN)
    assert not [path for path in Path("cache").rglob("*") if path.is_file()]


def test_known_datasets_need_no_record():
    assert folders.category_of("cub") == "bird"
    assert folders.category_of("p3d_airplane") == "airplane"
    for several in ("all", "cub,p3d_car"):
        with pytest.raises(UserError, match="needs a single one"):
            folders.category_of(several)


def test_class_labels_are_positions():
    assert folders.class_label("all", "bird") == folders.class_label("all", "cub") == 5
    assert folders.class_label("cub", "bird") == 0
    assert folders.class_label("cub,p3d_car", "car") == 1
    assert folders.class_label("cub,p3d_car,imagenet_car", "imagenet_car") == 2
    for dataset, name in [("cub,p3d_car,imagenet_car", "car"), ("all", "dog")]:
        with pytest.raises(UserError, match=rf"^--filter_class {name}: expected one of .*bird"):
            folders.class_label(dataset, name)
