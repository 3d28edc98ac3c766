"""Training, evaluation and export of the mesh estimator on a few synthetic images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import run_generation
import run_reconstruction
from data.cache import feature_statistics, pose_files, pseudo_files, template_files
from data.cache.folders import collection_path
from data.collection import shapes_path
from data.detections import Detection, Detections, Part, load_detections, save_detections
from data.pseudo_ground_truth import PseudoGroundTruth
from data.run_lengths import encode_mask, mask_box
from geometry.camera import Pose
from geometry.distances import chamfer_distance
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction import training
from pipeline.reconstruction.config import make_config
from pipeline.reconstruction.dataset import ReconstructionData, common_parts, pinned_images
from pipeline.reconstruction.evaluation import evaluate
from pipeline.reconstruction.training import decay_interval, make_schedule
from utils import checkpoint
from utils.cli import UserError
from utils.files import write_json
from utils.run_directory import RunDirectory
from utils.training import make_length

COUNT = 5
SIZE = 48
RUN = Path("checkpoints_recon/toy_singletpl")
OPTIONS = ["--name", "toy_singletpl", "--dataset", "toy", "--image_resolution", "64"]
OPTIONS += ["--texture_resolution", "64", "--width", "0.05", "--batch_size", "3"]
OPTIONS += ["--gpu_ids", "cpu"]


def make_dataset(name: str, category: str, parts: tuple[str, ...]) -> None:
    """Prepares photographs of disks with known poses and a sphere as template."""
    rng = np.random.default_rng(len(name))
    items = []
    for i in range(COUNT):
        y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
        mask = np.hypot(x, y) < 14 + i
        path = Path("datasets") / name / "images" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, 3) * np.ones((SIZE, SIZE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        found = []
        for k, part in enumerate(parts):
            region = mask & (x < 0 if k % 2 else x > 4)
            found.append(Part(part, 0.9, mask_box(region), encode_mask(region), 1.0))
        box = mask_box(mask)
        items.append(Detection(i, str(path), SIZE, SIZE, box, 1.0, encode_mask(mask), tuple(found)))
    detections = Detections(name, category, tuple(items))
    save_detections(detections)
    save_template(category, 0.9)
    save_poses(detections, range(1, COUNT))


def save_template(category: str, radius: float) -> None:
    template_files.save_templates(category, "singletpl", radius * SphereMesh().vertices[None])


def save_poses(detections: Detections, rows: range) -> None:
    count = len(rows)
    rotation = torch.nn.functional.normalize(torch.randn(count, 4, generator=torch.manual_seed(0)))
    pose = Pose(
        torch.full((count, 1), 0.8),
        torch.zeros(count, 2),
        rotation,
        torch.full((count, 1), 2.0),
    )
    poses = pose_files.EstimatedPoses(
        indices=torch.tensor(list(rows)),
        pose=pose,
        template_weights=torch.ones(count, 1),
        iou=torch.linspace(0.5, 0.9, count)[:, None],
        miou=torch.full((count, 1), 0.5),
        confidence=torch.ones(count, 1),
    )
    templates = template_files.load_templates(detections.category, "singletpl")
    origin = pose_files.origin_of(detections, templates)
    pose_files.save_estimated_poses(detections.dataset, "singletpl", poses, origin)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a prepared dataset of five birds, four of them with a pose."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    make_dataset("toy", "bird", ("beak", "tail"))
    return tmp_path


def refuse(*args: object, **options: object) -> None:
    raise OSError("no network in tests")


def run(*options: str) -> None:
    run_reconstruction.main([*OPTIONS, *options])


def state(run_name: str = "toy_singletpl") -> dict:
    folder = Path("checkpoints_recon") / run_name
    return checkpoint.load(checkpoint.resolve(folder, "latest"))


def config(*options: str):
    return make_config(vars(run_reconstruction.build_parser().parse_args([*OPTIONS, *options])))


def assert_equal(first: object, second: object) -> None:
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first, second)
    else:
        assert first == second


def left_behind(folder: Path) -> tuple[list[dict], dict[str, bytes], list[str]]:
    """Returns records without times, pictures and the names of checkpoints."""
    records = RunDirectory(folder).records()
    for record in records:
        record.pop("seconds_per_step", None)
    pictures = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    return records, pictures, sorted(path.name for path in folder.glob("*.pth"))


def die_at(death: int, *options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the command as far as a step, in which it ends without notice."""
    update = training.Update.__call__

    def killed(self: training.Update, step: int, batch: Any) -> dict:
        if step == death:
            raise SystemExit
        return update(self, step, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Update, "__call__", killed)
        with pytest.raises(SystemExit):
            run(*options)


