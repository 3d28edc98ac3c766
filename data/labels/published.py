"""Labels that official data sets come with, brought into the form of a collection's own."""

import csv
from pathlib import Path

from data.labels.reading import LABEL_FILES
from utils.cli import UserError
from utils.files import atomic_path

# Columns of the table of convmesh (https://github.com/dariopavllo/convmesh), and what they are to us
CAR_SETS = {"filename": "image", "shape": "shape", "primary": "color"}


def copy_car_labels(table: Path, root: Path) -> None:
    """Writes labels.csv of Pascal3D+ cars, 11 body shapes and 11 colors, unless there are labels.

    Args:
        table: p3d_labels.csv of convmesh, whose other columns (second color, validity) are left out.
        root: folder of the collection.

    Raises:
        UserError: if the table cannot be read or lacks a column.
    """
    if any((root / file).exists() for file in LABEL_FILES):
        return
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        cells = [[row[column].strip() for column in CAR_SETS] for row in rows]
    except (csv.Error, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{table}: cannot be read as a table of {', '.join(CAR_SETS)} ({error!r:.80}). "
            "Get it again from convmesh, or remove it."
        ) from None
    with atomic_path(root / LABEL_FILES[1]) as path, open(path, "w", newline="") as file:
        csv.writer(file).writerows([list(CAR_SETS.values()), *cells])
