"""Renderings in ShapeNet's layout: <class>/<model>/render_*.png and lists of models beside the class.

A rendering is a PNG whose transparency is the mask. camera_*.mat or camera_*.json, with the same words
after the first underscore, and model.obj serve evaluation only.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data.image_files import has_alpha
from utils.cli import UserError

LISTS = (".train", ".valid")
PARTS = ("train", "valid")
CLASSES = {"02691156": "airplane", "02958343": "car", "03001627": "chair"}  # ids of ShapeNet
LEAST_VIEWS = 2
_SHAPES = ("model.obj", "models/model_normalized.obj")

logger = logging.getLogger(__name__)


class View(NamedTuple):
    """A rendering, and the file of its camera if there is one."""

    image: Path
    camera: Path | None


class Model(NamedTuple):
    """An object that was rendered.

    Attributes:
        name: of its folder.
        part: "train" or "valid", which is held out.
        views: its renderings, in the order of their names.
        shape: file of its mesh, if there is one.
    """

    name: str
    part: str
    views: tuple[View, ...]
    shape: Path | None


def is_layout(folder: Path) -> bool:
    """Returns whether a folder has renderings in this layout."""
    return next(_renderings(folder), None) is not None


def _renderings(folder: Path) -> Iterator[Path]:
    found = folder.glob("*/*/render*.png")
    return (path for path in found if not path.parent.parent.name.startswith("."))


def find_class(folder: Path, category: str | None) -> tuple[Path, str]:
    """Returns the folder of a class, and what it shows.

    Args:
        folder: has a folder for each class, named by its category or its id in ShapeNet.
        category: what is wanted; None where there is only one class.

    Raises:
        UserError: if there are several classes and none is of the category.
    """
    classes = sorted({path.parent.parent for path in _renderings(folder)})
    named = {CLASSES.get(path.name, path.name): path for path in classes}
    if category is None and len(classes) == 1:
        return classes[0], next(iter(named))
    # A single class may be called what one likes
    if category is not None and (category in named or len(classes) == 1):
        return named.get(category, classes[0]), category
    listed = ", ".join(named)
    raise UserError(f"{folder}/ has renderings of {listed}: say by --category which are wanted.")


def read_class(folder: Path) -> list[Model]:
    """Lists the models of a class, those for training first.

    Raises:
        UserError: if a list is missing or names a model that is not there, a model has too few
            renderings, or a rendering is not transparent anywhere.
    """
    named = {part: _read_list(folder, suffix) for part, suffix in zip(PARTS, LISTS, strict=True)}
    both = sorted(set(named["train"]) & set(named["valid"]))
    if both:
        raise UserError(
            f"{folder}.train and {folder}.valid: both name {both[0]}. What is held out must not be "
            "trained on."
        )
    models = [_read_model(folder / name, part) for part, names in named.items() for name in names]
    poor = [model for model in models if len(model.views) < LEAST_VIEWS]
    if poor:
        raise UserError(
            f"{folder / poor[0].name}/: {len(poor[0].views)} render_*.png, as in {len(poor)} of "
            f"{len(models)} models; expected at least {LEAST_VIEWS} views of each."
        )
    for view in (view for model in models for view in model.views):
        if not has_alpha(view.image):
            raise UserError(
                f"{view.image}: has no transparency, which is the mask of a rendering. Render with a "
                "transparent background."
            )
    present = {path.name for path in folder.iterdir() if path.is_dir()}
    if unlisted := present - {model.name for model in models}:
        logger.warning("%s/: %d models are in no list, and left out", folder, len(unlisted))
    return models


def _read_list(folder: Path, suffix: str) -> list[str]:
    """Returns the names of models in the list of a class; paths before them are left out."""
    path = folder.with_name(folder.name + suffix)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. Write the names of the models in {folder}/ to {folder.name}.train, "
            f"and of those that are held out to {folder.name}.valid beside it, one on each line."
        )
    words = path.read_text(encoding="utf-8", errors="replace").split()
    names = list(dict.fromkeys(Path(word).name for word in words))
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise UserError(f"{path}: {missing[0]} is no folder in {folder}/. Correct the list.")
    if not names:
        raise UserError(f"{path}: names no model. Write one on each line.")
    return names


def _read_model(folder: Path, part: str) -> Model:
    images = sorted(folder.glob("render*.png"))
    views = tuple(View(image, _camera_of(image)) for image in images)
    shape = next((folder / name for name in _SHAPES if (folder / name).is_file()), None)
    return Model(folder.name, part, views, shape)


def _camera_of(image: Path) -> Path | None:
    name = image.stem.replace("render", "camera", 1)
    found = (image.with_name(name + suffix) for suffix in (".mat", ".json"))
    return next((path for path in found if path.is_file()), None)
