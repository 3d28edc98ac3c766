"""Every kind of file that is read: what makes a good one, and what reads it."""

import dataclasses
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
