"""The command with --shape_model points: trains, resumes, measures, exports, and refuses what it cannot do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import run_reconstruction
from data.crops import Box
from data.preparation.options import PrepareConfig
from data.preparation.preparation import prepare
from data.synthetic.multiview import MultiviewConfig, make_renderings
from geometry.mesh_files import load_mesh
from geometry.points.files import load_points
from pipeline.reconstruction.points import common_shape, training
from pipeline.reconstruction.points.dataset import PointData, augment, batches, framed
from tests.runs import assert_equal, die_at, left_behind
from utils import checkpoint
from utils.cli import UserError
from utils.run_directory import RunDirectory

COARSE = 9.0  # longer than any edge: the templates stay as they are in their files
RUN = Path("checkpoints_recon/cars")
LATEST = RUN / "checkpoint_latest.pth"
OPTIONS = (
    *("--name", "cars", "--dataset", "cars", "--shape_model", "points", "--gpu_ids", "cpu"),
    *("--image_resolution", "32", "--point_grid", "16", "--num_points", "300", "--width", "0.1"),
    *("--batch_size", "2", "--iters", "6", "--lr", "0.001"),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_renderings(MultiviewConfig("cars", "car", 3, 3, 48, seed=1), COARSE)
        prepare(PrepareConfig("cars", None, 16, False))
    return folder


@pytest.fixture
def _world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the common shape of upright views be found in few steps."""
    monkeypatch.setattr(common_shape, "STARTS", 1)
    for name in ("COARSE", "FINE"):
        stage = getattr(common_shape, name)
        monkeypatch.setattr(common_shape, name, stage._replace(steps=2))


def run(*options: str) -> None:
    run_reconstruction.main([*OPTIONS, *options])


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["free", "upright"])
@pytest.mark.usefixtures("_world")
def test_a_killed_run_ends_as_an_uninterrupted_one_bitwise(prior, monkeypatch) -> None:
    options = ("--checkpoint_freq", "2", "--image_freq", "3", "--save_freq", "2")
    options = (*options, "--camera_prior", prior)
    run(*options)
    whole, expected = checkpoint.load(LATEST), left_behind(RUN)
    RUN.rename("first")
    die_at(3, training.Update, lambda: run(*options), monkeypatch)
    run(*options)
    assert_equal(whole, checkpoint.load(LATEST))
    assert left_behind(RUN) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("_world")
def test_a_model_is_measured_and_applied(capsys) -> None:
    run()
    run("--evaluate")
    figures = RunDirectory(RUN).records()[-1]
    assert figures["images"] == 3
    assert figures["objects"] == 1
    assert 0 <= figures["pose_under_30"] <= 1
    assert figures["chamfer_typical_shape"] < 10
    assert Path("output/cars_points.png").exists()
    # Every image of the collection, then one of them as a photograph of one's own
    run("--export_meshes", "--split", "test")
    exported = Path("output/cars_meshes/00002/render_0")
    picture = "datasets/cars/car/00002/render_0.png"
    run_reconstruction.main([*OPTIONS[:2], *OPTIONS[4:8], "--photo", picture])
    own = Path("output/cars_photographs/render_0")
    assert {p.name for p in own.iterdir()} >= {"points.ply", "panel.png", "origin.json"}
    assert (own / "points.ply").read_bytes() == (exported / "points.ply").read_bytes()
    points = load_points(own / "points.ply").positions
    assert np.abs(points).max() < 0.5
    if (own / "mesh.obj").exists():
        assert trimesh.Trimesh(*load_mesh(own / "mesh.obj")).is_watertight
    # The same command finds them made, another model does not
    stamp = (own / "points.ply").stat().st_mtime_ns
    run("--photo", picture)
    assert (own / "points.ply").stat().st_mtime_ns == stamp
    (own / "origin.json").write_text(json.dumps({"run": "other"}))
    with pytest.raises(UserError, match="--overwrite"):
        run("--photo", picture)


