"""Collections of categories that are not among the 13: what is recorded of them, and what is refused."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from data import prepare
from data.cache import template_files
from data.cache.folders import record_of
from data.crops import part_labels, square_box
from data.definitions import CATEGORIES, VIEW_PRIORS, VIEWS, ViewPrior, check_views, is_word
from data.detections import Detection, Part, load_detections
from data.run_lengths import encode_mask
from tests.data.test_prepare import run
from utils.cli import UserError
from utils.files import read_json

DOGS = ["--dataset", "toy", "--category", "dog"]


def save_templates(category: str, value: float = 1.0) -> torch.Tensor:
    vertices = torch.full((1, 962, 3), value)
    template_files.save_templates(category, "singletpl", vertices)
    return vertices


def test_any_word_is_a_category_and_any_word_a_part(collection: Path):
    labels = {"2": "tail", "1": "floppy_ear"}
    (collection / "parts.json").write_text(json.dumps({"parts": labels}))
    prepare.main(DOGS)
    detections = load_detections("toy")
    assert detections.category == "dog"
    assert [part.name for part in detections[0].parts] == ["tail", "floppy_ear"]
    # Numbers of the known names stay as they are, for all tools that read the file
    content = read_json(Path("cache/toy/detections.json"))
    numbers = {entry["name"]: entry["id"] for entry in content["categories"]}
    assert [numbers[name] for name in (*CATEGORIES, "dog")] == list(range(1, 15))
    assert numbers["floppy_ear"] == max(numbers.values())
    assert {a["category_id"] for a in content["annotations"]} == {
        numbers[name] for name in ("dog", "tail", "floppy_ear")
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], VIEWS["standing"]),
        (["--views", "any"], VIEWS["any"]),
        (["--views", "-5", "20", "10", "0", "0"], ViewPrior(-5, 20, 10, 0, 0)),
    ],
)
def test_views_are_recorded(options: list[str], expected: ViewPrior, collection: Path):
    prepare.main([*DOGS, *options])
    assert record_of("toy") == ("dog", expected, "dog")


def test_known_categories_keep_their_views(collection: Path):
    for category in ("bird", "car", "horse"):
        prepare.main(["--dataset", "toy", "--category", category])
        assert record_of("toy") == (category, VIEW_PRIORS[category], category)
    # As do records of before, and datasets that were published
    record = read_json(Path("cache/toy/collection.json"))
    del record["views"], record["template_of"], record["sha256"]
    Path("cache/toy/collection.json").write_text(json.dumps(record))
    assert record_of("toy") == ("horse", VIEW_PRIORS["horse"], "horse")
    assert record_of("cub") == ("bird", VIEW_PRIORS["bird"], "bird")


def test_a_collection_can_say_everything_itself(collection: Path):
    horse = save_templates("horse")
    facts = {"category": "dog", "views": [1, 2, 3, 4, 5], "template_of": "horse"}
    (collection / "collection.json").write_text(json.dumps(facts))
    prepare.main(["--dataset", "toy"])
    assert record_of("toy") == ("dog", (1, 2, 3, 4, 5), "horse")
    assert torch.equal(template_files.templates_of(load_detections("toy"), "singletpl"), horse)
    # Options are more recent
    prepare.main(["--dataset", "toy", "--views", "flying"])
    assert record_of("toy").views == VIEWS["flying"]


def test_borrowed_templates_are_those_that_results_are_compared_with(collection: Path):
    horse, dog = save_templates("horse"), save_templates("dog", 2.0)
    for options, templates in ([], dog), (["--template_of", "horse"], horse):
        prepare.main([*DOGS, *options])
        assert torch.equal(
            template_files.templates_of(load_detections("toy"), "singletpl"), templates
        )
        expected = template_files.templates_fingerprint(templates)
        assert template_files.present_fingerprint("toy", "singletpl") == expected


def test_a_category_without_template_is_told_three_ways(collection: Path, caplog):
    with caplog.at_level(logging.INFO):
        prepare.main(["--dataset", "toy", "--category", "brid"])
    assert "did you mean bird?" in caplog.text
    assert "standing: elevation 10 +- 15" in caplog.text
    with pytest.raises(UserError) as error:
        template_files.templates_of(load_detections("toy"), "multitpl")
    message = str(error.value)
    remesh = "python remesh.py --mode multitpl --classes brid"
    assert f"{remesh} --templates <folder>" in message
    assert "data.prepare --dataset toy --category brid --template_of horse" in message
    assert message.endswith(f"{remesh} --from_photographs toy")
    assert "\n" not in message
    assert "--from_photographs toy" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--category", "Dog"], "--category: 'Dog' is no name of a category"),
        (["--category", "../dog"], "'../dog' is no name of a category"),
        (["--category", "all"], "'all' is no name of a category"),
        (["--views", "sideways"], "--views sideways: expected standing, vehicle, flying, any, or five"),
        (["--views", "1", "2", "3"], "--views 1 2 3: expected standing"),
        (["--views", "1", "2", "3", "x", "5"], "--views 1 2 3 x 5: expected standing"),
        (["--views", "1", "0", "3", "4", "5"], "elevation spread 0, expected 1 to 90"),
        (["--views", "1", "2", "nan", "4", "5"], "roll spread nan, expected 1 to 90"),
        (["--views", "100", "2", "3", "4", "5"], "elevation 100, expected -90 to 90"),
        (["--template_of", "unicorn"], "--template_of unicorn: there are no templates of it; there are some of: bear, horse."),
        (["--template_of", "cow"], "Make them with: python remesh.py --mode singletpl --classes cow"),
        (["--template_of", "a b"], "--template_of: 'a b' is no name of a category"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_write_nothing(
    options: list[str], message: str, collection: Path, capsys
):
    save_templates("horse")
    save_templates("bear")
    assert message in run([*DOGS, *options], capsys)
    assert not Path("cache/toy").exists()


@pytest.mark.parametrize("value", [[[1], 2, 3, 4, 5], {"elevation": 1}, 7, None, True, []])
def test_records_of_another_form_are_refused(value: object):
    with pytest.raises(UserError, match=r"^collection.json: views.* expected standing"):
        check_views(value, "collection.json: views")


def test_a_damaged_record_says_how_to_make_it_again(collection: Path):
    prepare.main(DOGS)
    path = Path("cache/toy/collection.json")
    for content, message in [
        ("[]", "expected a JSON object"),
        ('{"category": "../dog"}', "no name of a category"),
        ('{"category": "dog", "template_of": "/etc"}', "no name of a category"),
        ('{"category": "dog", "views": "no"}', "expected standing"),
    ]:
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            record_of("toy")


def test_a_changed_record_is_noticed(collection: Path):
    prepare.main([*DOGS, "--views", "any"])
    path = Path("cache/toy/collection.json")
    text = path.read_text()
    for word, other in [("dog", "dug"), ("60", "61"), ('"sha256"', '"sha257"'), ("num_", "nun_")]:
        assert word in text
        path.write_text(text.replace(word, other, 1))
        with pytest.raises(
            UserError, match=r"^cache/toy/collection\.json is damaged \(.*Prepare again"
        ):
            record_of("toy")


def test_words():
    assert all(map(is_word, ["dog", "polar_bear", "f16"]))
    assert not any(map(is_word, ["", "all", "1st", "Dog", "a-b", "a.b", "dog\n", "é", "x" * 65, 3]))


@pytest.mark.parametrize(
    ("names", "winner"), [(("head", "wing"), "head"), (("snout", "head", "wing"), "wing")]
)
def test_of_overlapping_parts_the_later_wins(names: tuple[str, ...], winner: str):
    mask = np.ones((4, 4), bool)
    parts = tuple(Part(n, 1.0, (0, 0, 3, 3), encode_mask(mask), 1.0) for n in names)
    item = Detection(0, "x.png", 4, 4, (0, 0, 3, 3), 1.0, encode_mask(mask), parts)
    vocabulary = sorted(names)
    painted = part_labels(item, vocabulary, square_box(item.bbox))
    assert painted[2 + vocabulary.index(winner)].sum() == mask.sum()
