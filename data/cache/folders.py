"""Where the artifacts of a dataset lie below cache/, and what its preparation has recorded of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.definitions import (
    DATASETS,
    ViewPrior,
    check_views,
    check_word,
    expand_dataset,
    usual_views,
)
from utils.cli import UserError
from utils.digests import check_json, json_with_digest
from utils.files import read_json, write_bytes

CACHE_FOLDER = Path("cache")
# Entries of a record for people and other programs
FACTS = ("num_images", "min_area", "part_frequencies", "left_out", "findings", "fingerprint")


class Record(NamedTuple):
    """What all stages have to know of a dataset.

    Attributes:
        category: what its photographs show.
        views: prior of the views in which they show it.
        template_of: the category whose templates are used, its own unless borrowed.
    """

    category: str
    views: ViewPrior
    template_of: str


def cache_folder(dataset: str) -> Path:
    """Returns the folder of a dataset's artifacts."""
    return CACHE_FOLDER / dataset


def prepare_command(dataset: str, category: str = "<category>") -> str:
    """Returns the command that makes the detections of a dataset."""
    option = "" if dataset in DATASETS else f" --category {category}"
    return f"python -m data.prepare --dataset {dataset}{option}"


def collection_path(dataset: str) -> Path:
    """Returns the path of the record of a prepared collection."""
    return cache_folder(dataset) / "collection.json"


def category_of(dataset: str) -> str:
    """Returns the category of a dataset, known by name or recorded by its preparation."""
    return record_of(dataset).category


def record_of(dataset: str, category: str | None = None) -> Record:
    """Returns the record of a dataset; what it does not say is as usual for the category.

    Args:
        dataset: its name.
        category: what its detections say; for a dataset that was never recorded.

    Raises:
        UserError: if the dataset is unknown, or its record damaged.
    """
    if len(expand_dataset(dataset)) > 1:
        count = len(expand_dataset(dataset))
        raise UserError(
            f"--dataset {dataset} stands for {count} datasets, but this needs a single one."
        )
    path = collection_path(dataset)
    category = category or DATASETS.get(dataset)
    if not path.exists() and category is not None:
        return Record(category, usual_views(category), category)
    content = _read_record(dataset)
    category = check_word(content.get("category"), str(path), "category")
    views = content.get("views")
    return Record(
        category,
        usual_views(category) if views is None else check_views(views, f"{path}: views"),
        check_word(content.get("template_of", category), str(path), "category"),
    )


def fingerprint_of(dataset: str) -> str:
    """Returns the fingerprint of a dataset's detections, as its record tells.

    Raises:
        UserError: if the record is missing or damaged, or older than fingerprints.
    """
    fingerprint = _read_record(dataset).get("fingerprint")
    if not isinstance(fingerprint, str):
        raise UserError(f"{collection_path(dataset)}: has no fingerprint. Prepare {dataset} again.")
    return fingerprint


def write_record(dataset: str, record: Record, **facts: Any) -> None:
    """Writes the record of a dataset.

    Args:
        dataset: its name.
        record: what the stages have to know.
        facts: other entries, of `FACTS`.
    """
    content = {"dataset": dataset, **record._asdict(), **facts}
    write_bytes(collection_path(dataset), json_with_digest(content, indent=2))


def _read_record(dataset: str) -> dict[str, Any]:
    path = collection_path(dataset)
    remedy = (
        f"Put photographs into datasets/{dataset}/images/ and masks into datasets/{dataset}/masks/, "
        f"then prepare them with: {prepare_command(dataset)}"
    )
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object. {remedy}")
    # Records of before digests have known entries alone, so a damaged digest is none of them
    if content.keys() - {"dataset", *Record._fields, *FACTS}:
        try:
            check_json(path.read_bytes(), content)
        except ValueError as error:
            command = prepare_command(dataset)
            raise UserError(f"{path} is damaged ({error}). Prepare again with: {command}") from None
    return content


def class_names(dataset: str) -> list[str]:
    """Returns the categories of those datasets that --dataset stands for; of unknown ones their names."""
    # The names of default datasets tell their categories; others are recorded
    names = expand_dataset(dataset)
    known = [name in DATASETS or collection_path(name).exists() for name in names]
    return [category_of(n) if k else n for n, k in zip(names, known, strict=True)]


def class_label(dataset: str, name: str, categories: Sequence[str] | None = None) -> int:
    """Returns the position, among those that --dataset stands for, of a dataset or of its category.

    Args:
        dataset: the datasets.
        name: of one of them, or of a category.
        categories: of the datasets; by default what cache/ says.

    Raises:
        UserError: if none has that name, or several are of that category.
    """
    # The name of a dataset is unique
    datasets = expand_dataset(dataset)
    if name in datasets:
        return datasets.index(name)
    categories = [category_of(each) for each in datasets] if categories is None else categories
    if categories.count(name) != 1:
        choices = dict.fromkeys([*categories, *datasets])
        raise UserError(f"--filter_class {name}: expected one of {', '.join(choices)}.")
    return categories.index(name)
