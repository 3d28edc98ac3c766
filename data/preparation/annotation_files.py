"""Files of annotated objects, told apart by their content: COCO, labelme, YOLO, SAM, lists of results.

All become the same records, with outlines that are not decoded yet.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from data.preparation.outlines import MALFORMED, Size
from utils.cli import UserError
from utils.files import read_json, require_file

_REMEDY = "Export it again."
_KINDS = (
    "COCO instances, labelme, YOLO segmentation, SAM's lists of masks, or lists of results with "
    "segmentation, category and score"
)
_NAME_KEYS = ("file_name", "filename", "image_path", "imagePath", "image_name", "image", "path")
_CATEGORY_KEYS = ("category_name", "category", "class_name", "class", "label", "name")
_OUTLINE_KEYS = ("segmentation", "mask", "rle", "polygon", "points")
_CLASS_FILES = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels")
_NO_LABELS = (*_CLASS_FILES, "train.txt", "val.txt", "test.txt", "readme.txt")


class Annotation(NamedTuple):
    """An annotated or detected object.

    Attributes:
        record: where it stands in its file, for messages.
        category: its name in lower case; None where the tool knows none.
        score: confidence in [0, 1].
        outline: what `outlines.decode_outline` reads.
        size: height and width of the picture that was annotated; None if the file does not say it.
        crowd: whether it marks a crowd or any region, as COCO's "iscrowd" does.
        relative: whether points are fractions of width and height.
        problem: why it cannot be read; None if it can.
    """

    record: str
    category: str | None
    score: float = 1.0
    outline: Any = None
    size: Size | None = None
    crowd: bool = False
    relative: bool = False
    problem: str | None = None


@dataclass
class AnnotationSet:
    """What files say about pictures.

    Attributes:
        source: the file or folder.
        kinds: of its files.
        pictures: annotations by the path of the picture as the file spells it.
        strays: annotations that belong to no picture.
    """

    source: Path
    kinds: Counter[str] = field(default_factory=Counter)
    pictures: dict[str, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    strays: int = 0


def read_annotations(source: Path) -> AnnotationSet:
    """Reads a file of annotations, or a folder of files for one photograph each.

    Raises:
        UserError: if it is missing, or of no kind that is understood.
    """
    require_file(source, f"Name a file or folder of {_KINDS}.")
    found = AnnotationSet(source)
    if not source.is_dir():
        _read_file(source, source.name, found)
        return found
    # Each file of a folder stands for the photograph of the same name
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in (".json", ".txt") and path.name.lower() not in _NO_LABELS:
            name = path.relative_to(source).as_posix()
            try:
                _read_file(path, name, found)
            except UserError as error:  # the reason of one photograph
                found.pictures[name].append(Annotation(path.name, None, problem=str(error)))
    if not found.pictures:
        raise UserError(f"{source}/ has no .json or .txt files. Expected {_KINDS}.")
    if not found.kinds:
        raise UserError(next(iter(found.pictures.values()))[0].problem)
    return found


def _read_file(path: Path, name: str, found: AnnotationSet) -> None:
    """Adds the annotations of one file; its name stands for a picture that it does not name."""
    suffix = path.suffix.lower()
    # Formats that people try, with what to do instead
    if suffix in (".zip", ".tar", ".tgz", ".gz"):
        raise UserError(f"{path} is an archive. Unpack it, and name the folder.")
    if suffix in (".xml", ".csv", ".yaml", ".yml"):
        raise UserError(f"{path}: {suffix} files are not read. Export {_KINDS}.")
    if suffix == ".txt":
        _read_yolo(path, name, found)
        return
    content = read_json(path, _REMEDY)
    kind, read = _recognize(path, content)
    try:
        read(content, name, found)
    except MALFORMED as error:
        raise UserError(f"{path}: no file of {kind} ({error!r}). {_REMEDY}") from None
    found.kinds[kind] += 1


def _recognize(path: Path, content: Any) -> tuple[str, Callable[[Any, str, AnnotationSet], None]]:
    """Returns the kind of a JSON document and the function that reads it."""
    first = content[0] if isinstance(content, list) and content else None
    # Objects, by the keys that only their tools write
    if isinstance(content, dict):
        if "shapes" in content:
            return "labelme", _read_labelme
        if isinstance(content.get("annotations"), list):
            if any("segments_info" in entry for entry in _objects(content["annotations"])):
                raise UserError(f"{path} is a panoptic COCO file. Export COCO instances.")
            if isinstance(content.get("image"), dict):
                return "SAM's masks", _read_picture
            return "COCO instances", _read_coco
        if isinstance(content.get("masks"), list):
            return "results", _read_results
        if content and all(isinstance(value, list) for value in content.values()):
            return "lists by picture", _read_lists
        if "_via_img_metadata" in content or "_via_settings" in content:
            raise UserError(f"{path} is a project of VGG's annotator. Export it as COCO.")
    # Lists, by their first entry
    elif isinstance(first, dict):
        if isinstance(first.get("annotations", first.get("completions")), list) and "data" in first:
            raise UserError(f"{path} is a list of tasks of Label Studio. Export it as COCO.")
        if _name_in(first) or "image_id" in first:
            return "results", _read_results
        if any(key in first for key in _OUTLINE_KEYS):
            return "SAM's masks", _read_picture
    got = "a list" if isinstance(content, list) else "a number or text"
    if isinstance(content, dict):
        got = f"an object with {', '.join(list(content)[:5]) or 'nothing'}"
    raise UserError(f"{path}: no file of annotations, but {got}. Expected {_KINDS}. {_REMEDY}")


def _objects(entries: Any) -> list[dict]:
    """Returns those entries of a list that are objects."""
    return [entry for entry in entries if isinstance(entry, dict)]


def _read_coco(content: dict, name: str, found: AnnotationSet) -> None:
    names = _category_names(content.get("categories") or [])
    images = {_key(entry["id"]): entry for entry in _objects(content.get("images") or [])}
    for image in images.values():
        found.pictures[_name_in(image) or str(image["id"])]  # also those without annotation
    if "images" not in content:
        _add_results(content["annotations"], name, names, found)
        return
    # What refers to no image is counted, and else ignored
    for number, entry in enumerate(content["annotations"]):
        image = images.get(_key(entry.get("image_id"))) if isinstance(entry, dict) else None
        if image is None:
            found.strays += 1
            continue
        size = _size_in(image)
        annotation = _annotation(entry, number, names, size)
        found.pictures[_name_in(image) or str(image["id"])].append(annotation)


def _category_names(categories: Any) -> dict[Any, str]:
    """Returns the names of COCO's categories by their numbers; a list of names counts from 0."""
    if isinstance(categories, dict):
        return {_key(key): _word(value) for key, value in categories.items()}
    names = {}
    for number, entry in enumerate(categories):
        if isinstance(entry, dict):
            names[_key(entry["id"])] = _word(entry.get("name", entry["id"]))
        else:
            names[number] = _word(entry)
    return names


