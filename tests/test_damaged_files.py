"""Every kind of file that is read, damaged in every way: one line that names it, or the same result.

Formats with checksums notice every flipped bit; in the others, which other programs write, a flipped bit
may be another number, but never a traceback.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.file_formats import FORMATS, Format
from utils import checkpoint
from utils.cli import UserError
from utils.digests import json_with_digest

SLOW = ("annotations of MATLAB",)


def same(a: Any, b: Any) -> bool:
    """Returns whether two results are equal, NaN being equal to itself."""
    if isinstance(a, np.ndarray | torch.Tensor):
        return (
            type(a) is type(b)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def outcome(kind: Format, path: Path, good: Any, *, exact: bool) -> str:
    """Reads a damaged file; returns what is wrong with that, or nothing."""
    try:
        found = kind.read()
    except UserError as error:
        line = str(error)
        if "\n" in line or len(line) > 700:
            return f"several lines: {line!r}"
        return "" if path.name in line or str(path.parent) in line else f"not named: {line}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "another result" if exact and not same(found, good) else ""


def of_bytes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields damaged copies of a file's bytes."""
    yield "empty", b""
    for share in (0.1, 0.5, 0.9):
        yield "cut", content[: int(share * len(content))]
    yield "cut", content[:-1]
    for position in np.random.default_rng(1).integers(0, len(content), 24):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(position % 8)
        yield "flipped", bytes(flipped)
    picture, packed, tensor = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "PNG")
    zipfile.ZipFile(packed, "w").close()
    torch.save([1, "x"], tensor)
    for other in (picture, packed, tensor):
        yield "of another kind", other.getvalue()
    for text in (
        b"[]",
        b"{}",
        b"null\n",
        b"\xff\xfe\0",
        b"[" * 10**5,
        b"text\n",
        b'{"a": 1e999}\n',
    ):
        yield "of another kind", text


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "of another kind"])
@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in FORMATS]
)
def test_damaged_bytes(name: str, damage: str) -> None:
    kind = FORMATS[name]
    path = kind.write()
    content, good = path.read_bytes(), kind.read()
    assert good is not None
    wrong = []
    for number, (what, spoiled) in enumerate(of_bytes(content)):
        if what != damage:
            continue
        path.write_bytes(spoiled)
        complaint = outcome(kind, path, good, exact=kind.exact and what != "of another kind")
        wrong += [f"{number}: {complaint}"] if complaint else []
        shutil.rmtree("out", ignore_errors=True)
    assert wrong == []


def of_array(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields what may stand in the place of an array or tensor; None if it is missing."""
    array = np.asarray(value)
    like = torch.from_numpy if isinstance(value, torch.Tensor) else np.asarray
    yield "missing", None
    yield "of another type", "x" if isinstance(value, torch.Tensor) else np.array("x")
    yield "of another type", like(array.astype(np.complex128)) if array.dtype.kind in "fi" else None
    yield "of another shape", like(array[None].copy())
    yield "of another shape", like(np.zeros((0, *array.shape[1:]), array.dtype))
    if array.ndim and len(array) > 1:
        yield "of another shape", like(array[:-1].copy())
    if array.dtype.kind == "f":
        for number in (np.nan, np.inf):
            spoiled = array.copy()
            spoiled.flat[0] = number
            yield "not finite", like(spoiled)
    if array.dtype.kind in "iu":
        yield "of another type", like(array + 0.5)


def of_json(value: Any, place: tuple = ()) -> Iterator[tuple[str, tuple, Any]]:
    """Yields damage, place and new value of every entry of a JSON document; None if it is missing."""
    others = {"of another type": ("x", [], {}, [[]], 3), "not finite": (np.inf, np.nan)}
    for key in value if isinstance(value, dict) else range(min(2, len(value))):
        inner, where = value[key], (*place, key)
        yield "missing", where, None
        for damage, candidates in others.items():
            for candidate in candidates:
                number = isinstance(candidate, int | float) and isinstance(inner, int | float)
                if type(candidate) is not type(inner) and (damage == "not finite" or not number):
                    yield damage, where, candidate
        if isinstance(inner, dict | list):
            yield from of_json(inner, where)


def changed(document: Any, place: tuple, value: Any) -> Any:
    """Returns a copy of a JSON document with another value (None: without) at a place."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if value is None:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copy


def spoiled_contents(path: Path) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Yields damage, entry, and what writes the file with that entry damaged, checksums right."""
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        document = json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text)
        digest = document.pop("sha256", None)
        for damage, place, value in of_json(document):
            content = changed(document, place, value)
            data = json_with_digest(content) if digest else json.dumps(content).encode() + b"\n"
            yield damage, ".".join(map(str, place)), lambda data=data: path.write_bytes(data)
        return
    if path.suffix == ".npz":
        with np.load(path) as file:
            content: Any = dict(file)
    else:
        content = checkpoint.load_plain(path)
    named = content if isinstance(content, dict) else {"": content}
    for name, value in named.items():
        if not isinstance(value, np.ndarray | torch.Tensor):
            continue
        for damage, other in of_array(value):
            rest = {key: entry for key, entry in named.items() if key != name}
            rest |= {} if other is None else {name: other}
            if path.suffix == ".npz":
                yield damage, name, lambda rest=rest: np.savez(path, **rest)
            else:
                whole = rest if isinstance(content, dict) else rest.get("", {})
                yield damage, name, lambda whole=whole: checkpoint.save(path, whole)


STRUCTURED = (
    *("detections", "collection", "hypotheses", "poses", "semantic template", "templates"),
    *("learned parts", "pseudo-ground-truth", "metadata", "statistics", "ground truth"),
    *("true shapes", "metrics", "configuration"),
    *("annotations, polygons", "annotations, run lengths", "annotations, labelme"),
)


@pytest.mark.parametrize("damage", ["missing", "of another type", "of another shape", "not finite"])
@pytest.mark.parametrize("name", STRUCTURED)
def test_damaged_content(name: str, damage: str) -> None:
    kind = FORMATS[name]
    path = kind.write()
    good, wrong = kind.read(), []
    for what, entry, write in spoiled_contents(path):
        if what != damage:
            continue
        write()
        exact = kind.exact and entry.rpartition(".")[2] not in kind.optional
        complaint = outcome(kind, path, good, exact=exact)
        wrong += [f"{entry}: {complaint}"] if complaint else []
    assert wrong == []
