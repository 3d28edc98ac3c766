"""Viewing directions of a collection, labeled by eye: for evaluation, never for training.

views.json holds `{"<image without suffix>": {"azimuth": 90, "sure": true}}`: the sector of 45 degrees
that the azimuth lies in, named by its middle; see `quaternion.from_view`.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.collection import collection_folder, image_stem
from data.detections import Detections
from geometry import quaternion
from utils.cli import UserError
from utils.files import read_json

SECTORS = (0, 45, 90, 135, 180, 225, 270, 315)
NEAR = 45.0  # degrees from the middle of the sector to the middle of the next
TURNED_ROUND = 135.0  # degrees beyond which front and back are confused

_REMEDY = "Correct it, or remove it: it serves evaluation only."


class ViewLabels(NamedTuple):
    """Labeled azimuths of the N detections.

    Attributes:
        azimuth: (N,) degrees, one of `SECTORS`; arbitrary where there is no label.
        known: (N,) bool, whether there is a label.
        sure: (N,) bool, whether the view is clearly inside its sector.
    """

    azimuth: Tensor
    known: Tensor
    sure: Tensor


def load_view_labels(detections: Detections) -> ViewLabels | None:
    """Reads views.json of a collection, matched by the names of the images.

    Args:
        detections: the objects whose views are wanted.

    Returns:
        The labels, or None if the collection has no such file.

    Raises:
        UserError: if the file is damaged or names none of the images.
    """
    path = collection_folder(detections.dataset) / "views.json"
    if not path.exists():
        return None
    content = read_json(path, _REMEDY)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object of image names. {_REMEDY}")
    stems = [image_stem(item.image_path, detections.dataset) for item in detections.items]
    rows = [_checked(content[stem], stem, str(path)) if stem in content else None for stem in stems]
    if not any(rows):
        raise UserError(f"{path}: names none of the {len(stems)} images of {detections.dataset}.")
    return ViewLabels(
        azimuth=torch.tensor([float(row[0]) if row else 0.0 for row in rows]),
        known=torch.tensor([row is not None for row in rows]),
        sure=torch.tensor([row is not None and row[1] for row in rows]),
    )


def _checked(entry: Any, stem: str, path: str) -> tuple[int, bool]:
    """Returns azimuth and certainty of one entry; UserError if it is malformed."""
    azimuth, sure = (
        (entry.get("azimuth"), entry.get("sure", True)) if isinstance(entry, dict) else (None, None)
    )
    if isinstance(azimuth, bool) or azimuth not in SECTORS or not isinstance(sure, bool):
        sectors = ", ".join(map(str, SECTORS))
        raise UserError(
            f'{path}: {stem}: expected {{"azimuth": <one of {sectors}>, "sure": true or false}}, '
            f"got {entry}. {_REMEDY}"
        )
    return azimuth, sure


def azimuth_error(rotation: Tensor, azimuth: Tensor) -> Tensor:
    """Returns how far (...), in [0, 180] degrees, the azimuths of rotations (..., 4) are off."""
    return ((quaternion.to_view(rotation)[0] - azimuth + 180) % 360 - 180).abs()


def view_report(
    rotation: Tensor, labels: ViewLabels, rows: Tensor | None = None
) -> dict[str, float | int | None]:
    """Compares estimated rotations with the labels.

    Args:
        rotation: (K, 4) unit quaternions.
        labels: of all N detections.
        rows: (K,) rows of the detections that were estimated; default all N.

    Returns:
        `images` compared, `share_near` of the azimuths within 45 degrees of the label,
        `share_sure_near` the same of the sure labels, `share_turned_round`, off by more than 135
        degrees; None where nothing could be compared.
    """
    rows = torch.arange(len(labels.known)) if rows is None else rows.cpu()
    degrees = azimuth_error(rotation.detach().cpu(), labels.azimuth[rows])
    known, sure = labels.known[rows], labels.sure[rows]
    return {
        "images": int(known.sum()),
        "share_near": _mean(degrees[known] <= NEAR),
        "share_sure_near": _mean(degrees[sure] <= NEAR),
        "share_turned_round": _mean(degrees[known] > TURNED_ROUND),
    }


def _mean(hits: Tensor) -> float | None:
    value = hits.double().mean().item()
    return None if math.isnan(value) else value
