"""Where the artifacts of a dataset lie below cache/, and which category it is of."""

from pathlib import Path

from data.definitions import CATEGORIES, DATASETS
from utils.cli import UserError
from utils.files import read_json

CACHE_FOLDER = Path("cache")


def cache_folder(dataset: str) -> Path:
    """Returns the folder of a dataset's artifacts."""
    return CACHE_FOLDER / dataset


def prepare_command(dataset: str) -> str:
    """Returns the command that makes the detections of a dataset."""
    category = "" if dataset in DATASETS else " --category <category>"
    return f"python -m data.prepare --dataset {dataset}{category}"


def collection_path(dataset: str) -> Path:
    """Returns the path of the record of a prepared collection."""
    return cache_folder(dataset) / "collection.json"


def category_of(dataset: str) -> str:
    """Returns the category of a dataset, known by name or recorded by its preparation."""
    if dataset == "all":
        raise UserError("--dataset all stands for 13 datasets, but this needs a single one.")
    path = collection_path(dataset)
    if not path.exists() and dataset in DATASETS:
        return DATASETS[dataset]
    remedy = (
        f"Put photographs into datasets/{dataset}/images/ and masks into datasets/{dataset}/masks/, "
        f"then prepare them with: {prepare_command(dataset)}"
    )
    record = read_json(path, remedy)
    category = record.get("category") if isinstance(record, dict) else None
    if category not in CATEGORIES:
        raise UserError(f"{path}: unknown category {category!r}. {remedy}")
    return category
