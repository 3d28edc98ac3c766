"""Which photographs are trained on, and which are kept for evaluation.

By photograph, every fifth one is `test`. By individual (--instances), the last fifth of the individuals is,
in the order of their names or numbers, so that none of them is trained on: 3 of 16, 2 of 8, at least one.
Of all other photographs every tenth is `val`, the rest `train`. The rules count all photographs of a collection, in
the order of their paths, whether they have a pose or not, so that no photograph ever changes its part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.collection import image_stem
from data.definitions import expand_dataset
from data.detections import Detections
from data.labels import individuals
from utils.cli import UserError

SPLITS = ("all", "train", "val", "test")
TEST_SHARE = 0.2  # of the individuals
TEST_EVERY, VAL_EVERY = 5, 10  # photographs; number 4 of 5, number 8 of 10


@dataclass(frozen=True)
class SplitOptions:
    """A part of each collection.

    Attributes:
        split: one of `SPLITS`.
        instances: whether test photographs show other individuals, rather than just being others.
    """

    split: str = "all"
    instances: bool = False

    def __str__(self) -> str:
        return self.split + (" by individual" if self.instances and self.split != "all" else "")


def part_of(detections: Detections, options: SplitOptions) -> Tensor:
    """Returns which detections (N,) belong to a part.

    Raises:
        UserError: if the split is by individual, and these are not known, or just one.
    """
    if options.split == "all":
        return torch.ones(len(detections), dtype=torch.bool)
    # Objects in the same photograph stay together
    paths = [item.image_path for item in detections.items]
    number_of = {path: number for number, path in enumerate(sorted(set(paths)))}
    number = torch.tensor([number_of[path] for path in paths])
    test = number % TEST_EVERY == TEST_EVERY - 1
    if options.instances:
        test = _shows_last_individuals(detections)
    val = ~test & (number % VAL_EVERY == VAL_EVERY - 2)
    return {"train": ~test & ~val, "val": val, "test": test}[options.split]


def trained_on(detections: Detections, args: Mapping[str, Any]) -> Tensor | None:
    """Returns which detections (N,) a model has been trained on, if they had a pose; None if unknown.

    Args:
        detections: of a collection.
        args: options of the run that trained it; none are known of published models.
    """
    # Runs of earlier versions were trained on everything
    dataset, split = args.get("dataset"), args.get("split", "all")
    if not isinstance(dataset, str) or split not in SPLITS:
        return None
    if detections.dataset not in expand_dataset(dataset):
        return torch.zeros(len(detections), dtype=torch.bool)
    try:
        return part_of(detections, SplitOptions(split, bool(args.get("instances"))))
    except UserError:  # what told the individuals apart is no longer there
        return None


def _shows_last_individuals(detections: Detections) -> Tensor:
    shown = _individuals(detections)
    names = sorted(set(shown))
    if len(names) < 2:
        raise UserError(
            f"--instances: all photographs of {detections.dataset} show the same individual, so that "
            "none is left for the test. Omit --instances."
        )
    last = names[-max(1, round(TEST_SHARE * len(names))) :]
    return torch.tensor([individual in last for individual in shown])


def _individuals(detections: Detections) -> Sequence[str | int]:
    """Returns the individual (N) that each detection shows; UserError unless all are known."""
    found = individuals.individuals_of(detections)
    # All of them, since one that is left out could be any individual
    missing = [item for item, name in zip(detections.items, found, strict=True) if name is None]
    if missing:
        count = f"{len(missing)} of {len(found)} photographs of {detections.dataset}"
        raise UserError(
            f"--instances: the individual in {count} is not known, such as "
            f"{image_stem(missing[0].image_path, detections.dataset)}. "
            f'Write {individuals.path_of(detections.dataset)}: {{"<image without suffix>": "<individual>", '
            "...}. Or omit --instances."
        )
    return [name for name in found if name is not None]