def _read_results(content: Any, name: str, found: AnnotationSet) -> None:
    _add_results(content if isinstance(content, list) else [content], name, {}, found)


def _add_results(
    entries: Iterable[Any], name: str, names: dict[Any, str], found: AnnotationSet
) -> None:
    """Adds entries that name their picture themselves; others belong to that of the file."""
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            found.strays += 1
            continue
        # A picture is named, numbered, or the one that the file stands for
        identity = entry.get("image_id")
        picture = _name_in(entry) or (name if identity is None else str(_key(identity)))
        for single in _split(entry):
            annotation = _annotation(single, number, names, _size_in(entry))
            found.pictures[picture].append(annotation)


def _split(entry: dict) -> Iterator[dict]:
    """Yields single objects of a detector's lists {"masks": [...], "labels": [...], "scores": [...]}."""
    if not isinstance(entry.get("masks"), list):
        yield entry
        return
    columns = {"segmentation": "masks", "score": "scores", "label": "labels"}
    lists = {key: entry[column] for key, column in columns.items() if entry.get(column)}
    # Columns of different length would pair masks with the wrong labels
    if len({len(values) for values in lists.values()}) > 1:
        raise ValueError("masks, labels and scores of different number")
    for values in zip(*lists.values(), strict=True):
        yield dict(zip(lists, values, strict=True))


def _read_picture(content: Any, name: str, found: AnnotationSet) -> None:
    """Reads the masks of one picture, a bare list or below a description of the picture."""
    image = content["image"] if isinstance(content, dict) else {}
    entries = content["annotations"] if isinstance(content, dict) else content
    size = _size_in(image)
    annotations = [_annotation(entry, number, {}, size) for number, entry in enumerate(entries)]
    found.pictures[_name_in(image) or name] += annotations


def _read_lists(content: dict, name: str, found: AnnotationSet) -> None:
    del name
    for picture, entries in content.items():
        for number, entry in enumerate(entries):
            for single in _split(entry):
                found.pictures[picture].append(_annotation(single, number, {}, _size_in(entry)))


def _read_labelme(content: dict, name: str, found: AnnotationSet) -> None:
    """Reads labelme's shapes; those of one group are one object."""
    size = _size_in({"height": content.get("imageHeight"), "width": content.get("imageWidth")})
    # Outlines by object, in the order of the file
    groups: dict[Any, list[Any]] = defaultdict(list)
    for number, shape in enumerate(content["shapes"]):
        label, group = _word(shape["label"]), shape.get("group_id")
        key = (label, "shape", number) if group is None else (label, "group", group)
        groups[key] += _labelme_outline(shape)
    annotations = []
    for (label, kind, number), outline in groups.items():
        pieces = outline[0] if len(outline) == 1 and isinstance(outline[0], dict) else outline
        annotations.append(Annotation(f"{kind} {number}", label, outline=pieces, size=size))
    # Its file lies beside the photograph, whose name may have changed since
    beside, given = name.removesuffix(".json"), content.get("imagePath")
    found.pictures[beside] += annotations
    if isinstance(given, str) and _stem(given) != _stem(beside):
        found.pictures[given] += annotations