FLOW = ["--texture_model", "flow", "--perceptual_weight", "1", "--perceptual_features", "gradients"]
CAMERAS = ["--camera_source", "predicted", "--num_hypotheses", "4"]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("added", [["--pose_rate", "0.01"], FLOW, CAMERAS])
def test_a_killed_run_ends_as_an_uninterrupted_one_bitwise(
    added: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--iters", "8", "--checkpoint_freq", "3", "--image_freq", "2", *added)
    run(*options)
    whole, expected = state(), left_behind(RUN)
    RUN.rename("first")
    for death in (2, 5, 7):
        die_at(death, *options, monkeypatch=monkeypatch)
    run(*options)
    assert_equal(whole, state())
    assert left_behind(RUN) == expected


@pytest.mark.usefixtures("toy")
def test_pictures_and_losses_have_parts_only_where_there_are_parts() -> None:
    """Rows of 64 pixels with lines of 2 around them, each below a name of 14."""
    make_dataset("plain", "bird", ())
    for name, rows in (("toy", 5), ("plain", 3)):
        run("--iters", "1", "--dataset", name, "--name", f"{name}_singletpl")
        folder = Path(f"checkpoints_recon/{name}_singletpl/samples")
        with Image.open(folder / "0000001.png") as picture:
            assert picture.height == rows * (64 + 4 + 14)
        # A part map that is 1 everywhere would be no term of the loss
        assert ("parts" in state(f"{name}_singletpl")["losses"]) == (rows == 5)


@pytest.mark.usefixtures("toy")
def test_a_rasterizer_that_is_not_there_leaves_no_run_behind() -> None:
    with pytest.raises(UserError, match="'kaolin' lacks"):
        run("--iters", "1", "--rasterizer", "kaolin")
    assert not RUN.exists()


@pytest.mark.usefixtures("toy")
def test_a_finished_run_started_again_changes_nothing() -> None:
    run("--iters", "1")
    before = (RUN / "checkpoint_0000001.pth").stat().st_mtime_ns
    run("--iters", "1", "--continue_train")
    assert (RUN / "checkpoint_0000001.pth").stat().st_mtime_ns == before
    assert "already trained for 1 steps" in (RUN / "log.txt").read_text()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("prediction_type", ["none", "texture", "semantics", "both"])
def test_training_works_for_every_prediction_type(prediction_type: str) -> None:
    run("--iters", "2", "--prediction_type", prediction_type, "--loss", "l1", "--no_prefetch",
        "--num_workers", "0", "--tensorboard")  # fmt: skip
    assert list(Path("tensorboard_recon/toy_singletpl").glob("events*"))
    assert (RUN / "samples/0000002.png").exists()
    measures = evaluate(torch.device("cpu"), config("--evaluate"))
    assert ("color_error" in measures) == (prediction_type in ("texture", "both"))


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_training_lowers_the_loss() -> None:
    run(
        "--iters",
        "30",
        "--lr",
        "0.002",
        "--batch_size",
        "4",
        "--semi_fraction",
        "0",
        "--save_freq",
        "1000",
    )
    records = RunDirectory(RUN).records()
    losses = [record["total"] for record in records]  # steps 10, 20, 30, of all images
    assert losses[2] < losses[1] < 0.9 * losses[0]


@pytest.mark.usefixtures("toy")
def test_export_writes_everything_the_gan_reads() -> None:
    run("--iters", "1")
    run("--generate_pseudogt", "--pseudogt_resolution", "128")
    metadata = pseudo_files.load_metadata("toy", "singletpl")
    assert metadata.paths == [f"datasets/toy/images/{i}.png" for i in range(1, COUNT)]
    assert metadata.translation.shape == (4, 3)
    pseudo_files.check_pseudo_ground_truth("toy", 128, "singletpl", 4)
    item = pseudo_files.load_pseudo_item("toy", 128, "singletpl", 2)
    assert item.mesh.shape == (3, 32, 32)
    assert item.seg.shape == (3, 64, 64)
    assert item.image.shape == (4, 299, 299)
    assert item.texture.shape == (3, 128, 128)
    seen = item.texture_alpha[0] > 0.99
    assert 0.2 < seen.mean() < 0.6  # About the half of a sphere that faces the viewer
    color = np.asarray(Image.open("datasets/toy/images/3.png"))[0, 0] / 127.5 - 1
    np.testing.assert_allclose(item.texture[:, seen].mean(1), color, atol=0.02)
    assert not item.texture[:, item.texture_alpha[0] == 0].any()
    assert feature_statistics.load_statistics("toy", "proxy").num_images == COUNT


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_export_continues_unless_the_checkpoint_has_changed() -> None:
    export = ("--generate_pseudogt", "--pseudogt_resolution", "64")
    run("--iters", "1")
    run(*export)
    paths = pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    first = {path: path.stat().st_mtime_ns for path in paths}
    paths[1].unlink()
    run(*export, "--batch_size", "1")
    again = {
        p: p.stat().st_mtime_ns for p in pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    }
    assert again.keys() == first.keys()
    assert [again[path] != first[path] for path in paths] == [False, True, False, False]
    run("--iters", "2")
    run(*export)
    renewed = pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    assert all(path.stat().st_mtime_ns != again[path] for path in renewed)


@pytest.mark.usefixtures("toy")
def test_evaluation_measures_shapes_where_the_truth_is_known() -> None:
    sphere = SphereMesh()
    shapes_path("toy").parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        shapes_path("toy"),
        shape_id=np.array([7]),
        vertices=5 * sphere.vertices[None].numpy(),
        faces=sphere.faces.numpy(),
    )
    np.savez(
        shapes_path("toy").with_name("ground_truth.npz"),
        name=np.array([str(i) for i in range(COUNT)]),
        rotation=np.tile([1.0, 0, 0, 0], (COUNT, 1)),
        scale_px=np.full(COUNT, 10.0),
        translation_px=np.full((COUNT, 2), SIZE / 2),
        camera_distance=np.full(COUNT, np.inf),
        shape_id=np.array([7] * COUNT),
    )
    run("--iters", "1")
    one = evaluate(torch.device("cpu"), config("--evaluate"))
    other = evaluate(torch.device("cpu"), config("--evaluate", "--batch_size", "1"))
    assert one == pytest.approx(other, rel=1e-4)
    assert 0.5 < one["iou"] <= 1
    assert one["chamfer_template"] < 0.01
    assert one["chamfer"] < 2
    assert RunDirectory(RUN).records()[-1]["iou"] == pytest.approx(other["iou"])


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_several_datasets_are_trained_together(monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset("herd", "horse", ("mane", "tail", "hoof"))
    monkeypatch.setattr(
        "pipeline.reconstruction.dataset.expand_dataset", lambda name: ("toy", "herd")
    )
    run("--dataset", "all", "--iters", "2", "--batch_size", "4")
    assert state()["part_names"] == ["beak", "tail", "hoof", "mane"]
    run("--dataset", "all", "--generate_pseudogt", "--pseudogt_resolution", "64")
    metadata = pseudo_files.load_metadata("all", "singletpl")
    assert metadata.category.tolist() == [0] * 4 + [1] * 4
    seg = pseudo_files.load_pseudo_item("all", 64, "singletpl", 0).seg
    assert seg.shape[0] == 5
    assert not seg[3:].any()  # A bird has no hooves


@pytest.mark.usefixtures("toy")
def test_several_collections_are_exported_each_into_its_own_folder() -> None:
    make_dataset("herd", "llama", ("mane", "tail", "snout"))
    run("--dataset", "herd,toy", "--iters", "1", "--batch_size", "4")
    assert state()["part_names"] == ["mane", "snout", "tail", "beak"]
    export = ("--dataset", "herd,toy", "--generate_pseudogt", "--pseudogt_resolution", "64")
    run(*export)
    assert sorted(p.name for p in Path("cache").glob("*") if p.suffix == "") == [
        "herd", "remeshed_templates", "toy",
    ]  # fmt: skip
    for name in ("herd", "toy"):
        metadata = pseudo_files.load_metadata(name, "singletpl")
        assert metadata.category.tolist() == [0] * 4
        assert metadata.paths == [f"datasets/{name}/images/{i}.png" for i in range(1, COUNT)]
        statistics = feature_statistics.load_statistics(name, "proxy")
        assert statistics.num_images == COUNT
        assert statistics.images == load_detections(name).fingerprint
    # What the second shows is the second's
    dataset = PseudoGroundTruth("herd,toy", 64, "singletpl", segmentation=True)
    assert dataset.metadata.category.tolist() == [0] * 4 + [1] * 4
    sample = dataset[6]
    color = np.asarray(Image.open("datasets/toy/images/3.png"))[0, 0] / 127.5 - 1
    seen = sample.alpha[0] > 0.99
    np.testing.assert_allclose(sample.texture[:, seen].mean(1), color, atol=0.02)
    # Done again, nothing is to do
    items = pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    before = [path.stat().st_mtime_ns for path in items]
    run(*export)
    assert [path.stat().st_mtime_ns for path in items] == before


def test_common_parts_select_the_channels_of_each_category() -> None:
    names, selection = common_parts([["beak", "tail"], [], ["hoof", "tail", "wing"]])
    assert names == ["beak", "tail", "hoof", "wing"]
    assert selection.shape == (3, 4, 5)
    assert selection[2].argmax(1).tolist() == [0, 3, 2, 4]
    assert selection.sum(2).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_the_best_images_of_every_template_are_pinned() -> None:
    template = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    iou = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2, 0.1, 0.05])
    assert pinned_images(template, iou, 0.5).tolist() == [0, 1, 0, 1, 1, 0, 0]
    assert not pinned_images(template, iou, 0).any()


