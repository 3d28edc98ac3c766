"""Individuals as a set of labels."""

import json
from pathlib import Path

import pytest

from data.labels.individuals import with_individuals
from data.labels.reading import LabelSets
from tests.pipeline.reconstruction.test_splits import detections, folder, write_shapes  # noqa: F401
from utils.cli import UserError

IMAGES = [f"datasets/herd/images/{i:03d}.png" for i in range(4)]


def test_true_shapes_are_individuals_where_several_photographs_show_each(folder: Path) -> None:  # noqa: F811
    write_shapes(folder, [7, 7, 2, 7])
    found = with_individuals({"color": {IMAGES[0]: "bay"}}, detections(4))
    expected = dict(zip(IMAGES, ["7", "7", "2", "7"], strict=True))
    assert found == {"color": {IMAGES[0]: "bay"}, "individual": expected}
    # Every photograph another one, or all the same
    for ids in [0, 1, 2, 3], [5, 5, 5, 5]:
        write_shapes(folder, ids)
        assert with_individuals({}, detections(4)) == {}


def test_names_in_instances_json_take_precedence_and_labels_above_all(folder: Path) -> None:  # noqa: F811
    write_shapes(folder, [7, 7, 2, 7])
    names = {"000": "ada", "001": "bea", "002": "bea"}
    (folder / "instances.json").write_text(json.dumps({**names, "other": "eva"}))
    assert with_individuals({}, detections(4)) == {}  # three photographs of two
    (folder / "instances.json").write_text(json.dumps({**names, "003": "ada"}))
    found = with_individuals({}, detections(4))["individual"]
    assert found == dict(zip(IMAGES, ["ada", "bea", "bea", "ada"], strict=True))
    own: LabelSets = {"individual": {IMAGES[0]: "zoe"}}
    assert with_individuals(own, detections(4)) == own


def test_a_damaged_file_is_an_error(folder: Path) -> None:  # noqa: F811
    (folder / "instances.json").write_text('{"000": 3}')
    with pytest.raises(UserError, match=r"expected the name of an individual"):
        with_individuals({}, detections(4))
