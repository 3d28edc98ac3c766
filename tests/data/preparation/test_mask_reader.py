"""The masks of a collection: one decision for all, and a word about each that is odd."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import prepare
from data.collection import open_collection
from data.detections import load_detections
from data.preparation.quality import find_faults, is_cut_off
from data.run_lengths import decode_mask
from tests.data.test_prepare import run

SIZE = (120, 160)
YY, XX = np.mgrid[: SIZE[0], : SIZE[1]]
OBJECT = ((XX - 80) / 50) ** 2 + ((YY - 60) / 40) ** 2 < 1
ARGUMENTS = ["--dataset", "x", "--category", "bird"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, array: np.ndarray, orientation: int = 1) -> Path:
    path = Path("datasets/x") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    picture.getexif()[0x0112] = orientation
    picture.save(path, exif=picture.getexif() if orientation > 1 else b"")
    return path


def photograph(name: str = "a.png", orientation: int = 1, size: tuple = SIZE) -> None:
    write(f"images/{name}", np.full((*size, 3), 90, np.uint8), orientation)


def white(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 255, 0).astype(np.uint8)


def prepared(*options: str) -> np.ndarray:
    prepare.main([*ARGUMENTS, *options])
    return decode_mask(load_detections("x")[0].mask)


def test_inverted_masks_are_read_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        photograph(f"{name}.png")
        write(f"masks/{name}.png", white(~OBJECT))
    assert np.array_equal(prepared(), OBJECT)
    assert capsys.readouterr().out.count("the masks are inverted") == 1
    assert np.array_equal(prepared("--masks", "bright"), ~OBJECT)
    out = capsys.readouterr().out
    assert out.count("has an object that is 100% of its border") == 3
    assert "--check says what each means" in out


def test_cut_out_photographs_need_no_masks(capsys: pytest.CaptureFixture[str]) -> None:
    for name, alpha in (("a", white(OBJECT)), ("b", white(OBJECT | True))):
        write(f"images/{name}.png", np.dstack([np.full((*SIZE, 3), 90, np.uint8), alpha]))
    photograph("c.jpg")
    assert np.array_equal(prepared("--skip_invalid"), OBJECT)
    out = capsys.readouterr().out
    assert "transparency of datasets/x/images/: opaque means object" in out
    assert "images/b.png has an object that is 100% of its border" in out
    reason = "has no mask: is no mask: it has no transparency, and there is no datasets/x/masks/"
    assert f"left out: datasets/x/images/c.jpg {reason}" in out


@pytest.mark.parametrize("orientation", [6, 8, 5, 7])
def test_masks_of_the_stored_picture_are_turned_with_it(orientation: int, capsys) -> None:
    stored = OBJECT & ((XX > 60) | (YY > 60))
    photograph("a.png", orientation)
    write("masks/a.png", white(stored))
    write("masks/expected.png", white(stored), orientation)
    from data.image_files import read_mask

    assert np.array_equal(prepared(), read_mask("datasets/x/masks/expected.png") > 0)
    assert "a.png is turned by its EXIF data, and so is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("orientation", "size", "told"),
    [(3, SIZE, True), (2, SIZE, True), (6, (120, 120), True), (1, SIZE, False)],
)
def test_masks_that_may_not_be_turned_as_their_photograph_are_told(
    orientation: int, size: tuple, told: bool, capsys
) -> None:
    photograph("a.png", orientation, size)
    write("masks/a.png", white(OBJECT[:, 20 : 20 + size[1]] if size[1] == 120 else OBJECT))
    prepared()
    assert ("a.png is turned by its EXIF data (orientation" in capsys.readouterr().out) == told


@pytest.mark.parametrize("name", ["a.jpg.png", "a_mask.png", "A.png", "a.PNG", "mask_a.png"])
def test_masks_under_another_name_are_hinted_at(name: str, capsys) -> None:
    photograph("a.jpg")
    write("masks/b.png", white(OBJECT))
    write(f"masks/{name}", white(OBJECT))
    line = run(ARGUMENTS, capsys)
    assert f"masks/a.png does not exist; rename datasets/x/masks/{name} to it" in line


def test_masks_of_another_unicode_form_or_folder_are_hinted_at() -> None:
    photograph("sub/caf\u00e9.jpg")
    write("masks/sub/cafe\u0301.png", white(OBJECT))
    collection = open_collection("x")
    (image,) = collection.images
    assert collection.mask_elsewhere(image) == Path("datasets/x/masks/sub/cafe\u0301.png")
    os.rename("datasets/x/masks/sub/cafe\u0301.png", "datasets/x/masks/caf\u00e9.png")
    assert open_collection("x").mask_elsewhere(image) == Path("datasets/x/masks/caf\u00e9.png")


def test_folders_of_masks_under_another_name_are_listed(capsys) -> None:
    photograph()
    write("Mask/a.png", white(OBJECT))
    assert "masks/ does not exist (datasets/x/ has Mask/, images/)" in run(ARGUMENTS, capsys)


def test_a_folder_in_the_place_of_a_photograph_is_named(capsys) -> None:
    photograph("a.jpg")
    write("masks/a.png", white(OBJECT))
    photograph("holiday.jpg/c.png")
    write("masks/holiday.jpg/c.png", white(OBJECT))
    Path("datasets/x/images/b.jpg").mkdir()
    assert "1 of 3 images cannot be used: images/b.jpg is a folder" in run(ARGUMENTS, capsys)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("b.HEIC", "HEIC pictures such as datasets/x/images/b.HEIC are not read: convert them"),
        ("b.nef", "raw pictures such as datasets/x/images/b.nef are not read: develop them"),
        ("notes.txt", "notes.txt, which is no photograph"),
    ],
)
def test_files_that_are_not_read_are_told(name: str, word: str, capsys) -> None:
    Path("datasets/x/images").mkdir(parents=True)
    Path(f"datasets/x/images/{name}").write_bytes(b"x")
    assert word in run(ARGUMENTS, capsys)
    photograph()
    write("masks/a.png", white(OBJECT))
    prepared()
    assert word in capsys.readouterr().out


def box(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    return (x1 <= XX) & (x2 > XX) & (y1 <= YY) & (y2 > YY)


@pytest.mark.parametrize(
    ("mask", "kinds"),
    [
        (OBJECT, []),
        (box(40, 0, 120, 110), []),
        (~OBJECT, ["border"]),
        (OBJECT | True, ["border"]),
        (box(0, 0, 160, 60), ["border"]),
        (box(10, 10, 60, 60) | box(80, 10, 110, 60), ["pieces"]),
        (OBJECT | box(0, 0, 1, 1), ["specks"]),
        (OBJECT | box(10, 60, 14, 64), ["specks"]),
        (box(10, 10, 150, 100) & ~box(30, 30, 60, 60) | box(45, 45, 46, 46), []),  # in a hole
        (box(10, 10, 50, 50) | box(50, 50, 90, 90), []),  # they meet in a corner
        (box(10, 10, 60, 60) | box(80, 10, 110, 60) | box(159, 0, 160, 1), ["pieces", "specks"]),
    ],
)
def test_faults_of_masks_are_found(mask: np.ndarray, kinds: list[str]) -> None:
    assert [finding.kind for finding in find_faults(mask)] == kinds


def test_what_specks_do_is_said() -> None:
    (finding,) = find_faults(box(20, 20, 100, 80) | box(150, 100, 153, 103))
    assert finding.text == (
        "has specks in its mask (1, in all 9 pixels) that widen its box from 80 x 60 to 133 x 83 pixels"
    )


def test_cut_off_is_the_same_on_every_side() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y = rng.integers(0, 30, 2)
        mask = box(x, y, x + int(rng.integers(40, 120)), y + int(rng.integers(40, 90)))
        turned = [np.rot90(mask, k) for k in range(4)] + [mask[::-1], mask[:, ::-1]]
        assert len({is_cut_off(np.ascontiguousarray(m)) for m in turned}) == 1


def test_photographs_in_the_place_of_masks_are_told(capsys) -> None:
    photograph()
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    write("masks/a.png", noise)
    prepared()
    assert "a.png has a mask" in capsys.readouterr().out


def test_colors_of_parts_are_no_half_tones(capsys) -> None:
    photograph()
    colors = np.where(OBJECT[..., None], np.where(XX[..., None] < 80, (128, 0, 0), (0, 128, 0)), 0)
    write("masks/a.png", colors.astype(np.uint8))
    assert np.array_equal(prepared(), OBJECT)
    assert "neither" not in capsys.readouterr().out


def test_findings_are_recorded_and_explained(capsys) -> None:
    rng = np.random.default_rng(0)
    for name, mask in (("a", OBJECT), ("b", OBJECT | box(0, 0, 4, 4)), ("c", OBJECT)):
        write(f"images/{name}.png", rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        write(f"masks/{name}.png", white(mask))
    Path("datasets/x/images/c.png").write_bytes(Path("datasets/x/images/a.png").read_bytes())
    prepared()
    record = json.loads(Path("cache/x/collection.json").read_text())
    assert list(record["findings"]) == ["datasets/x/images/b.png"]
    capsys.readouterr()
    prepare.main([*ARGUMENTS, "--check"])
    out = capsys.readouterr().out
    assert "1 have specks, which count as the object" in out
    assert "1 look like another photograph, as frames of a video do. No fault, and kept" in out
    assert "1 of 3 photographs have something to look at" in out
