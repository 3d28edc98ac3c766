"""Writes a synthetic collection: photographs, masks, part maps, true poses and shapes."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.collection import collection_folder
from data.definitions import PART_NAMES
from data.labels.reading import LABEL_FILES
from data.synthetic.individuals import Template, load_templates
from data.synthetic.photographs import Photograph, Studio, pixel_bounds, take_photograph
from utils.cli import UserError
from utils.files import exclusive, write_json
from utils.progress import progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyntheticConfig:
    """Options of a synthetic collection; the parser holds their defaults."""

    dataset: str
    category: str
    num_images: int
    image_size: int
    seed: int


def make_collection(config: SyntheticConfig, edge_length: float = 0.05) -> Path:
    """Makes datasets/<name>/; the folder appears when it is complete.

    Args:
        config: what to make.
        edge_length: longest edge of the painted meshes relative to half the object's length.

    Returns:
        The folder.

    Raises:
        UserError: if the folder exists, or another process makes it.
    """
    folder = collection_folder(config.dataset)
    with new_folder(folder) as unfinished:
        _make_collection(config, edge_length, unfinished)
    logger.info("%s/: %d photographs of category %s", folder, config.num_images, config.category)
    return folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder that gets its name when it is complete, so that none is found half made.

    Raises:
        UserError: if the folder exists, or another process makes it.
    """
    with exclusive(folder.with_name(f".{folder.name}.lock"), f"{folder}/"):
        if folder.exists():
            raise UserError(f"{folder}/ exists already. Remove it or choose another --dataset.")
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        os.replace(unfinished, folder)


def _make_collection(config: SyntheticConfig, edge_length: float, folder: Path) -> None:
    for name in ("images", "masks", "parts"):
        (folder / name).mkdir()
    studio = open_studio(config, edge_length)
    taken = []
    for index in progress(range(config.num_images), description="photographs"):
        photograph = take_photograph(studio, index)
        _save_pictures(folder, _stem(index), photograph)
        taken.append(photograph._replace(image=np.empty(0), labels=None))
    _save_truth(folder, studio, taken)
    # Category and part names, as `data.prepare` reads them
    labels = {str(i): name for i, name in enumerate(studio.part_names, start=1)}
    record = {"category": config.category, "parts": labels, "images": config.num_images}
    write_json(folder / "parts.json", record | {"seed": config.seed})
    # Colors of painted objects, for GANs that are conditional on them
    colors = {_stem(i): photograph.paint for i, photograph in enumerate(taken) if photograph.paint}
    if colors:
        write_json(folder / LABEL_FILES[0], {"color": colors})


def open_studio(config: SyntheticConfig, edge_length: float) -> Studio:
    """Loads the templates of a category and lists what their photographs can show."""
    templates = load_templates(config.category, edge_length)
    parts = {name for template in templates for name in template.parts}
    # Keypoints must mean the same in all photographs
    keypoints = set.intersection(*[set(template.keypoints) for template in templates])
    return Studio(
        category=config.category,
        templates=templates,
        part_names=tuple(name for name in PART_NAMES if name in parts),
        keypoint_names=tuple(sorted(keypoints)),
        size=config.image_size,
        seed=config.seed,
    )


def _stem(index: int) -> str:
    return f"{index:05d}"


def _save_pictures(folder: Path, stem: str, photograph: Photograph) -> None:
    Image.fromarray(photograph.image).save(folder / "images" / f"{stem}.jpg", quality=92)
    mask = photograph.mask.astype(np.uint8) * 255
    Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    if photograph.labels is not None:
        Image.fromarray(photograph.labels).save(folder / "parts" / f"{stem}.png")


def _save_truth(folder: Path, studio: Studio, taken: list[Photograph]) -> None:
    # Camera and keypoints of every photograph, for evaluation only
    views = [photograph.view for photograph in taken]
    np.savez_compressed(
        folder / "ground_truth.npz",
        name=np.array([_stem(i) for i in range(len(taken))]),
        shape_id=np.arange(len(taken)),
        template=np.array([photograph.template for photograph in taken]),
        rotation=np.stack([view.rotation.numpy() for view in views]).astype(np.float32),
        scale_px=np.array([view.scale_px for view in views], np.float32),
        translation_px=np.stack([view.translation_px for view in views]).astype(np.float32),
        camera_distance=np.array([view.camera_distance for view in views], np.float32),
        keypoints=np.stack([photograph.keypoints for photograph in taken]),
        keypoint_names=np.array(studio.keypoint_names),
        keypoint_vertex=np.arange(len(studio.keypoint_names)),
        bbox=np.stack([pixel_bounds(photograph.mask) for photograph in taken]),
    )
    np.savez_compressed(
        folder / "shapes.npz",
        shape_id=np.arange(len(taken)),
        vertices=np.stack([_shape(studio, photograph) for photograph in taken]),
        faces=_joint_faces(studio),
    )


def _joint_faces(studio: Studio) -> NDArray[np.int64]:
    """Faces of all templates one after the other, behind the isolated vertices of the keypoints."""
    # One face list serves all templates, hence joint vertices
    start, pieces = len(studio.keypoint_names), []
    for template in studio.templates:
        pieces.append(template.coarse_faces + start)
        start += template.num_coarse
    return np.concatenate(pieces)


def _shape(studio: Studio, photograph: Photograph) -> NDArray[np.float32]:
    """Vertices for `_joint_faces`: keypoints, then templates; those not shown are collapsed to a point."""
    shown: Template = studio.templates[photograph.template]
    keypoints = [shown.keypoints[name] for name in studio.keypoint_names]
    pieces = [photograph.vertices[keypoints]]
    for template in studio.templates:
        point = photograph.vertices[:1].repeat(template.num_coarse, axis=0)
        pieces.append(photograph.vertices[: shown.num_coarse] if template is shown else point)
    return np.concatenate(pieces).astype(np.float32)
