"""The detections file: COCO on disk, the same objects after a round trip."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from data import prepare
from data.detections import decode_mask, encode_mask, load_detections, save_detections
from utils.cli import UserError


@pytest.fixture
def detections(collection: Path):
    prepare.main(["--dataset", "toy", "--category", "bird"])
    return load_detections("toy")


def test_detections_survive_a_round_trip(detections):
    moved = replace(detections[1], bbox=(0.25, 1.5, 30.125, 20.0), score=0.5)
    changed = replace(detections, items=(detections[0], moved, detections[2]))
    save_detections(changed)
    assert load_detections("toy") == changed


def test_the_file_is_read_by_coco_tools(detections):
    coco = COCO("cache/toy/detections.json")
    birds = coco.getAnnIds(catIds=coco.getCatIds(catNms=["bird"]))
    heads = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds(catNms=["head"])))
    assert len(birds) == len(heads) == 3
    assert [dict(head)["part_of"] for head in heads] == birds
    mask = coco.annToMask(coco.loadAnns(birds)[0])
    assert np.array_equal(mask > 0, decode_mask(detections[0].mask))


def test_masks_survive_compression():
    mask = np.random.default_rng(0).random((13, 7)) > 0.5
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


def test_fingerprint_tells_rows_apart_but_not_parts(detections):
    def changed(**fields):
        return replace(detections, items=(replace(detections[0], **fields), *detections.items[1:]))

    assert load_detections("toy").fingerprint == detections.fingerprint
    assert changed(parts=()).fingerprint == detections.fingerprint
    others = [
        changed(bbox=(0.0, 0.0, 5.0, 5.0)),
        changed(image_path="x.jpg"),
        changed(mask=detections[1].mask),
        replace(detections, items=detections.items[::-1]),
        replace(detections, category="cow"),
    ]
    assert detections.fingerprint not in {other.fingerprint for other in others}


def test_unknown_and_unprepared_datasets_name_the_command(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.prepare --dataset zoo --category <category>"):
        load_detections("zoo")
    with pytest.raises(UserError, match=r"detections\.json does not exist.*--dataset p3d_car$"):
        load_detections("p3d_car")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("images"),
        lambda content: content["info"].update(category="dragon"),
        lambda content: content["images"][0].update(file_name="../../etc/passwd"),
        lambda content: content["images"][0].update(file_name="/etc/passwd"),
        lambda content: content["annotations"][0].update(bbox=[1, 2]),
        lambda content: content["annotations"][-1].update(part_of=99),
    ],
)
def test_malformed_files_are_one_line_errors(spoil, detections):
    path = Path("cache/toy/detections.json")
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not a detections file .*python -m data\.prepare"):
        load_detections("toy")
    path.write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        load_detections("toy")
