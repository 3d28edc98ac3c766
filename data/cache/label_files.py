"""Labels of a dataset's photographs: cache/<dataset>/labels.json, as the preparation has found them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.cache.folders import cache_folder, prepare_command
from utils.cli import UserError
from utils.digests import check_json, json_with_digest
from utils.files import read_json, write_bytes


class Labels(NamedTuple):
    """Labels of K photographs from S sets.

    Attributes:
        names: the labels of each set, in the order of their numbers.
        values: (K, S) int64 numbers of labels.
    """

    names: dict[str, list[str]]
    values: Tensor


def labels_path(dataset: str) -> Path:
    """Returns the path of the labels of a dataset."""
    return cache_folder(dataset) / "labels.json"


def save_labels(dataset: str, sets: Mapping[str, Mapping[str, str]]) -> None:
    """Writes labels by set and photograph; without sets, removes those of an earlier preparation."""
    if sets:
        write_bytes(labels_path(dataset), json_with_digest({"sets": sets}, indent=1))
    else:
        labels_path(dataset).unlink(missing_ok=True)


def load_labels(
    dataset: str,
    sets: Sequence[str],
    photographs: Sequence[str],
    known: Mapping[str, list[str]] | None = None,
) -> Labels:
    """Reads labels of a dataset.

    Args:
        dataset: its name.
        sets: S names of sets.
        photographs: K paths.
        known: labels of each set that a model has; by default all those of the dataset, sorted.

    Raises:
        UserError: if the file is missing or damaged, lacks a set, or a photograph lacks a label or has
            one that is not known.
    """
    path, content = labels_path(dataset), _read(dataset)
    names, columns = {}, []
    for name in sets:
        if name not in content:
            raise UserError(f"{path}: {name} is none of its label sets: {', '.join(content)}.")
        found = content[name]
        missing = [photograph for photograph in photographs if photograph not in found]
        if missing:
            raise UserError(
                f"{path}: {len(missing)} of {len(photographs)} photographs have no label of {name}, "
                f"such as {missing[0]}. Label them, or leave them out, and prepare {dataset} again."
            )
        names[name] = sorted(set(found.values())) if known is None else known[name]
        numbers = {label: i for i, label in enumerate(names[name])}
        unknown = sorted({found[photograph] for photograph in photographs} - numbers.keys())
        if unknown:
            raise UserError(f"{path}: the model knows no {name} {unknown[0]}.")
        columns.append([numbers[found[photograph]] for photograph in photographs])
    return Labels(names, torch.tensor(columns, dtype=torch.int64).T.contiguous())


def check_labels(path: Path, content: Any, count: int) -> Labels:
    """Returns the labels of `count` photographs that a model file holds; UserError if damaged."""
    try:
        names, values = content["names"], content["values"]
        sizes = torch.tensor([len(labels) for labels in names.values()])
        words = all(isinstance(x, str) for labels in names.values() for x in labels)
        intact = values.shape == (count, len(sizes)) and values.dtype == torch.int64 and words
        intact = intact and bool(((values >= 0) & (values < sizes)).all())
    except (KeyError, TypeError, AttributeError, RuntimeError):
        intact = False
    if not intact:
        raise UserError(f"{path}: its labels are damaged. Replace it by an intact copy.")
    return Labels(dict(content["names"]), content["values"])


def rows_with(labels: Labels, wanted: str) -> list[int]:
    """Returns the photographs that have all of some labels.

    Args:
        labels: of the photographs.
        wanted: names of labels with commas between, such as `robin` or `robin,red`; `color=red` names
            the set too, where two sets have the same label.

    Raises:
        UserError: if a label is unknown or in several sets, or no photograph has them all.
    """
    chosen = torch.ones(len(labels.values), dtype=torch.bool)
    for word in wanted.split(","):
        label_set, equals, label = word.rpartition("=")
        columns = [
            (i, names.index(label))
            for i, (name, names) in enumerate(labels.names.items())
            if label in names and (not equals or name == label_set)
        ]
        if len(columns) != 1:
            choices = [f"{name}={x}" for name, names in labels.names.items() for x in names]
            more = f" and {len(choices) - 20} more" if len(choices) > 20 else ""
            raise UserError(
                f"--filter_class {word}: expected one label of {', '.join(choices[:20])}{more}."
            )
        column, number = columns[0]
        chosen &= labels.values[:, column] == number
    rows = chosen.nonzero().flatten().tolist()
    if not rows:
        raise UserError(f"--filter_class {wanted}: no photograph has these labels together.")
    return rows


def _read(dataset: str) -> dict[str, dict[str, str]]:
    path = labels_path(dataset)
    command = prepare_command(dataset)
    content = read_json(
        path,
        f"Write datasets/{dataset}/labels.json or labels.csv, then prepare again with: {command}",
    )
    sets: dict[str, dict[str, str]] = {}
    try:
        check_json(path.read_bytes(), content)
        sets = content["sets"]
        intact = all(isinstance(x, str) for labels in sets.values() for x in labels.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise UserError(f"{path} is damaged. Prepare again with: {command}")
    return sets
