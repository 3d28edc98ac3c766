"""Names of pictures in annotation files find their photographs, and only theirs."""

import time
from pathlib import Path

import pytest

from data.preparation.picture_names import match_pictures

ROOT = Path("datasets/x/images")


@pytest.mark.parametrize(
    ("photograph", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "a.png"),
        ("a.jpg", "a"),
        ("b/a.png", "b/a.jpg"),
        ("b/a.png", "C:\\me\\b\\a.png"),
        ("b/a.png", "/home/b/a.jpg"),
        ("a.jpg", "A.JPG"),
        ("bird.v1.jpg", "bird.v1"),
        ("bird.v1.jpg", "bird.v1.png"),
        ("my bird.jpg", "images/my%20bird.jpg"),
        ("my%20bird.jpg", "my%20bird.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("caf\u00e9.jpg", "cafe%CC%81.JPG"),
        ("a.jpg", "1a2b3c4d-a.jpg"),
        ("a.jpg", "/data/upload/3/1a2b3c4d-a.jpg"),
        ("b/a.jpg", "/data/local-files/?d=photos/b/a.jpg"),
        ("a.jpg", "https://example.org/files/a.jpg?token=1&x=2"),
        ("a.jpg", "a_jpg.rf.0123456789abcdef.jpg"),
        ("000123.jpg", "123"),
        ("a.jpg", "a.jpg.json"),
        ("a.jpg", "labels/a.txt"),
        ("what?.jpg", "what?.jpg"),
    ],
)
def test_spellings_of_tools_are_understood(photograph: str, name: str) -> None:
    matched, reasons = match_pictures([ROOT / photograph], ["other.jpg", name])
    assert matched == {ROOT / photograph: [name]}
    assert reasons == {}


@pytest.mark.parametrize("name", ["ab.jpg", "a-1.jpg", "a_jpg.jpg", "1a2b3c-a.jpg", ""])
def test_other_names_are_others(name: str) -> None:
    assert match_pictures([ROOT / "a.jpg"], [name]) == ({}, {})


def test_an_exact_name_is_not_offered_to_others() -> None:
    photographs = [ROOT / "1.jpg", ROOT / "001.jpg", ROOT / "A.jpg", ROOT / "a.jpg"]
    matched, _ = match_pictures(photographs, ["001.jpg", "a.jpg"])
    assert matched == {ROOT / "001.jpg": ["001.jpg"], ROOT / "a.jpg": ["a.jpg"]}


def test_of_pictures_of_one_name_that_in_the_same_folder_is_taken() -> None:
    names = ["train/wren/1.jpg", "train/crow/1.jpg", "crow/2.jpg"]
    matched, _ = match_pictures([ROOT / "crow/1.jpg", ROOT / "wren/1.jpg"], names)
    assert matched == {ROOT / "crow/1.jpg": [names[1]], ROOT / "wren/1.jpg": [names[0]]}
    matched, reasons = match_pictures([ROOT / "1.jpg"], names)
    assert matched == {}
    assert reasons[ROOT / "1.jpg"].startswith("may be any of train/wren/1, train/crow/1: arrange")


def test_a_name_without_folder_is_of_one_photograph_only() -> None:
    photographs = [ROOT / "crow/1.jpg", ROOT / "wren/1.jpg"]
    matched, reasons = match_pictures(photographs, ["1.jpg"])
    assert matched == {}
    assert reasons[photographs[0]] == f"may be 1, and so may {photographs[1]}: rename one"
    assert match_pictures(photographs, ["crow/1.jpg"])[0] == {photographs[0]: ["crow/1.jpg"]}


def test_many_pictures_are_matched_in_little_time() -> None:
    photographs = [ROOT / f"{number}.jpg" for number in range(20_000)]
    start = time.perf_counter()
    matched, _ = match_pictures(photographs, [f"{number:08}.png" for number in range(20_000)])
    assert len(matched) == 20_000
    assert time.perf_counter() - start < 10
