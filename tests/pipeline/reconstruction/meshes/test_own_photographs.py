"""Photographs of one's own: every kind of file, with the model file alone, and a line for what fails."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import run_reconstruction
from data.crops import network_input, square_box
from data.image_files import UnreadablePicture
from data.preparation.masking import Candidate, Detector
from data.run_lengths import encode_mask, mask_box
from pipeline.reconstruction.meshes import own_photographs
from pipeline.reconstruction.meshes.photograph_files import read_object
from pipeline.reconstruction.student import estimate_pose
from tests.pipeline.reconstruction.toy import make_dataset, run
from utils import checkpoint
from utils.cli import UserError

HEIGHT, WIDTH = 70, 90
CPU = torch.device("cpu")
OUT = Path("output/toy_singletpl_photographs")
NAME = ("--name", "toy_singletpl", "--gpu_ids", "cpu", "--pseudogt_resolution", "32")
FILES = ["camera.json", "mesh.glb", "mesh.mtl", "mesh.obj", "mesh.png", "panel.png"]


def picture() -> tuple[np.ndarray, np.ndarray]:
    """A red ellipse on green, (h, w, 3) and (h, w) uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.hypot((x - 50) / 30, (y - 36) / 24) < 1
    colors = np.where(mask[..., None], [200, 40, 30], [20, 160, 40])
    return colors.astype(np.uint8), np.uint8(255) * mask


def reconstruct(*options: str) -> None:
    run_reconstruction.main([*NAME, *options])


@pytest.fixture
def model(toy: Path) -> Path:
    """A working directory with a model file and nothing else; it has no student and no mask head."""
    run("--iters", "1", "--student_weight", "0", "--mask_weight", "0")
    for folder in ("cache", "datasets"):
        shutil.rmtree(folder)
    for path in Path("checkpoints_recon/toy_singletpl").iterdir():
        if path.name != "model.pth" and path.is_file():
            path.unlink()
    return toy


def save_photographs(folder: Path) -> None:
    """Writes the picture in many modes and formats; those that are transparent have their own mask."""
    folder.mkdir()
    colors, _ = picture()
    image = Image.fromarray(colors)
    image.save(folder / "plain.jpg", quality=95)
    image.save(folder / "lossless.webp", lossless=True)
    image.convert("L").save(folder / "gray.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    image.convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(colors[..., 0].astype(np.uint16) * 257).save(folder / "deep.tif")
    # Stored on its side, as phones do
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif)


