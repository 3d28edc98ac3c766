"""Arranges renderings in ShapeNet's layout as a collection.

The collection has images/<model>/render_*.png, links to the renderings, views.json, which says what
shows which object, and for evaluation ground_truth.npz (cameras) and true_points.npz (shapes).
"""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.cache.storage import save_arrays
from data.collection import collection_folder
from data.image_files import photograph_size
from data.multiview import cameras
from data.multiview.layout import Model, View, find_class, is_layout, read_class
from data.multiview.objects import Entry, points_path, write_entries
from geometry.distances import surface_points
from geometry.mesh_files import load_mesh
from utils.cli import UserError
from utils.files import write_json
from utils.progress import progress

logger = logging.getLogger(__name__)


def arrange(dataset: str, sources: Sequence[Path], category: str | None) -> bool:
    """Makes images/ and views.json of a collection, unless there are images.

    Args:
        dataset: name of the collection.
        sources: folders with renderings; without, they are looked for in the collection itself.
        category: what is wanted, where there are several classes.

    Returns:
        Whether anything was arranged.

    Raises:
        UserError: if a source has no renderings, or they are not laid out as they should be.
    """
    root = collection_folder(dataset)
    if (root / "images").exists():
        return False
    for source in sources:
        if not is_layout(source):
            raise UserError(f"--source {source}: has no renderings <class>/<model>/render_*.png.")
    source = sources[0] if sources else root
    if not is_layout(source):
        return False
    folder, category = find_class(source, category)
    models = read_class(folder)
    _save_cameras(root, models)
    _save_shapes(root, models)
    write_entries(dataset, [_entry(model) for model in models])
    if not (root / "collection.json").exists():
        write_json(root / "collection.json", {"category": category})
    _link(root, models)
    count = sum(model.part == "train" for model in models)
    logger.info("%s/: %d objects, %d of them for training", root, len(models), count)
    return True


def _stem(model: Model, view: View) -> str:
    return f"{model.name}/{view.image.stem}"


def _entry(model: Model) -> Entry:
    return Entry(model.name, model.part, [_stem(model, view) for view in model.views])


def _link(root: Path, models: Sequence[Model]) -> None:
    """Makes images/, last of all: where it is, everything is complete."""
    unfinished = root / ".images.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    for model in models:
        (unfinished / model.name).mkdir(parents=True)
        for view in model.views:
            link = unfinished / model.name / view.image.name
            # Links within the collection are relative, so that it can be moved
            inside = view.image.is_relative_to(root)
            target = (
                Path(os.path.relpath(view.image, link.parent)) if inside else view.image.resolve()
            )
            link.symlink_to(target)
    os.replace(unfinished, root / "images")


def _save_cameras(root: Path, models: Sequence[Model]) -> None:
    """Writes ground_truth.npz where every rendering has a camera."""
    rows = [(n, model, view) for n, model in enumerate(models) for view in model.views]
    paths = [view.camera for _, _, view in rows if view.camera is not None]
    if len(paths) < len(rows):
        if paths:
            text = "%s/: only %d of %d renderings have a camera, so that poses are not measured"
            logger.warning(text, root, len(paths), len(rows))
        return
    positions = cameras.read_positions(paths)
    distance = np.linalg.norm(positions, axis=1)
    width = np.array([photograph_size(view.image)[1] for _, _, view in rows])
    columns = {
        "name": np.array([_stem(model, view) for _, model, view in rows]),
        "rotation": cameras.rotations(positions).numpy().astype(np.float32),
        "scale_px": (cameras.screen_scale(distance) * width / 2).astype(np.float32),
        "translation_px": np.repeat(width[:, None] / 2, 2, axis=1).astype(np.float32),
        "camera_distance": distance.astype(np.float32),
        "shape_id": np.array([number for number, _, _ in rows]),
    }
    save_arrays(root / "ground_truth.npz", columns)


def _save_shapes(root: Path, models: Sequence[Model]) -> None:
    """Writes points on the surfaces of those models that have a mesh; nothing if none has."""
    shapes = {model.name: model.shape for model in models if model.shape is not None}
    if not shapes:
        return
    points = []
    for path in progress(shapes.values(), description="true shapes"):
        points.append(surface_points(*load_mesh(path, up="y", front="-z")).astype(np.float32))
    columns = {"name": np.array(list(shapes)), "points": np.stack(points)}
    save_arrays(points_path(root.name), columns)