@pytest.mark.usefixtures("toy")
def test_part_maps_of_the_loader_are_padded_to_the_longest_list() -> None:
    data = ReconstructionData("toy", "singletpl", 32, semi_fraction=0.5, parts=True)
    item = data[0]
    assert item.parts.shape == (4, 32, 32)
    torch.testing.assert_close(item.parts.sum(0), torch.ones(32, 32), rtol=0, atol=0.02)
    assert data.source(0) == (0, 1)
    assert data.labels.pinned.tolist() == [False, False, True, True]


def test_intervals_count_steps_or_epochs_as_the_length_does() -> None:
    options = config("--iters", "3")
    length = make_length(1, 3, options.optimizer.iters, epochs=1000)
    assert make_schedule(options.output, length) == (3, 1, 3, 10, 1)
    assert decay_interval(options.optimizer, length) == 1
    given = ("--checkpoint_freq", "7", "--image_freq", "8", "--save_freq", "9")
    for unit, flag in ((1, "--iters"), (10, "--epochs")):
        options = config(flag, "50", *given)
        length = make_length(30, 3, options.optimizer.iters, epochs=50)
        schedule = make_schedule(options.output, length)
        assert (schedule.checkpoint, schedule.picture, schedule.save) == (
            7 * unit,
            8 * unit,
            9 * unit,
        )
        assert schedule.total == 50 * unit
    assert decay_interval(options.optimizer, length) == 2500


