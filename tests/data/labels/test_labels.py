"""Labels of photographs: from a collection's file into the cache, and from there to numbers."""

import json
from pathlib import Path

import pytest
import torch

from data import prepare
from data.cache.label_files import (
    Labels,
    check_labels,
    labels_path,
    load_labels,
    rows_with,
    save_labels,
)
from data.labels.reading import read_labels
from tests.data.conftest import collection  # noqa: F401
from utils.cli import UserError

IMAGES = [f"datasets/toy/images/{name}" for name in ("0.png", "a/1.jpg", "b/2.png", "b/3.png")]
SETS = {
    "species": {IMAGES[0]: "robin", IMAGES[1]: "wren", IMAGES[2]: "robin", IMAGES[3]: "owl"},
    "color": {IMAGES[0]: "dark red", IMAGES[2]: "blue", IMAGES[3]: "blue"},
}
JSON = json.dumps(
    {
        "species": {"0": "robin", "a/1.jpg": " wren ", "b/2": "robin", "3.png": "owl", "9": "owl"},
        "color": {"0.png": "dark red", "1": "", "2": "blue", "b/3": "blue"},
    }
)
CSV = "\ufefffile, Species ,color\n0,robin,dark red\na/1,wren,\n\n2.png,robin,blue\nb/3,owl,blue\n9,owl,red\n"


def read(root: Path, name: str = "toy") -> dict[str, dict[str, str]]:
    return read_labels(name, root, [Path(image) for image in IMAGES])