def save_masks(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for name in names:
        Image.fromarray(picture()[1]).save(folder / f"{name}_mask.png")


@pytest.mark.slow
@pytest.mark.usefixtures("model")
def test_every_kind_of_photograph_becomes_a_mesh() -> None:
    photographs = Path("mine")
    save_photographs(photographs)
    names = sorted(path.stem for path in photographs.iterdir())
    save_masks(Path("masks"), names)
    reconstruct("--photo", "mine", "--mask", "masks")
    assert sorted(path.name for path in OUT.iterdir()) == sorted([*names, "index.html", "turntable.gif"])  # fmt: skip
    boxes = set()
    for name in names:
        assert sorted(path.name for path in (OUT / name).iterdir()) == FILES
        record = json.loads((OUT / name / "camera.json").read_text())
        assert (record["width"], record["height"]) == (WIDTH, HEIGHT)
        boxes.add(tuple(record["crop"].values()))
        with Image.open(OUT / name / "panel.png") as panel:
            assert panel.size == (768, 512)
    assert len(boxes) == 1
    # What is red in the photograph is red on the mesh, and nothing is green
    texture = np.asarray(Image.open(OUT / "lossless" / "mesh.png"), int)
    assert (np.abs(texture - [200, 40, 30]).max(-1) < 4).mean() > 0.2
    assert (texture[..., 1] - texture[..., 0]).max() < 40


@pytest.mark.usefixtures("model")
def test_a_transparent_photograph_needs_no_mask_and_gives_the_same_files_again() -> None:
    colors, mask = picture()
    Image.fromarray(np.dstack([colors, mask])).save("cut.png")
    reconstruct("--photo", "cut.png", "--out_path", "first", "--refine_steps", "2")
    reconstruct("--photo", "cut.png", "--out_path", "second", "--refine_steps", "2")
    for name in FILES:
        assert (Path("first/cut") / name).read_bytes() == (Path("second/cut") / name).read_bytes()
    # Other options are other meshes
    with pytest.raises(UserError, match=r"another refine_steps.*--overwrite"):
        reconstruct("--photo", "cut.png", "--out_path", "first")
    before = Path("first/cut/mesh.glb").stat().st_mtime_ns
    reconstruct("--photo", "cut.png", "--out_path", "first", "--refine_steps", "2")
    assert Path("first/cut/mesh.glb").stat().st_mtime_ns == before


@pytest.mark.usefixtures("model")
def test_what_cannot_be_used_takes_a_line_and_the_others_are_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    colors, mask = picture()
    folder = Path("mine")
    folder.mkdir()
    Image.fromarray(np.dstack([colors, mask])).save(folder / "good.png")
    Image.fromarray(colors).save(folder / "bare.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    # Two objects, and one that no sphere looks like
    two = mask.copy()
    two[:, 45:55] = 0
    Image.fromarray(np.dstack([colors, two])).save(folder / "two.png")
    cross = np.zeros_like(mask)
    cross[33:37, 5:85] = cross[3:67, 43:47] = 255
    Image.fromarray(np.dstack([colors, cross])).save(folder / "unlike.png")
    with caplog.at_level(logging.INFO):
        reconstruct("--photo", "mine")
    lines = "\n".join(caplog.messages)
    assert (
        "mine/bare.png has no mask, and the model was trained without a mask head: give one"
        in lines
    )
    assert "mine/broken.jpg cannot be read" in lines
    assert "mine/two.png has an object in 2 pieces" in lines
    assert "mine/unlike.png is unlike the photographs of a bird" in lines
    assert "mine/good.png is" not in lines
    assert "wrote 3 meshes" in lines
    assert sorted(p.name for p in OUT.iterdir() if p.is_dir()) == ["good", "two", "unlike"]


@pytest.mark.usefixtures("model")
def test_mistakes_are_reported_before_anything_is_written() -> None:
    colors, mask = picture()
    Image.fromarray(colors).save("bare.png")
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(0 * mask).save("empty.png")
    Path("several").mkdir()
    for name in "ab":
        Image.fromarray(colors).save(f"several/{name}.png")
    Path("nothing").mkdir()
    mistakes = {
        (
            "--photo",
            "bare.png",
        ): r"bare.png has no mask, and .*without a mask head: give one with --mask",
        ("--photo", "absent.png"): r"absent.png does not exist",
        ("--photo", "nothing"): r"nothing: no photographs there",
        ("--photo", "bare.png", "--mask", "empty.png"): r"has an empty mask",
        ("--photo", "bare.png", "--mask", "absent"): r"absent does not exist",
        ("--photo", "several", "--mask", "mask.png"): r"expected a folder with masks for 2",
        (
            "--photo",
            "several",
            "--mask",
            "nothing",
        ): r"None of the 2 .*a.png has no mask of its name",
        ("--photo", "bare.png", "--category", "car"): r"model.pth knows bird",
        ("--photo", "bare.png", "--mask", "mask.png", "--camera", "student"): r"has no student",
        ("--photo", "bare.png", "--mask_model", "absent.onnx"): r"absent.onnx|onnxruntime",
    }
    for options, message in mistakes.items():
        with pytest.raises(UserError, match=message):
            reconstruct(*options)
    assert not OUT.exists()


def test_a_network_finds_the_object_where_there_is_no_mask(tmp_path: Path) -> None:
    colors, mask = picture()
    path = tmp_path / "bare.png"
    Image.fromarray(colors).save(path)
    bird = Candidate("bird", 0.95, encode_mask(mask > 0))
    found: dict[str, list[Candidate]] = {
        "bird": [bird._replace(category="dog"), bird],
        "shows no bird, but dog": [bird._replace(category="dog")],
        "shows a bird that is uncertain": [bird._replace(score=0.3)],
    }
    for expected, candidates in found.items():
        detector = Detector(lambda _, objects=candidates: objects, "bird", "a test")
        if expected == "bird":
            subject = read_object(path, None, detector, 32).subject
            assert (subject.width, subject.height) == (WIDTH, HEIGHT)
            assert subject.box == square_box(mask_box(mask > 0))
            continue
        with pytest.raises(UnreadablePicture, match=expected):
            read_object(path, None, detector, 32)


class SeesRed(torch.nn.Module):
    """A mask head that nobody needs to teach."""

    def forward(self, image: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(image, 64)
        return 20 * (small[:, :1] - small[:, 1:2] - 0.5) * self.sign

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor(sign))


@pytest.mark.usefixtures("toy")
def test_the_mask_head_of_a_model_finds_the_object(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run("--iters", "1")
    load = own_photographs.load_model

    def load_with(sign: float) -> None:
        monkeypatch.setattr(own_photographs, "load_model", lambda *a: load(*a)._replace(mask_head=SeesRed(sign)))  # fmt: skip

    colors, mask = picture()
    Image.fromarray(colors).save("bare.png")
    load_with(1.0)
    with caplog.at_level(logging.INFO):
        reconstruct("--photo", "bare.png")
    assert "bare.png has no mask: the model takes what it sees as the object" in caplog.text
    found = np.asarray(Image.open(OUT / "bare" / "mask.png"))[..., 0] > 127
    assert (found & (mask > 0)).sum() / (found | (mask > 0)).sum() > 0.9
    # Corrected by hand, it is a mask like any other
    reconstruct(
        "--photo", "bare.png", "--mask", str(OUT / "bare" / "mask.png"), "--out_path", "own"
    )
    for name in ("mesh.png", "panel.png"):
        assert (OUT / "bare" / name).read_bytes() == (Path("own/bare") / name).read_bytes()
    # A head that sees nothing, and none at all
    load_with(0.001)
    with pytest.raises(
        UserError, match=r"the model sees no bird in it \(certainty 0\.\d\d, expected 0\.65\)"
    ):
        reconstruct("--photo", "bare.png", "--out_path", "nothing")
    assert not Path("nothing").exists()


def test_large_photographs_are_shrunk_and_keep_their_box(tmp_path: Path) -> None:
    colors, mask = (np.repeat(np.repeat(x, 40, 0), 40, 1) for x in picture())
    Image.fromarray(np.dstack([colors, mask])).save(tmp_path / "large.png", compress_level=1)
    subject = read_object(tmp_path / "large.png", None, None, 64).subject
    assert subject.pixels.shape == (1024, 1024, 4)
    assert (subject.width, subject.height) == (40 * WIDTH, 40 * HEIGHT)
    assert subject.box == square_box(mask_box(mask > 0))
    share = (subject.pixels[..., 3] > 127).mean() * subject.box.side**2 / (mask > 0).sum()
    assert share == pytest.approx(1, abs=0.01)
    inside = subject.pixels[subject.pixels[..., 3] == 255][:, :3].astype(int)
    assert np.abs(inside - [200, 40, 30]).max() < 90  # the outline is mixed, no further


@pytest.mark.usefixtures("toy")
def test_a_model_of_several_categories_asks_which() -> None:
    make_dataset("herd", "horse", ("mane",))
    run("--dataset", "toy,herd", "--iters", "1", "--batch_size", "4")
    colors, mask = picture()
    Image.fromarray(np.dstack([colors, mask])).save("cut.png")
    with pytest.raises(UserError, match=r"several categories: add --category bird or horse"):
        reconstruct("--photo", "cut.png")
    reconstruct("--photo", "cut.png", "--category", "horse")
    assert (OUT / "cut" / "mesh.glb").exists()


@pytest.mark.usefixtures("toy")
def test_the_student_of_a_model_proposes_cameras() -> None:
    run("--iters", "1")
    colors, mask = picture()
    Image.fromarray(np.dstack([colors, mask])).save("cut.png")
    poses = {}
    for camera in ("search", "student", "both"):
        reconstruct("--photo", "cut.png", "--camera", camera, "--out_path", camera)
        poses[camera] = json.loads(Path(camera, "cut", "camera.json").read_text())["pose"]
    # The student's own pose, as it says it
    estimator = own_photographs.load_model(Path("checkpoints_recon/toy_singletpl/model.pth"), CPU)
    photograph = read_object(Path("cut.png"), None, None, 32).subject
    image = network_input(photograph.pixels, 64)[None]
    assert estimator.student is not None
    said = estimate_pose(estimator.student, image, torch.zeros(1, dtype=torch.int64))
    for name, member in said.pose._asdict().items():
        torch.testing.assert_close(torch.tensor(poses["student"][name]), member[0])
    assert poses["search"] != poses["student"]


@pytest.mark.usefixtures("model")
def test_a_model_without_views_is_used_with_the_usual_ones() -> None:
    path = Path("checkpoints_recon/toy_singletpl/model.pth")
    state = checkpoint.load(path)
    del state["views"]
    checkpoint.save(path, state)
    colors, mask = picture()
    Image.fromarray(np.dstack([colors, mask])).save("cut.png")
    reconstruct("--photo", "cut.png")
    assert torch.isfinite(torch.tensor(json.loads((OUT / "cut/camera.json").read_text())["matrix"])).all()  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "--dataset is required"),
        ("--dataset x --mask y", "--mask needs --photo"),
        ("--dataset x --refine_steps 3", "--refine_steps needs --evaluate or --photo"),
        ("--dataset x --photo y --evaluate", "--evaluate and --photo exclude each other"),
        ("--photo y --mask_model a --mask_rcnn b", "exclude each other"),
        ("--photo y --how_many 3", "--how_many needs --export_meshes"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_reconstruction.main(["--name", "r_singletpl", *options.split()])
    assert message in capsys.readouterr().err
