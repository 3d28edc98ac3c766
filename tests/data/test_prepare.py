"""Preparation of collections: what it writes, and what it says about bad ones."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.cache.folders import category_of
from data.cache.storage import Origin, save_tensors
from data.detections import load_detections
from data.run_lengths import decode_mask
from utils import cli

ARGUMENTS = ["--dataset", "toy", "--category", "bird"]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the command, expects it to fail, and returns its one line."""
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: prepare.main(arguments))
    assert stop.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_preparation_writes_masks_parts_and_category(collection: Path):
    prepare.main(ARGUMENTS)
    detections = load_detections("toy")
    assert detections.category == category_of("toy") == "bird"
    assert [item.image_path for item in detections.items] == [
        f"datasets/toy/images/{i}.png" for i in range(3)
    ]
    first = detections[0]
    assert first.bbox == (10, 5, 49, 34)
    mask = np.array(Image.open(collection / "masks" / "0.png")) > 127
    assert np.array_equal(decode_mask(first.mask), mask)
    assert [(p.name, p.score) for p in first.parts] == [("head", 1.0), ("tail", 1.0)]
    assert [p.frequency for p in first.parts] == pytest.approx([1, 1 / 3])
    assert np.array_equal(
        np.argwhere(decode_mask(first.parts[0].mask))[[0, -1]], [[5, 10], [19, 19]]
    )


def test_preparing_twice_writes_the_same_bytes(collection: Path):
    path = Path("cache/toy/detections.json")
    prepare.main(ARGUMENTS)
    before = path.read_bytes()
    prepare.main(ARGUMENTS)
    assert path.read_bytes() == before


def test_pixel_formats_and_nested_folders_and_links_are_read(collection: Path):
    image = Image.open(collection / "images" / "0.png")
    real = collection.with_name("elsewhere")
    for folder in ("images", "masks"):
        (real / folder / "sub").mkdir(parents=True)
    gray16 = Image.fromarray(np.full((40, 60), 40000, np.uint16))
    pictures = {
        "gray.png": image.convert("L"),
        "rgba.png": image.convert("RGBA"),
        "cmyk.jpg": image.convert("CMYK"),
        "palette.png": image.convert("P"),
        "deep.png": gray16,
        "UPPER.JPEG": image,
    }
    for name, picture in pictures.items():
        picture.save(real / "images" / "sub" / name)
        mask = Image.open(collection / "masks" / "0.png").convert("1")
        mask.save(real / "masks" / "sub" / f"{Path(name).stem}.png")
    Path("datasets/link").symlink_to(real)
    prepare.main(["--dataset", "link", "--category", "bear"])
    assert len(load_detections("link")) == len(pictures)


def test_category_comes_from_the_collection(collection: Path, capsys):
    assert "one that is known: motorcycle" in run(["--dataset", "toy"], capsys)
    (collection / "collection.json").write_text('{"category": "cow"}')
    prepare.main(["--dataset", "toy"])
    assert load_detections("toy").category == "cow"
    assert "category cow. Leave the option out" in run(ARGUMENTS, capsys)


def test_missing_collection_says_what_belongs_where(collection: Path, capsys):
    line = run(["--dataset", "nothing", "--category", "bird"], capsys)
    assert f"{Path.cwd()}/datasets/nothing/ does not exist" in line
    assert "datasets/nothing/images/" in line
    assert "datasets/nothing/masks/" in line


def test_collection_without_images_or_masks_is_an_error(collection: Path, capsys):
    (collection / "masks").rename(collection / "hidden")
    assert "datasets/toy/masks/ does not exist" in run(ARGUMENTS, capsys)
    for path in (collection / "images").iterdir():
        path.unlink()
    assert "has no photographs" in run(ARGUMENTS, capsys)


def truncate(root: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = root / "images" / "1.jpg"
    (root / "images" / "1.png").unlink()
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-500])


def write(root: Path, name: str, array: np.ndarray) -> None:
    Image.fromarray(array).save(root / name)


