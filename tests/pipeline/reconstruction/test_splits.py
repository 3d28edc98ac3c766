"""Parts of a collection: disjoint, stable, by photograph or by individual."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache.storage import save_arrays
from data.detections import Detection, Detections
from data.run_lengths import encode_mask
from pipeline.reconstruction.splits import SplitOptions, part_of, trained_on
from utils.cli import UserError

MASK = encode_mask(np.ones((4, 4), bool))


def detections(count: int, objects: int = 1) -> Detections:
    """Returns photographs with one or several objects each."""
    items = [
        Detection(
            i, f"datasets/herd/images/{i // objects:03d}.png", 4, 4, (0, 0, 3, 3), 1.0, MASK, ()
        )
        for i in range(count * objects)
    ]
    return Detections("herd", "horse", tuple(items))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets/herd").mkdir(parents=True)
    return tmp_path / "datasets/herd"


def write_shapes(folder: Path, shape_id: list[int]) -> None:
    count = len(shape_id)
    arrays = {
        "name": np.array([f"{i:03d}" for i in range(count)]),
        "rotation": np.tile([1.0, 0, 0, 0], (count, 1)),
        "scale_px": np.ones(count),
        "translation_px": np.zeros((count, 2)),
        "camera_distance": np.full(count, np.inf),
        "shape_id": np.array(shape_id),
    }
    save_arrays(folder / "ground_truth.npz", arrays)


def rows(photographs: Detections, split: str, *, instances: bool) -> list[int]:
    return torch.nonzero(part_of(photographs, SplitOptions(split, instances)))[:, 0].tolist()


def test_parts_by_photograph_are_those_of_the_rule(folder: Path):
    test, val = (rows(detections(20), part, instances=False) for part in ("test", "val"))
    assert (test, val) == ([4, 9, 14, 19], [8, 18])
    train = rows(detections(20), "train", instances=False)
    assert sorted(test + val + train) == list(range(20))
    assert rows(detections(20), "all", instances=False) == list(range(20))


@pytest.mark.parametrize(("individuals", "tested"), [(16, 3), (8, 2), (2, 1)])
def test_individuals_of_the_test_are_in_no_other_part(folder: Path, individuals: int, tested: int):
    """Photographs are in random order, so that positions do not tell individuals."""
    shape = np.random.default_rng(0).permutation(np.arange(individuals * 30) % individuals)
    write_shapes(folder, shape.tolist())
    photographs = detections(len(shape))
    parts = {p: rows(photographs, p, instances=True) for p in ("train", "val", "test")}
    assert sorted(row for part in parts.values() for row in part) == list(range(len(shape)))
    shown = {part: set(shape[found].tolist()) for part, found in parts.items()}
    assert shown["test"] == set(range(individuals - tested, individuals))
    assert shown["train"] == set(range(individuals - tested))
    assert shown["val"] <= shown["train"]
    assert 0.05 < len(parts["val"]) / len(parts["train"]) < 0.2


def test_objects_in_the_same_photograph_stay_together(folder: Path):
    test = rows(detections(10, objects=3), "test", instances=False)
    assert test == [12, 13, 14, 27, 28, 29]


def test_instances_json_takes_precedence(folder: Path):
    write_shapes(folder, [0, 0, 1, 1])
    names = {"000": "zoe", "001": "ada", "002": "zoe", "003": "bob"}
    (folder / "instances.json").write_text(json.dumps(names))
    assert rows(detections(4), "test", instances=True) == [0, 2]


def test_individuals_that_are_not_known_are_told_in_one_line(folder: Path):
    def message() -> str:
        with pytest.raises(UserError) as caught:
            rows(detections(3), "train", instances=True)
        return str(caught.value)

    assert "3 of 3 photographs of herd is not known" in message()
    assert "instances.json" in message()
    write_shapes(folder, [0, 1, -1])
    assert "1 of 3 photographs of herd is not known, such as 002" in message()
    write_shapes(folder, [4, 4, 4])
    assert "show the same individual" in message()
    (folder / "instances.json").write_text('{"000": 3}')
    assert "expected the name of an individual" in message()


def test_what_a_model_has_seen_follows_from_its_options(folder: Path):
    def seen(**args: object) -> list[bool] | None:
        rows = trained_on(detections(10), args)
        return None if rows is None else rows.tolist()

    train = part_of(detections(10), SplitOptions("train")).tolist()
    assert seen(dataset="herd", split="train", instances=False) == train
    assert seen(dataset="herd") == seen(dataset="flock,herd") == [True] * 10
    assert seen(dataset="flock") == [False] * 10
    # Published models, damaged ones, and individuals that are no longer known
    assert seen() is None
    assert seen(dataset="herd", split="?") is None
    assert seen(dataset="herd", split="train", instances=True) is None