def test_chamfer_distance_ignores_size_and_place_but_not_shape() -> None:
    sphere = SphereMesh()
    vertices, faces = sphere.vertices.double().numpy(), sphere.faces.numpy()
    moved = chamfer_distance((vertices, faces), (3 * vertices + 1, faces))
    flat = chamfer_distance((vertices, faces), (vertices * (1, 1, 0.5), faces))
    assert moved < 1e-9
    assert flat > 2


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-symmetric"], "only mirror-symmetric"),
        (["--epochs", "2", "--iters", "2"], "exclude each other"),
        (["--mesh_path", "uvsphere_16rings.obj"], "31 rings"),
        (["--image_resolution", "100"], "multiple of 32"),
        (["--pseudogt_path", "x"], "always written"),
        (["--which_epoch", "best"], "expected a number or latest"),
        (["--evaluate", "--generate_pseudogt"], "exclude each other"),
        (["--texture_resolution", "100"], "invalid choice"),
        (["--pose_rate", "2"], "from 0 to 1"),
    ],
)
def test_wrong_options_are_told_by_the_parser(
    options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        run(*options)
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_other_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(UserError, match="at least 2 images"):
        run("--batch_size", "1")
    with pytest.raises(UserError, match="neither singletpl nor multitpl"):
        run("--name", "toy")
    with pytest.raises(UserError, match=r"run_reconstruction\.py"):
        run("--evaluate")
    assert not RUN.exists()
    run("--iters", "1", "--prediction_type", "texture")
    with pytest.raises(UserError, match="--prediction_type both"):
        run("--generate_pseudogt")
    with pytest.raises(UserError, match="--lr"):
        run("--iters", "2", "--lr", "1e30")
    with pytest.raises(UserError, match="numbered ones: 1"):
        run("--evaluate", "--which_epoch", "9")
    make_dataset("toy", "bird", ("beak",))
    run("--iters", "1", "--name", "x_singletpl")
    make_dataset("toy", "bird", ("wing",))
    with pytest.raises(UserError, match="trained with the parts beak"):
        run("--evaluate", "--name", "x_singletpl")


@pytest.mark.usefixtures("toy")
def test_what_was_made_with_earlier_templates_is_refused() -> None:
    run("--iters", "1")
    run("--generate_pseudogt", "--pseudogt_resolution", "128")
    save_template("bird", 0.8)
    for options in (["--iters", "2"], ["--evaluate"], ["--generate_pseudogt"]):
        with pytest.raises(UserError, match=r"poses_estimated.*other templates.*step2\.py"):
            run(*options)
    save_poses(load_detections("toy"), range(1, COUNT))
    for options in (["--iters", "2"], ["--evaluate"], ["--generate_pseudogt"]):
        with pytest.raises(UserError, match=r"(checkpoint|model).*other templates.*--dataset toy"):
            run(*options)
    write_json(collection_path("toy"), {"category": "bird"})
    gan = ["--name", "toy_singletpl", "--dataset", "toy", "--gpu_ids", "cpu", "--iters", "1"]
    with pytest.raises(UserError, match=r"other templates.*--dataset toy.*--generate_pseudogt"):
        run_generation.main([*gan, "--texture_resolution", "128"])
    run("--name", "new_singletpl", "--iters", "1")


@pytest.mark.usefixtures("toy")
def test_published_checkpoints_with_weights_only_are_applied() -> None:
    run("--iters", "1", "--shape_head", "convolution")
    stripped = {"generator": {f"module.{k}": v for k, v in state()["generator"].items()}}
    folder = Path("checkpoints_recon/pretrained_singletpl")
    checkpoint.save(folder / "checkpoint_latest.pth", stripped)
    name = ("--name", "pretrained_singletpl")
    run(*name, "--evaluate")
    with pytest.raises(UserError, match="weights only"):
        run(*name, "--iters", "1")
