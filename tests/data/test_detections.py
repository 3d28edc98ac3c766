"""The detections file: COCO on disk, the same objects after a round trip."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from data import prepare, run_lengths
from data.detections import load_detections, save_detections
from data.run_lengths import check_runs, decode_mask, encode_mask
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
        lambda content: content["info"].update(category="../dragon"),
        lambda content: content["images"][0].update(file_name="../../etc/passwd"),
        lambda content: content["images"][0].update(file_name="/etc/passwd"),
        lambda content: content["annotations"][0].update(bbox=[1, 2]),
        lambda content: content["annotations"][-1].update(part_of=99),
        lambda content: content["annotations"][0].update(score=float("nan")),
        lambda content: content["annotations"][-1].update(frequency=float("inf")),
        lambda content: content["annotations"][0].update(score=2),
        lambda content: content["annotations"][0].update(bbox=[0, 0, float("nan"), 1]),
        lambda content: content["images"][0].update(height=float("inf")),
        lambda content: content["images"][0].update(height=10**9),
        lambda content: content["annotations"][0]["segmentation"].update(counts="0"),
        lambda content: content["annotations"][0]["segmentation"].update(counts=""),
        lambda content: content.update(annotations=None),
    ],
)
def test_malformed_files_are_one_line_errors(spoil, detections):
    path = Path("cache/toy/detections.json")
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert load_detections("toy") == detections
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not a detections file .*python -m data\.prepare"):
        load_detections("toy")
    path.write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        load_detections("toy")


def test_every_changed_bit_is_noticed(detections):
    path = Path("cache/toy/detections.json")
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, 8 * len(whole), 300):
        content = bytearray(whole)
        content[position // 8] ^= 1 << int(position % 8)
        path.write_bytes(content)
        try:
            assert load_detections("toy") == detections  # a blank between two words, say
        except UserError as error:
            assert "python -m data.prepare" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("count", [2**62, 2**63 - 1, -1])
def test_run_lengths_are_bounded_before_they_are_added(count):
    with pytest.raises(ValueError, match="do not fill 96 x 96 pixels"):
        check_runs(np.array([count, count, count, count, 9216]), 96, 96)


def test_compressed_run_lengths_are_those_of_the_masks():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random(tuple(rng.integers(1, 60, 2))) < rng.random()
        counts = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=not mask[0, 0], append=2)))
        expected = counts if not mask[0, 0] else np.concatenate([[0], counts])
        assert run_lengths._run_lengths(encode_mask(mask)["counts"]).tolist() == list(expected)