@pytest.mark.parametrize(("name", "content"), [("labels.json", JSON), ("labels.csv", CSV)])
def test_both_formats_give_the_same_labels(name: str, content: str, tmp_path: Path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read(tmp_path) == SETS


def test_without_a_file_there_are_none(tmp_path: Path):
    assert read(tmp_path) == {}


def test_folders_of_cub_are_its_species(tmp_path: Path):
    folders = ("001.Black_footed_Albatross", "200.Common_Yellowthroat")
    images = [Path(f"datasets/cub/images/{folder}/x_{i}.jpg") for folder in folders for i in (1, 2)]
    found = read_labels("cub", tmp_path, images)["species"]
    assert [*found.values()] == ["black_footed_albatross"] * 2 + ["common_yellowthroat"] * 2
    assert (
        read_labels("mine", tmp_path, [Path(str(x).replace("cub", "mine")) for x in images]) == {}
    )


def test_a_name_that_two_folders_share_is_not_enough(tmp_path: Path):
    images = [Path(f"datasets/toy/images/{folder}/1.png") for folder in "ab"]
    (tmp_path / "labels.csv").write_text("image,color\n1,red\n")
    with pytest.raises(UserError, match=r"none of its 1 entries names a photograph.*such as a/1"):
        read_labels("toy", tmp_path, images)


BAD = {
    "not json": ("labels.json", "{", "not valid JSON"),
    "list": ("labels.json", "[]", "expected sets of labels"),
    "flat": ("labels.json", '{"0": "robin"}', "expected sets of labels"),
    "set name": ("labels.json", '{"Body Shape": {"0": "thin"}}', "no name of a label set"),
    "number": ("labels.json", '{"color": {"0": 3}}', "the color of 0 is 3, expected a text"),
    "comma": ("labels.json", '{"color": {"0": "red, blue"}}', "is no label"),
    "line": ("labels.json", '{"color": {"0": "a\\nb"}}', "is no label"),
    "empty": ("labels.csv", "", "expected a first line"),
    "one column": ("labels.csv", "image\n0\n", "expected a first line"),
    "ragged": ("labels.csv", "image,color\n0,red,blue\n", "0 has 3 columns, the first line 2"),
    "twice": ("labels.csv", "image,color\n0,red\n0.png,blue\n", "has two labels of color"),
    "binary": ("labels.csv", "\udcff\udcfe", "cannot be read as a table"),
    "other names": ("labels.csv", "image,color\nx,red\n", "none of its 1 entries"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_line(name: str, tmp_path: Path):
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / file))
    assert "\n" not in str(error.value)


def test_two_files_are_one_too_many(tmp_path: Path):
    for name in ("labels.json", "labels.csv"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="expected one of them"):
        read(tmp_path)


def test_preparation_brings_labels_into_the_cache(collection: Path, caplog):  # noqa: F811
    arguments = ["--dataset", "toy", "--category", "bird"]
    images = [f"datasets/toy/images/{i}.png" for i in range(3)]
    (collection / "labels.csv").write_text("image,color\n0,red\n1,blue\n2,red\n")
    with caplog.at_level("INFO"):
        prepare.main(arguments)
    assert "label set color: 2 labels" in caplog.text
    found = load_labels("toy", ["color"], images)
    assert found.names == {"color": ["blue", "red"]}
    assert found.values.tolist() == [[1], [0], [1]]
    # A mistake leaves what was prepared as it was; without a file, labels of before go
    (collection / "labels.csv").write_text("image,color\n7,red\n")
    with pytest.raises(UserError, match="none of its 1 entries"):
        prepare.main(arguments)
    assert load_labels("toy", ["color"], images).names == found.names
    (collection / "labels.csv").unlink()
    prepare.main(arguments)
    assert not labels_path("toy").exists()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_labels("toy", SETS)


@pytest.mark.usefixtures("cached")
def test_numbers_follow_the_order_of_photographs_and_of_names():
    photographs = [IMAGES[3], IMAGES[0], IMAGES[2]]
    found = load_labels("toy", ["color", "species"], photographs)
    assert found.names == {"color": ["blue", "dark red"], "species": ["owl", "robin", "wren"]}
    assert found.values.tolist() == [[0, 0], [1, 1], [0, 1]]
    # A model keeps its own numbers
    known = {"color": ["dark red", "green", "blue"]}
    assert load_labels("toy", ["color"], photographs, known).values.tolist() == [[2], [0], [2]]


@pytest.mark.usefixtures("cached")
def test_missing_and_unknown_labels_are_named():
    with pytest.raises(UserError, match=r"shape is none of its label sets: species, color"):
        load_labels("toy", ["shape"], IMAGES)
    with pytest.raises(UserError, match=r"1 of 4 photographs have no label of color.*a/1\.jpg"):
        load_labels("toy", ["color"], IMAGES)
    with pytest.raises(UserError, match="the model knows no species owl"):
        load_labels("toy", ["species"], IMAGES, {"species": ["robin", "wren"]})
    with pytest.raises(UserError, match=r"other/labels\.json does not exist.*labels\.csv"):
        load_labels("other", ["species"], IMAGES)
    labels_path("toy").write_text(labels_path("toy").read_text().replace("owl", "own", 1))
    with pytest.raises(UserError, match="is damaged"):
        load_labels("toy", ["species"], IMAGES)


LABELS = Labels(
    {"color": ["blue", "red"], "beak": ["red", "short"]}, torch.tensor([[0, 0], [1, 1], [0, 1]])
)


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [("blue", [0, 2]), ("color=red", [1]), ("beak=red", [0]), ("blue,short", [2])],
)
def test_photographs_are_chosen_by_the_names_of_labels(wanted: str, rows: list[int]):
    assert rows_with(LABELS, wanted) == rows


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("red", r"red: expected one label of color=blue, color=red, beak=red, beak=short"),
        ("green", "green: expected one label"),
        ("beak=blue", "beak=blue: expected one label"),
        ("color=red,beak=red", "no photograph has these labels together"),
    ],
)
def test_labels_that_choose_nothing_are_one_line(wanted: str, message: str):
    with pytest.raises(UserError, match=message):
        rows_with(LABELS, wanted)


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        LABELS._asdict() | {"values": LABELS.values + 1},
        LABELS._asdict() | {"values": LABELS.values - 1},
        LABELS._asdict() | {"values": LABELS.values[:2]},
        LABELS._asdict() | {"values": LABELS.values.float()},
        LABELS._asdict() | {"names": {"color": ["blue", "red"], "beak": ["red", 3]}},
        LABELS._asdict() | {"names": [["blue", "red"]]},
    ],
)
def test_damaged_labels_of_a_model_are_refused(content: object):
    with pytest.raises(UserError, match=r"model\.pth: its labels are damaged"):
        check_labels(Path("model.pth"), content, 3)


def test_labels_of_a_model_are_read_as_they_were_written():
    found = check_labels(Path("model.pth"), LABELS._asdict(), 3)
    assert found.names == LABELS.names
    assert torch.equal(found.values, LABELS.values)
