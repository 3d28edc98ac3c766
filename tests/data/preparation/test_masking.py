"""Which object of a photograph is taken, and what the check of a collection finds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import prepare
from data.preparation import detectors
from data.preparation.inspection import perceptual_hash
from data.preparation.masking import Candidate, Detector, Limits, choose
from data.preparation.quality import is_cut_off
from data.run_lengths import RLE, encode_mask
from utils.cli import UserError

SIZE = (300, 400)


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def box(x1: int, y1: int, x2: int, y2: int) -> RLE:
    return encode_mask(rectangle(x1, y1, x2, y2))


GOOD = Candidate("car", 0.95, box(50, 50, 170, 150))


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([], None),
        ([GOOD], 0),
        ([GOOD._replace(category="bus")], None),
        ([GOOD._replace(score=0.8)], None),
        ([GOOD._replace(runs=box(50, 50, 145, 145))], None),  # 95 x 95 pixels
        ([GOOD._replace(runs=box(5, 50, 150, 150))], None),  # cut off at the left
        ([GOOD, Candidate("dog", 0.5, box(172, 60, 190, 70))], None),  # two pixels apart
        ([GOOD, Candidate("dog", 0.5, box(175, 60, 190, 70))], 0),
        (
            [
                Candidate("car", 0.95, box(20, 20, 380, 280)),
                Candidate("dog", 0.9, box(0, 0, 30, 30)),
            ],
            0,
        ),
        ([GOOD._replace(runs=box(200, 160, 350, 280), score=0.99), GOOD], 0),
        ([GOOD._replace(runs=box(20, 20, 380, 280), crowd=True), GOOD], 1),
        ([GOOD._replace(crowd=True)], 0),  # so CVAT marks all run lengths
        ([GOOD, GOOD._replace(score=0.96)], 1),  # the same object, found twice
        ([GOOD._replace(category=None), GOOD._replace(category=None, runs=box(60, 60, 90, 90))], 0),
    ],
)
def test_the_best_usable_object_is_chosen(candidates: list[Candidate], chosen: int | None) -> None:
    assert choose(candidates, "car") == chosen


def test_limits_are_those_of_the_user() -> None:
    small = GOOD._replace(runs=box(50, 50, 80, 80), score=0.3)
    assert choose([small], "car", Limits(min_area=900, min_score=0.3)) == 0
    assert choose([small], "car", Limits(min_area=901, min_score=0.3)) is None
    assert choose([small], "car", Limits(min_area=900, min_score=0.31)) is None


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([GOOD._replace(category="bus")], "shows no car, but bus"),
        ([], "shows no car"),
        ([GOOD._replace(score=0.8)], "is uncertain: score 0.80, expected 0.9"),
        ([GOOD._replace(runs=box(50, 50, 60, 60))], "is small: 100 pixels, expected 9216"),
        ([GOOD._replace(runs=box(5, 50, 150, 150))], "is cut off at the border"),
        ([GOOD, Candidate("dog", 0.5, box(172, 60, 190, 70))], "touches another object"),
    ],
)
def test_the_check_says_why_an_object_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: list[Candidate], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    detector = Detector(lambda _: candidates, "car", "fake")
    monkeypatch.setattr(detectors, "annotation_detector", lambda *_: detector)
    write_photographs(1)
    options = ["--dataset", "cars", "--category", "car", "--annotations", "a.json", "--check"]
    prepare.main(options)
    (found,) = json.loads(Path("cache/cars/check.json").read_text()).values()
    assert found[0].endswith(reason)


@pytest.mark.parametrize(
    ("mask", "cut"),
    [
        (rectangle(50, 50, 350, 250), False),
        (rectangle(0, 50, 350, 250), True),
        (rectangle(50, 9, 350, 250), True),
        (rectangle(50, 10, 350, 250), False),
        (rectangle(50, 50, 391, 250), True),
        (rectangle(50, 50, 350, 300), True),
        (rectangle(0, 100, 350, 130), False),  # a tip of 30 pixels touches the border
        (np.zeros(SIZE, bool), False),
    ],
)
def test_objects_at_the_border_are_cut_off(mask: np.ndarray, cut: bool) -> None:
    assert is_cut_off(mask) == cut


class FakeNetwork(torch.nn.Module):
    """Sees a car in every photograph, where it is brighter than the rest."""

    def forward(self, pictures: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        bright = (pictures[0].mean(0) > 0.5).float()[None, None]
        labels, scores = torch.tensor([3]), torch.tensor([0.99])  # of a car in COCO
        return [{"labels": labels, "scores": scores, "masks": bright}]


def write_photographs(count: int) -> None:
    folder = Path("datasets/cars/images")
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 100, (*SIZE, 3), dtype=np.uint8)
        pixels[60:180, 80 + 20 * i : 240 + 20 * i] += 150
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_masks_of_a_network_are_written_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "torchvision.models.detection.maskrcnn_resnet50_fpn", lambda **_: FakeNetwork()
    )
    torch.save(FakeNetwork().state_dict(), "weights.pth")
    write_photographs(2)
    Path("datasets/cars/images/2.jpg").write_bytes(b"damaged")
    options = ["--mask_rcnn", "weights.pth", "--skip_invalid"]
    prepare.main(["--dataset", "cars", "--category", "car", *options])
    mask = np.asarray(Image.open("datasets/cars/masks/1.png"))
    assert mask.sum() == 255 * 120 * 160
    with pytest.raises(UserError, match=r"does not exist\. Get https://download"):
        detectors.mask_rcnn_detector(Path("absent.pth"), torch.device("cpu"), "car")
    with pytest.raises(UserError, match=r"knows no 'dragon'.*one of: person, bicycle, car"):
        detectors.mask_rcnn_detector(Path("weights.pth"), torch.device("cpu"), "dragon")


def test_hashes_of_the_same_scene_agree() -> None:
    ramp = np.sin(np.arange(200) / 17)[:, None] * np.cos(np.arange(300) / 23)
    picture = Image.fromarray(np.uint8(127 + 120 * ramp))
    other = Image.fromarray(np.uint8(127 + 120 * np.roll(ramp, 40, axis=1)))
    brighter = Image.fromarray(np.uint8(140 + 100 * ramp)).resize((150, 100))
    same, different = (
        (perceptual_hash(picture) ^ perceptual_hash(x)).bit_count() for x in (brighter, other)
    )
    assert same <= 4
    assert different > 16


def test_the_check_names_what_is_wrong_and_writes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photographs(6)
    masks = Path("datasets/cars/masks")
    masks.mkdir()
    for i in range(6):
        Image.fromarray(rectangle(80 + 20 * i, 60, 240 + 20 * i, 180)).save(masks / f"{i}.png")
    Image.fromarray(rectangle(0, 0, 0, 0)).save(masks / "1.png")
    Image.fromarray(rectangle(0, 50, 200, 200)).save(masks / "2.png")
    Image.fromarray(rectangle(100, 100, 130, 120)).save(masks / "3.png")
    with Image.open("datasets/cars/images/0.png") as picture:
        picture.resize((400, 300)).save("datasets/cars/images/4.png")
    (tmp_path / "datasets/cars/images/5.png").write_bytes(b"")
    prepare.main(["--dataset", "cars", "--category", "car", "--check"])
    found = json.loads(Path("cache/cars/check.json").read_text())
    reasons = {Path(path).stem: "; ".join(complaints) for path, complaints in found.items()}
    assert reasons["1"].startswith("has an empty mask")
    assert reasons["2"] == "is cut off at the border"
    assert reasons["3"] == "shows a small object: 30 x 20 pixels, expected 64"
    assert reasons["4"] == "looks like 0.png"
    assert reasons["5"].startswith("cannot be read")
    assert "0" not in reasons
    assert "4 of 6 photographs have something to look at" in capsys.readouterr().out
    assert {path.name for path in Path("cache/cars").iterdir()} == {"check.json", "check.png"}
