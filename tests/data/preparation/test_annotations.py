"""Annotations of every tool become masks, or one true reason for each photograph."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data import prepare
from data.collection import open_collection
from data.detections import load_detections
from data.preparation import masking
from data.preparation.annotation_files import read_annotations
from data.preparation.detectors import annotation_detector
from data.preparation.made_masks import read_made_mask
from data.run_lengths import decode_mask, encode_mask
from tests.data.test_prepare import run
from utils.cli import UserError

H, W = 160, 200
YY, XX = np.mgrid[:H, :W]
MASK = ((XX - 100) / 70) ** 2 + ((YY - 80) / 55) ** 2 < 1
ANGLES = np.linspace(0, 2 * np.pi, 60, endpoint=False)
POINTS = np.stack([100 + 70 * np.cos(ANGLES), 80 + 55 * np.sin(ANGLES)], 1)
POLYGON = POINTS.ravel().tolist()
SQUARE = [20, 20, 180, 20, 180, 140, 20, 140]
RLE = encode_mask(MASK)
RUNS = np.diff(np.flatnonzero(np.diff(MASK.T.ravel(), prepend=True, append=2))).tolist()
ARGUMENTS = ["--dataset", "x", "--category", "bird", "--annotations", "i.json"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        photograph(f"{name}.jpg")


def photograph(name: str, size: tuple[int, int] = (W, H)) -> None:
    path = Path("datasets/x/images") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "gray").save(path)


def write(content: Any, path: str = "i.json") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))


def coco(**entry: Any) -> dict[str, Any]:
    """Returns a file of both photographs; the annotation of the second is changed."""
    names = ("a.jpg", "b.jpg")
    images = [{"id": i, "file_name": n, "height": H, "width": W} for i, n in enumerate(names)]
    base = {"category_id": 1, "segmentation": [POLYGON], "iscrowd": 0}
    annotations = [{"id": 10 + i, "image_id": i, **base} for i in range(2)]
    annotations[1] |= entry
    categories = [{"id": 1, "name": "bird"}, {"id": 2, "name": "Object "}]
    return {"images": images, "categories": categories, "annotations": annotations}


def overlaps() -> list[float]:
    masks = [decode_mask(item.mask) for item in load_detections("x").items]
    return [float((m & MASK).sum() / (m | MASK).sum()) for m in masks]


def reason() -> str:
    (left_out,) = json.loads(Path("cache/x/collection.json").read_text())["left_out"]
    assert left_out["image"] == "datasets/x/images/b.jpg"
    return left_out["reason"]


def labelme(**shape: Any) -> dict:
    shape = {"label": "Bird", "points": POINTS.tolist(), "shape_type": "polygon"} | shape
    return {"shapes": [shape], "imageHeight": H, "imageWidth": W, "imageData": None}


def labelme_mask() -> dict:
    buffer = io.BytesIO()
    Image.fromarray(MASK[20:140, 25:175]).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    return labelme(shape_type="mask", points=[[25, 20], [174, 139]], mask=text)


def labelme_groups() -> dict:
    halves = [POINTS[POINTS[:, 0] < 101].tolist(), POINTS[POINTS[:, 0] > 99].tolist()]
    shapes = [{"label": "bird", "points": half, "group_id": 3} for half in halves]
    shapes.append({"label": "bird", "points": [[3, 3]], "shape_type": "point"})
    return {"shapes": shapes, "imageHeight": None, "imageWidth": None, "imagePath": "..\\a.jpg"}


YOLO = "0 " + " ".join(f"{x:.6f}" for x in (POINTS / (W, H)).ravel())
BOXES = {"boxes": [[0, 0, 9, 9]] * 2, "labels": ["dog", "bird"], "scores": [0.2, 0.99]}
SMALL = encode_mask((XX < 9) & (YY < 9))
RESULT = {"category_id": 16, "segmentation": RLE, "score": 0.95}
DIALECTS: dict[str, dict[str, Any]] = {
    "COCO": {"i.json": coco()},
    "COCO, run lengths": {"i.json": coco(segmentation={"size": [H, W], "counts": RUNS})},
    "COCO, compressed": {"i.json": coco(segmentation=RLE, iscrowd=1)},
    "COCO, other ids": {"i.json": coco(image_id=1.0, category_id="1", id="x")},
    "COCO, names only": {"i.json": coco(category_id=None, category_name="bird")},
    "COCO, one category": {"i.json": coco(category_id=None)},
    "COCO, null score": {"i.json": coco(score=None)},
    "COCO, without sizes": {
        "i.json": coco() | {"images": [{"id": i, "file_name": f"{n}.png"} for i, n in enumerate("ab")]}
    },
    "COCO, dangling": {"i.json": coco() | {"annotations": [*coco()["annotations"], {"image_id": 9}, 7]}},
    "labelme": {"i.json/a.json": labelme(), "i.json/b.json": labelme_mask()},
    "labelme, groups": {"i.json/a.json": labelme_groups(), "i.json/b.jpg.json": labelme()},
    "YOLO": {
        "i.json/a.txt": YOLO, "i.json/b.txt": YOLO + " 0.97\n",
        "i.json/data.yaml": "path: .\nnames: ['bird', 'dog']\nnc: 2\n",
    },
    "YOLO, numbered names": {
        "i.json/labels/a.txt": YOLO, "i.json/labels/b.txt": YOLO,
        "i.json/data.yaml": "nc: 1\nnames:\n  0: bird\n  1: dog\n",
    },
    "YOLO, dashes": {
        "i.json/a.txt": YOLO, "i.json/b.txt": YOLO, "i.json/x.yaml": "names:\n- bird\n- dog\nnc: 2\n",
    },
    "YOLO, classes.txt": {
        "i.json/a.txt": "1" + YOLO[1:], "i.json/b.txt": "1" + YOLO[1:], "i.json/classes.txt": "dog\nbird\n",
    },
    "SAM": {
        "i.json/a.json": [{"segmentation": SMALL, "predicted_iou": 0.9}, {"segmentation": RLE}],
        "i.json/b.json": [{"segmentation": MASK.tolist(), "area": 5, "predicted_iou": 1.01}],
    },
    "SAM with pictures": {
        f"i.json/sa_{i}.json": {
            "image": {"file_name": f"{name}.jpg", "height": H, "width": W},
            "annotations": [{"segmentation": RLE}],
        }
        for i, name in enumerate("ab")
    },
    "results with names": {
        "i.json": [RESULT | {"category": "bird", "file_name": f"/x/{n}.jpg"} for n in "ab"]
    },
    "results with text as ids": {
        "i.json": [RESULT | {"image_id": n, "category_name": "bird"} for n in "ab"]
    },
    "results in lists": {
        "i.json": [BOXES | {"file_name": f"{n}.jpg", "masks": [SMALL, RLE]} for n in "ab"]
    },
    "lists by picture": {"i.json": {f"{n}.jpg": [{"label": "bird", "mask": RLE}] for n in "ab"}},
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_read(dialect: str) -> None:
    for path, content in DIALECTS[dialect].items():
        write(content, path)
    prepare.main(ARGUMENTS)
    assert min(overlaps()) > 0.96
    assert len(overlaps()) == 2


REASONS: dict[str, tuple[Any, str]] = {
    "absent": (
        {"images": [{"id": i, "file_name": n} for i, n in enumerate(("a.jpg", "c.jpg"))]},
        "is not among the 2 pictures of i.json, such as a.jpg",
    ),
    "without annotation": ({"annotations": coco()["annotations"][:1]}, "has no annotation in i.json"),
    "box": ({"segmentation": None, "bbox": [1, 1, 9, 9]}, "has no outline in i.json (annotation 11)"),
    "line": ({"segmentation": [[1, 2, 3, 4]]}, "has no outline, but points or lines in i.json"),
    "other category": (
        {"category_id": 2},
        'shows no bird in i.json, but object (1): --annotation_category "object" takes those',
    ),
    "odd polygon": (
        {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        "has an outline in i.json that cannot be used: annotation 11: a polygon of 7 numbers",
    ),
    "overflow": (
        {"segmentation": {"size": [96, 96], "counts": [4611686018427387904] * 4 + [9216]}},
        "annotation 11: run lengths that do not fill 96 x 96 pixels",
    ),
    "NaN score": ({"score": float("nan")}, "annotation 11: a score of nan"),
    "uncertain": ({"score": 0.5}, "shows a bird that is uncertain: score 0.50, expected 0.9"),
    "small": ({"segmentation": [[50, 50, 90, 50, 90, 90]]}, "shows a bird that is small: 780 pixels"),
    "cut off": ({"segmentation": [[0, 5, 150, 5, 150, 150, 0, 150]]}, "is cut off at the border"),
}  # fmt: skip


@pytest.mark.parametrize("case", REASONS)
def test_the_reason_is_that_of_the_photograph(case: str) -> None:
    changes, expected = REASONS[case]
    whole = {"images", "annotations"} & set(changes)
    write(coco() | changes if whole else coco(**changes))
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    assert expected in reason()
    assert overlaps()[0] > 0.96


def test_a_picture_of_another_shape_is_left_out_alone() -> None:
    content = coco()
    content["images"][1] |= {"height": W, "width": H}
    write(content)
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    assert "drawn on a picture of 160 x 200 pixels, but the photograph has 200 x 160" in reason()


def test_limits_and_names_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    write(coco(score=0.4, category_id=2, segmentation=[[50, 50, 90, 50, 90, 90]]))
    options = ["--skip_invalid", "--annotation_category", " Object"]
    prepare.main([*ARGUMENTS, *options, "--min_score", "0.4", "--min_area", "300"])
    assert [item.image_path[-5:] for item in load_detections("x").items] == ["b.jpg"]
    assert "shows no object in i.json, but bird (1)" in capsys.readouterr().out


def test_resized_copies_are_rescaled() -> None:
    photograph("b.jpg", (2 * W, 2 * H))
    write(coco())
    prepare.main(ARGUMENTS)
    large = decode_mask(load_detections("x")[1].mask)
    assert large.shape == (2 * H, 2 * W)
    assert ((large[::2, ::2] & MASK).sum() / (large[::2, ::2] | MASK).sum()) > 0.96


def test_corrected_annotations_replace_masks_but_not_those_of_people(capsys) -> None:
    write(coco(segmentation=[SQUARE]))
    prepare.main(ARGUMENTS)
    write(coco())
    prepare.main(ARGUMENTS)
    assert min(overlaps()) > 0.96
    assert "0 new masks with an object, 2 replaced" in capsys.readouterr().out
    mask = Path("datasets/x/masks/b.png")
    Image.fromarray((XX > 20) & (XX < 120) & (YY > 20) & (YY < 120)).save(mask)
    by_hand = mask.read_bytes()
    write(coco(score=0.99))
    prepare.main(ARGUMENTS)
    out = capsys.readouterr().out
    assert "1 replaced, 1 kept (--replace_masks makes them again)" in out
    assert mask.read_bytes() == by_hand
    prepare.main([*ARGUMENTS, "--replace_masks"])
    assert min(overlaps()) > 0.96


def test_an_object_is_never_replaced_by_nothing(capsys) -> None:
    write(coco())
    prepare.main(ARGUMENTS)
    before = Path("datasets/x/masks/b.png").read_bytes()
    write(coco(category_id=2))
    prepare.main([*ARGUMENTS, "--replace_masks"])
    assert Path("datasets/x/masks/b.png").read_bytes() == before
    assert "b.jpg shows no bird in i.json, but object (1)" in capsys.readouterr().out


def test_finished_masks_are_not_made_again(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    write(coco(category_id=2))
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    first = reason()

    def fail(*_: object) -> None:
        pytest.fail("a finished mask was made again")

    monkeypatch.setattr(masking, "write_made_mask", fail)
    capsys.readouterr()
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    assert reason() == first
    assert "1 finished before" in capsys.readouterr().out


def test_made_masks_are_known_until_somebody_changes_them() -> None:
    write(coco())
    detector = annotation_detector(Path("i.json"), open_collection("x").images, "bird")
    masking.write_masks(open_collection("x"), detector, masking.Limits())
    path = Path("datasets/x/masks/a.png")
    made = read_made_mask(path)
    assert made is not None
    assert made.origin.startswith(detector.origin)
    with Image.open(path) as picture:
        changed, info = np.array(picture), picture.info
    changed[0, 0] = 255
    texts = PngInfo()
    for key, value in info.items():
        texts.add_itxt(key, str(value))
    Image.fromarray(changed).save(path, pnginfo=texts)
    made = read_made_mask(path)
    assert made is not None
    assert not made.origin.startswith(detector.origin)
    path.write_bytes(b"damaged")
    assert read_made_mask(path) == made
    assert read_made_mask(Path("absent.png")) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.json", "[]", "no file of annotations, but a list. Expected COCO instances, labelme"),
        ("i.json", {"a": 1, "b": 2}, "no file of annotations, but an object with a, b"),
        ("i.json", "3", "no file of annotations, but a number"),
        ("i.json", "{", "not valid JSON"),
        ("i.json", '{"a":' * 100_000, "not valid JSON"),
        ("i.json", coco() | {"images": [{}]}, "no file of COCO instances (KeyError('id'))"),
        ("i.json", coco() | {"annotations": [{"segments_info": []}]}, "is a panoptic COCO file"),
        ("i.json", [{"id": 1, "annotations": [], "data": {}}], "Label Studio. Export it as COCO"),
        ("i.json", {"shapes": [{}]}, "no file of labelme (KeyError('label'))"),
        ("i.json", {"_via_settings": {}, "_via_img_metadata": {}}, "of VGG's annotator"),
        ("i.zip", "PK", "is an archive. Unpack it"),
        ("i.xml", "<annotations/>", ".xml files are not read. Export COCO instances"),
        ("i.json/notes.md", "", "i.json/ has no .json or .txt files"),
    ],
)
def test_other_files_are_named(name: str, content: Any, message: str, capsys) -> None:
    write(content, name)
    options = [*ARGUMENTS[:-1], name.partition("/")[0]]
    assert message in run(options, capsys)
    assert not Path("datasets/x/masks").exists()


def test_missing_files_name_what_is_expected(capsys) -> None:
    assert "i.json does not exist. Name a file or folder of COCO" in run(ARGUMENTS, capsys)


def test_one_source_of_masks_at_a_time(capsys) -> None:
    line = run([*ARGUMENTS, "--mask_rcnn", "w.pth"], capsys)
    assert "--annotations and --mask_rcnn: take one of them" in line


KEYS = ("images", "annotations", "categories")
JUNK = (None, 7, "x", [], {}, [None], [[]], [{}], {"id": None}, float("nan"), 10**40, True, -1)


@pytest.mark.parametrize("junk", range(len(JUNK)))
def test_junk_anywhere_is_one_line_or_a_reason(junk: int) -> None:
    def places() -> Any:
        for key in KEYS:
            yield (key,)
            yield (key, 0)
            yield from ((key, 0, inner) for inner in coco()[key][0])

    for place in places():
        content: Any = coco()
        inner = content
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = JUNK[junk]
        write(content)
        try:
            detector = annotation_detector(Path("i.json"), open_collection("x").images, "bird")
        except UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - refusing is one right answer
            continue
        for image in open_collection("x").images:
            try:
                detector.detect(image)
            except masking.NoObjectError as error:
                assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_the_reason_is_still_known_without_the_annotations(capsys) -> None:
    write(coco(category_id=2))
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    first = reason()
    prepare.main([*ARGUMENTS[:4], "--skip_invalid"])
    assert reason() == first


def test_a_damaged_file_of_a_folder_is_the_reason_of_one_photograph() -> None:
    write(labelme(), "i.json/a.json")
    write("{", "i.json/b.json")
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    assert "b.json: i.json/b.json is not valid JSON" in reason()
    write({"shapes": [{"label": "bird"}], "imagePath": "b.jpg"}, "i.json/b.json")
    prepare.main([*ARGUMENTS, "--skip_invalid"])
    assert "no file of labelme (KeyError('points')). Export it again." in reason()


def test_yolo_boxes_are_no_outlines() -> None:
    write("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2 0.9\nbird 1 2\n0 2 2 3 3 4 4\n", "l/a.txt")
    annotations = read_annotations(Path("l")).pictures["a"]
    assert [a.outline is None for a in annotations] == [True, True, True, False]
    assert [a.problem is None for a in annotations] == [True, True, False, False]
    assert annotations[0].category == "0"