def one_pixel(root: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[7, 7] = 255
    write(root, "masks/1.png", mask)


SPOILERS: dict[str, Callable[[Path], object]] = {
    "1.png cannot be used: datasets/toy/masks/1.png does not exist": lambda root: (
        root / "masks/1.png"
    ).unlink(),
    "has an empty mask (datasets/toy/masks/1.png: white = 255 means object, the maximum is 1)": (
        lambda root: write(root, "masks/1.png", np.ones((40, 60), np.uint8))
    ),
    "has a mask of 1 pixels (--min_area is 256)": one_pixel,
    "images/1.jpg cannot be read (image file is truncated": truncate,
    "images/1.png cannot be read (it is damaged, or no picture": lambda root: (
        root / "images/1.png"
    ).write_bytes(b""),
    "has 60 x 40 pixels, but datasets/toy/masks/1.png has 8 x 9": lambda root: write(
        root, "masks/1.png", np.full((9, 8), 255, np.uint8)
    ),
    "labels in datasets/toy/parts/1.png that parts.json does not name: 9": lambda root: write(
        root, "parts/1.png", np.full((40, 60), 9, np.uint8)
    ),
    "is no label map: expected 8-bit gray or palette pixels, got RGB": lambda root: write(
        root, "parts/1.png", np.zeros((40, 60, 3), np.uint8)
    ),
    "shares its name with another photograph": lambda root: write(
        root, "images/1.jpg", np.zeros((40, 60, 3), np.uint8)
    ),
}


@pytest.mark.parametrize("message", SPOILERS)
def test_unusable_image_stops_the_preparation_or_is_listed(message: str, collection: Path, capsys):
    SPOILERS[message](collection)
    line = run(ARGUMENTS, capsys)
    assert "images cannot be used: images/1." in line
    assert message in line
    assert "--skip_invalid" in line
    assert not Path("cache").exists()

    prepare.main([*ARGUMENTS, "--skip_invalid"])
    kept = [item.image_path for item in load_detections("toy").items]
    assert kept == ["datasets/toy/images/0.png", "datasets/toy/images/2.png"]
    left_out = json.loads(Path("cache/toy/collection.json").read_text())["left_out"]
    assert {entry["image"][:20] for entry in left_out} == {"datasets/toy/images/"}
    assert (
        message.removeprefix("images/1.png ").removeprefix("images/1.jpg ").removeprefix("1.png ")
        in (left_out[0]["reason"])
    )
    assert "left out: datasets/toy/images/1" in capsys.readouterr().out


def test_long_lists_are_cut_and_counted(collection: Path, capsys):
    for i in range(5):
        Image.new("RGB", (60, 40)).save(collection / "images" / f"new{i}.png")
    line = run(ARGUMENTS, capsys)
    assert "5 of 8 images cannot be used" in line
    assert "new2.png" in line
    assert "new3.png" not in line


def test_nothing_usable_is_an_error_even_when_skipping(collection: Path, capsys):
    for path in (collection / "masks").iterdir():
        path.unlink()
    assert "3 of 3 images cannot be used" in run([*ARGUMENTS, "--skip_invalid"], capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"parts": {"1": "Top hat"}}', "parts.json: 'Top hat' is no name of a part"),
        ('{"parts": {"1": 2}}', "parts.json: 2 is no name of a part"),
        ('{"parts": {"x": "head"}}', "label 'x' is not a number from 1 to 255"),
        ('{"parts": ["head"]}', '"parts" must be an object'),
        ("[1]", "expected a JSON object, got list"),
        ("{", "is not valid JSON"),
    ],
)
def test_wrong_part_names_are_one_line_errors(content: str, message: str, collection: Path, capsys):
    (collection / "parts.json").write_text(content)
    assert message in run(ARGUMENTS, capsys)


def test_part_maps_without_names_are_an_error(collection: Path, capsys):
    (collection / "parts.json").unlink()
    assert "so the labels in datasets/toy/parts/ have no names" in run(ARGUMENTS, capsys)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_leaves_the_old_files(function: str, collection: Path, monkeypatch, capsys):
    prepare.main(ARGUMENTS)
    before = {path: path.read_bytes() for path in Path("cache").rglob("*") if path.is_file()}
    (collection / "images" / "2.png").unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    capsys.readouterr()
    assert "no space left on the disk" in run(ARGUMENTS, capsys)
    assert before == {p: p.read_bytes() for p in Path("cache").rglob("*") if p.is_file()}


def test_changed_images_are_announced_when_poses_exist(collection: Path, capsys):
    prepare.main(ARGUMENTS)
    image, content = collection / "images/2.png", (collection / "images/2.png").read_bytes()
    path = Path("cache/toy/poses_estimated_singletpl.bin")
    save_tensors(path, {}, Origin(load_detections("toy").fingerprint, ""))
    prepare.main(ARGUMENTS)
    assert str(path) not in capsys.readouterr().out
    image.unlink()
    prepare.main(ARGUMENTS)
    assert f"since these were made: {path}. Estimate" in capsys.readouterr().out
    # The poses belong to the images again once these are back
    image.write_bytes(content)
    prepare.main(ARGUMENTS)
    assert str(path) not in capsys.readouterr().out
    path.write_bytes(b"damaged")
    prepare.main(ARGUMENTS)
    assert str(path) in capsys.readouterr().out