@pytest.mark.usefixtures("_world")
def test_models_of_meshes_are_refused(tmp_path) -> None:
    run()
    path = RUN / "model.pth"
    state = checkpoint.load(path)
    mesh = [word for word in OPTIONS[:2] if word != "points"]
    with pytest.raises(UserError, match="add --shape_model points"):
        run_reconstruction.main([*mesh, "--photo", "datasets/cars/car/00002/render_0.png"])
    checkpoint.save(path, {**state, "args": {**state["args"], "shape_model": "mesh"}})
    with pytest.raises(UserError, match="is a model of meshes"):
        run("--evaluate")


@pytest.mark.usefixtures("_world")
def test_a_step_does_not_depend_on_those_before() -> None:
    data = PointData("cars", "train", 16)
    assert [len(each.rows) for each in data.objects] == [3, 3]
    stream = batches(data, 2, 1, CPU, 0)
    batch = [next(stream) for _ in range(3)][2]
    again = next(batches(data, 2, 1, CPU, 2))
    assert torch.equal(batch.image, again.image)
    assert batch.image.shape == (2, 3, 4, 16, 16)
    assert batch.mask.shape == (2, 3, 16, 16)
    assert torch.equal(batch.row, again.row)


@pytest.mark.usefixtures("_world")
def test_masks_stay_where_the_camera_sees_them() -> None:
    data = PointData("cars", "train", 16)
    batch = next(batches(data, 2, 1, CPU, 0))
    for row, mask, mirrored in zip(batch.row, batch.mask, batch.mirrored, strict=True):
        expected = data.images[row, 3].float() / 255
        assert torch.equal(mask, expected.flip(-1) if mirrored else expected)


def test_augmentation_moves_color_and_mask_together_and_leaves_the_background() -> None:
    image = torch.zeros(2, 4, 50, 50)
    image[:, 3, 20:30, 15:40] = 1
    image[:, :3] = torch.tensor([0.1, 0.4, -0.3])[:, None, None] * image[:, 3:]
    for seed in range(5):
        seen = augment(image, torch.Generator().manual_seed(seed))
        assert (seen[:, 3].sum((1, 2)) == 250).all()
        assert ((seen[:, :3] != 0).all(1) == (seen[:, 3] > 0)).all()
        # Both views in the same colors, each shifted by itself
        assert torch.equal(seen[0, :, seen[0, 3] > 0], seen[1, :, seen[1, 3] > 0])
        rows, columns = seen[0, 3].nonzero().T
        assert abs(int(rows.min()) - 20) <= 2
        assert abs(int(columns.min()) - 15) <= 2


def test_square_cut_outs_are_taken_as_they_are() -> None:
    whole = np.zeros((64, 64, 4), np.uint8)
    whole[16:48, 8:56] = (200, 100, 50, 255)
    # What the box around the object holds, and where it is
    box = Box(8, 8, 48)
    crop = whole[8:56, 8:56]
    picture = framed(crop, box, 32, 64)
    expected = np.zeros((32, 32), bool)
    expected[8:24, 4:28] = True
    assert torch.equal(picture[3] > 127, torch.from_numpy(expected))
    assert picture[:3, 10, 10].tolist() == [200, 100, 50]


def test_other_objects_are_brought_to_the_usual_size() -> None:
    crop = np.full((110, 110, 4), 255, np.uint8)  # 100 pixels and their padding
    crop[:5], crop[-5:], crop[:, :5], crop[:, -5:] = 0, 0, 0, 0
    mask = framed(crop, Box(300, 200, 110), 64, None)[3] > 127
    rows, columns = mask.nonzero().T
    assert int(rows.max() - rows.min()) + 1 == pytest.approx(48, abs=1)  # three quarters of 64
    assert int(columns.min()) == pytest.approx(8, abs=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--shape_model", "mesh", "--num_points", "10"],
            "--num_points needs --shape_model points",
        ),
        (["--camera_prior", "upright", "--num_points", "301"], "expected an even number"),
        (["--camera_prior", "upright", "--num_candidates", "2"], "is for --camera_prior free"),
        (["--generate_pseudogt"], "--generate_pseudogt is for meshes"),
        (["--image_resolution", "96"], "need a power of 2"),
        (["--split", "val"], "expected train or test"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words, capsys) -> None:
    with pytest.raises(SystemExit):
        run(*options)
    assert words in capsys.readouterr().err


def test_collections_without_views_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.prepare"):
        run()
    assert list(tmp_path.iterdir()) == []
