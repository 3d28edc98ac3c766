"""Every kind of file that is read, damaged in every way: one line that names it, or the same result.

Formats with checksums notice every flipped bit; in the others, which other programs write, a flipped bit
may be another number, but never a traceback.
"""

import dataclasses
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.io import savemat

from data import image_files
from data.cache import (
    feature_statistics,
    folders,
    learned_parts,
    pose_files,
    pseudo_files,
    template_files,
)
from data.collection import ground_truth_path, shapes_path
from data.definitions import ViewPrior
from data.detections import (
    Detection,
    Detections,
    Part,
    load_detections,
    read_published,
    save_detections,
)
from data.ground_truth import load_ground_truth, load_true_shapes
from data.preparation.archives import extract
from data.preparation.detectors import annotation_detector
from data.preparation.masking import NoObjectError
from data.preparation.matlab import read_structures
from data.run_lengths import encode_mask
from geometry.mesh_files import load_mesh
from tests import published
from tests.data.cache import test_artifacts as made
from utils import checkpoint
from utils.cli import UserError
from utils.digests import json_with_digest
from utils.run_directory import RunDirectory

MODE = "singletpl"
SIZE = (24, 32)  # height, width of the photograph


@dataclasses.dataclass
class Format:
    """A kind of file.

    Attributes:
        write: makes a good file below the working directory; returns its path.
        read: what the program reads from it.
        exact: whether every flipped bit is noticed or without effect.
        optional: entries without which the result may be another.
    """

    write: Callable[[], Path]
    read: Callable[[], Any]
    exact: bool = True
    optional: tuple[str, ...] = ()


def photograph(folder: str = "images", name: str = "a.png", mode: str = "RGB") -> Path:
    path = Path("datasets/toy") / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    pixels[4:20, 4:20] = 255
    picture = Image.fromarray(pixels)
    if mode == "L":
        picture = Image.fromarray(np.where(object_mask(), 255, 0).astype(np.uint8))
    picture.save(path)
    return path


def object_mask() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[4:20, 4:20] = True
    return mask


def detections() -> Detections:
    rle = encode_mask(object_mask())
    box, path = (4.0, 4.0, 19.0, 19.0), "datasets/toy/images/a.png"
    part = Part("head", 0.5, box, rle, 0.5)
    items = [Detection(i, path, *SIZE, box, 1.0, rle, (part,)) for i in range(2)]
    return Detections("toy", "bird", tuple(items))