def _labelme_outline(shape: dict) -> list[Any]:
    """Returns polygons or a mask of a shape; nothing for points and lines."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    # A mask is a small picture with its corner, all other kinds become polygons
    if kind == "mask":
        return [{"png": shape["mask"], "corner": points[0]}]
    if kind == "polygon":
        return [points]
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points[:2] if len(points) == 2 else (points[0], points[2])
        return [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]]
    if kind == "circle":
        (x, y), edge = points
        radius, angles = math.dist((x, y), edge), [k * math.pi / 32 for k in range(64)]
        return [[[x + radius * math.cos(a), y + radius * math.sin(a)] for a in angles]]
    return []


def _read_yolo(path: Path, name: str, found: AnnotationSet) -> None:
    """Reads lines of a class and the fractions x1 y1 x2 y2 ... of an outline."""
    names, annotations = _yolo_names(path), []
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        words, record = line.split(), f"line {number}"
        if not words:
            continue
        try:
            label, *values = [float(word) for word in words]
            category = names.get(int(label), str(int(label)))
        except (ValueError, OverflowError):
            annotations.append(Annotation(record, None, problem="a line of something else"))
            continue
        # Class and box are five numbers, six with a score, no outline; a score may also end outlines
        score = values.pop() if len(values) >= 7 and len(values) % 2 else 1.0
        outline = values if len(values) >= 6 else None
        valid = all(-0.1 <= value <= 1.1 for value in values) and 0 <= score <= 1
        problem = None if valid else "numbers that are no fractions of the picture"
        annotations.append(
            Annotation(record, category, score, outline, relative=True, problem=problem)
        )
    found.kinds["YOLO segmentation"] += 1
    found.pictures[Path(name).with_suffix("").as_posix()] += annotations


def _yolo_names(path: Path) -> dict[int, str]:
    """Returns the class names beside YOLO's labels: classes.txt, or the names of a .yaml file."""
    # The names lie beside the labels, or in one of the folders above
    for folder in [*path.resolve().parents][:4]:
        for listed in _CLASS_FILES:
            if (folder / listed).is_file():
                lines = (folder / listed).read_text("utf-8", "replace").splitlines()
                return {number: _word(line) for number, line in enumerate(lines) if line.strip()}
        for description in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            names = _names_of_yaml(description.read_text("utf-8", "replace"))
            if names:
                return names
    return {}


def _names_of_yaml(text: str) -> dict[int, str]:
    """Returns "names" of YOLO's description: a list in brackets, of dashes, or of numbers."""
    # As much of YAML as lists of names need, without a parser
    found = re.search(r"^names:[ \t]*(.*(?:\n(?:[ \t]+|- ).*)*)", text, re.MULTILINE)
    if found is None:
        return {}
    # By number, as newer versions write them, or in order
    numbered = re.findall(r"(\d+)\s*:\s*['\"]?([^'\",}\n#]+)", found[1])
    if numbered:
        return {int(number): _word(name) for number, name in numbered}
    listed = re.findall(r"['\"]?([^'\",\[\]\n#-][^'\",\[\]\n#]*)['\"]?", found[1])
    return dict(enumerate(_word(name) for name in listed if name.strip()))


def _annotation(entry: Any, number: int, names: dict[Any, str], size: Size | None) -> Annotation:
    """Returns the record of an entry; a malformed one says so when it is asked for."""
    try:
        record = f"annotation {entry.get('id', number)}"
        category = _category_in(entry, names)
        score = entry.get("score", entry.get("confidence"))
        score = 1.0 if score is None else float(score)
        if not 0 <= score <= 1:
            problem = f"a score of {score}"
            return Annotation(record, category, problem=problem)
        outline = next((entry[key] for key in _OUTLINE_KEYS if entry.get(key) is not None), None)
        crowd = bool(entry.get("iscrowd"))
        return Annotation(record, category, score, outline, size, crowd)
    except MALFORMED as error:
        return Annotation(f"annotation {number}", None, problem=repr(error))


def _category_in(entry: dict, names: dict[Any, str]) -> str | None:
    """Returns the name of an entry's category; its number if that has no name; None without any."""
    # The name behind its number comes first, then a name under any of the usual keys
    number = entry.get("category_id")
    if number is not None and _key(number) in names:
        return names[_key(number)]
    for key in _CATEGORY_KEYS:
        value = entry.get(key)
        if isinstance(value, dict):
            value = value.get("name")
        if value is not None:
            return names.get(_key(value), _word(value))
    return None if number is None else str(_key(number))


def _name_in(entry: dict) -> str | None:
    return next((entry[key] for key in _NAME_KEYS if isinstance(entry.get(key), str)), None)


def _size_in(entry: dict) -> Size | None:
    """Returns height and width as an entry states them; None if it does not, or without numbers."""
    try:
        height, width = int(entry["height"]), int(entry["width"])
    except MALFORMED:
        return None
    return (height, width) if min(height, width) > 0 else None


def _key(value: Any) -> Any:
    """Returns a number or name as other tools may spell it: 7, 7.0 and "7" are the same."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int | str) else repr(value)


def _word(value: Any) -> str:
    return str(value).strip().lower()


def _stem(name: str) -> str:
    return PurePosixPath(PureWindowsPath(name).name).stem