def arrays_at(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def ground_truth() -> Path:
    numbers = np.random.default_rng(0).random((2, 4)) + 0.1
    return arrays_at(
        ground_truth_path("toy"),
        name=np.array(["a", "b"]),
        rotation=numbers,
        scale_px=numbers[:, 0],
        translation_px=numbers[:, :2],
        camera_distance=np.array([3.0, np.inf]),
        shape_id=np.array([0, 1]),
    )


def true_shapes() -> Path:
    vertices = np.random.default_rng(0).random((2, 4, 3))
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    return arrays_at(shapes_path("toy"), shape_id=np.array([0, 1]), vertices=vertices, faces=faces)


def text_at(name: str, content: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def record() -> Path:
    views = ViewPrior(1.0, 2.0, 3.0, 4.0, 5.0)
    facts = {"num_images": 2, "left_out": [], "fingerprint": "f" * 64}
    folders.write_record("toy", folders.Record("dog", views, "horse"), **facts)
    return folders.collection_path("toy")


def changes() -> str:
    return RunDirectory("run").changes({"width": 0.5, "lr": 0.1}, ["width"])


def statistics() -> feature_statistics.FeatureStatistics:
    covariance, sample = np.array([[2.0, 1.0], [1.0, 3.0]]), np.zeros((3, 2), np.float32)
    return feature_statistics.FeatureStatistics(np.ones(2), covariance, 12, sample, "net", "images")


def learned() -> Path:
    maps = torch.randint(0, 255, (2, 3, 4, 4), dtype=torch.uint8)
    parts = learned_parts.LearnedParts(maps, torch.ones(2, 3, dtype=torch.int64))
    return learned_parts.save_learned_parts(Path("learned.npz"), parts, "abc", "def")


def published_detections() -> Path:
    published.write_cache(Path("."), "cub")
    return Path("cache/cub/detections.npy")


def published_metadata() -> Path:
    published.write_cache(Path("."), "cub")
    return pseudo_files.metadata_path("cub", MODE)


def matlab() -> Path:
    rows = np.zeros((2, 1), dtype=[("rot", object), ("scale", object)])
    for i in range(2):
        rows[i, 0] = (np.eye(3), np.array([[1.5 + i]]))
    savemat("a.mat", {"sfm_anno": rows})
    return Path("a.mat")


def annotations(kind: str) -> Path:
    photograph()
    corners = [[4, 4], [20, 4], [20, 20], [4, 20]]
    flat = [x for corner in corners for x in corner]
    picture = {"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
    thing = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [flat]}
    coco = {"images": [picture], "categories": [{"id": 1, "name": "bird"}], "annotations": [thing]}
    if kind == "yolo":
        Path("labels").mkdir(exist_ok=True)
        Path("labels/a.txt").write_text("0 .1 .1 .6 .1 .6 .8 .1 .8\n")
        return Path("labels/a.txt")
    if kind == "run lengths":
        thing["segmentation"] = encode_mask(object_mask())
    labelme = {
        **{"version": "5", "flags": {}, "imagePath": "a.png", "imageData": None},
        **{"imageHeight": SIZE[0], "imageWidth": SIZE[1]},
        "shapes": [{"label": "bird", "points": corners, "shape_type": "polygon"}],
    }
    Path("annotations.json").write_text(json.dumps(labelme if kind == "labelme" else coco))
    return Path("annotations.json")


def outlined(source: str = "annotations.json") -> Any:
    image = Path("datasets/toy/images/a.png")
    try:
        found = annotation_detector(Path(source), (image,), "bird").detect(image)
    except NoObjectError as reason:
        return str(reason)
    return [(x.category, x.score, x.mask) for x in found]


def mesh(suffix: str) -> Path:
    path = Path(f"m.{suffix}")
    trimesh.creation.box().export(path)
    return path


def archive(name: str) -> Path:
    Path("x").write_bytes(bytes(range(256)) * 9)
    if name.endswith("zip"):
        with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as target:
            target.write("x")
    else:
        with tarfile.open(name, "w:gz") as target:
            target.add("x")
    return Path(name)


def unpacked(name: str) -> Any:
    extract(Path(name), Path("out"))
    return sorted((str(p), p.read_bytes()) for p in Path("out").rglob("*") if p.is_file())


def state() -> Path:
    content = {"step": 3, "generator": {"a": torch.rand(3, 4)}, "args": {"width": 0.5}}
    checkpoint.save("run/checkpoint_0000003.pth", content)
    return Path("run/checkpoint_0000003.pth")


ORIGIN = made.ORIGIN
FORMATS: dict[str, Format] = {
    "detections": Format(
        lambda: save_detections(detections()), lambda: load_detections("toy"), optional=("score",)
    ),
    "collection": Format(
        record,
        lambda: (folders.record_of("toy"), folders.fingerprint_of("toy")),
        optional=("views", "template_of"),  # older records lack them
    ),
    "hypotheses": Format(
        lambda: pose_files.save_hypotheses("toy", MODE, made.hypotheses(), ORIGIN),
        lambda: pose_files.load_hypotheses("toy", MODE, ORIGIN),
    ),
    "poses": Format(
        lambda: pose_files.save_estimated_poses("toy", MODE, made.estimated(), ORIGIN),
        lambda: pose_files.load_estimated_poses("toy", MODE, ORIGIN),
        optional=("confidence",),
    ),
    "poses with shapes": Format(
        lambda: pose_files.save_estimated_poses("toy", MODE, made.estimated_with_shapes(), ORIGIN),
        lambda: pose_files.load_estimated_poses("toy", MODE, ORIGIN),
        optional=("confidence",),
    ),
    "semantic template": Format(
        lambda: pose_files.save_semantic_template("toy", MODE, made.semantic_template(), ORIGIN),
        lambda: pose_files.load_semantic_template("toy", MODE, ORIGIN),
        optional=("probabilities",),  # of any number of templates
    ),
    "templates": Format(
        lambda: template_files.save_templates("bird", MODE, torch.rand(1, 962, 3)),
        lambda: template_files.load_templates("bird", MODE),
    ),
    "learned parts": Format(
        learned,
        lambda: learned_parts.load_learned_parts(Path("learned.npz"), "abc", "def"),
        optional=("fingerprint", "settings"),  # with other ones, parts are learned again
    ),
    "pseudo-ground-truth": Format(
        lambda: pseudo_files.save_pseudo_item("toy", 8, MODE, 0, made.pseudo_item()),
        lambda: pseudo_files.load_pseudo_item("toy", 8, MODE, 0),
        optional=("seg",),  # of any number of parts
    ),
    "metadata": Format(
        lambda: pseudo_files.save_metadata("toy", MODE, made.metadata()),
        lambda: pseudo_files.load_metadata("toy", MODE),
        optional=("z0", "category", "templates"),
    ),
    "statistics": Format(
        lambda: feature_statistics.save_statistics("toy", statistics()),
        lambda: feature_statistics.load_statistics("toy"),
        optional=("sample", "network", "images"),
    ),
    "ground truth": Format(
        ground_truth,
        lambda: load_ground_truth(detections()),
        optional=("camera_distance",),  # may be infinite
    ),
    "true shapes": Format(true_shapes, lambda: load_true_shapes("toy"), optional=("faces",)),
    "metrics": Format(
        lambda: text_at("run/metrics.jsonl", '{"step": 1, "loss": 0.5}\n{"step": 2, "fid": 3.5}\n'),
        lambda: RunDirectory("run").records(),
        exact=False,
    ),
    "configuration": Format(
        lambda: text_at("run/config.json", '{"width": 0.5, "lr": 0.1}'), changes, exact=False
    ),
    "checkpoint": Format(state, lambda: checkpoint.load("run/checkpoint_0000003.pth")),
    "photograph": Format(
        photograph, lambda: image_files.read_photograph("datasets/toy/images/a.png")
    ),
    "photograph in JPEG": Format(
        lambda: photograph(name="a.jpg"),
        lambda: image_files.read_photograph("datasets/toy/images/a.jpg"),
        exact=False,
    ),
    "mask": Format(
        lambda: photograph("masks", mode="L"),
        lambda: image_files.read_mask("datasets/toy/masks/a.png"),
    ),
    "part map": Format(
        lambda: photograph("parts", mode="L"),
        lambda: image_files.read_labels("datasets/toy/parts/a.png"),
    ),
    "published detections": Format(
        published_detections,
        lambda: read_published(Path("cache/cub/detections.npy"), "cub"),
        exact=False,
    ),
    "published metadata": Format(
        published_metadata, lambda: pseudo_files.load_metadata("cub", MODE)
    ),
    "annotations of MATLAB": Format(
        matlab, lambda: read_structures(Path("a.mat"), "sfm_anno", ["rot", "scale"], "x"), exact=False
    ),
    **{
        f"annotations, {kind}": Format(lambda kind=kind: annotations(kind), outlined, exact=False)
        for kind in ("polygons", "run lengths", "labelme")
    },
    "annotations, yolo": Format(
        lambda: annotations("yolo"), lambda: outlined("labels/a.txt"), exact=False
    ),
    **{
        f"mesh in .{suffix}": Format(
            lambda suffix=suffix: mesh(suffix), lambda suffix=suffix: load_mesh(f"m.{suffix}"), False
        )
        for suffix in ("obj", "off", "ply", "stl", "glb")
    },
    **{
        f"archive in .{suffix}": Format(
            lambda suffix=suffix: archive(f"a.{suffix}"),
            lambda suffix=suffix: unpacked(f"a.{suffix}"),
        )
        for suffix in ("zip", "tgz")
    },
}  # fmt: skip
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
