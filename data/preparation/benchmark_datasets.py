"""Arranges official data sets as collections: CUB, Pascal3D+ and ImageNet, as they are distributed.

Photographs are linked, not copied. Masks, keypoints and cameras come from the annotations of CMR
(https://github.com/akanazawa/cmr), the latter two for evaluation only.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from data.cache.storage import check_numbers, save_arrays
from data.collection import DATASETS_FOLDER, collection_folder
from data.definitions import DATASETS, SYNSETS
from data.image_files import SUFFIXES, read_mask
from data.labels.published import copy_car_labels
from data.mask_styles import Rule
from data.preparation.archives import extract, is_archive
from data.preparation.matlab import read_structures
from geometry import quaternion
from utils.cli import UserError
from utils.progress import progress

logger = logging.getLogger(__name__)

_P3D_CLASSES = {"p3d_car": "car", "p3d_airplane": "aeroplane"}
_REMEDY = "Get the annotations of CMR again, all from the same source."
_ROUNDING = 1e-3  # of the entries of rotation matrices
_ONE_BASED = 0.5  # the center of MATLAB's first pixel is 1, of ours 0.5


class Photo(NamedTuple):
    """A photograph of an official data set.

    Attributes:
        path: of the file.
        name: path of the photograph below images/ of the collection.
        mask: (h, w) bool, or None.
        truth: entries of ground_truth.npz; empty without annotations.
    """

    path: Path
    name: Path
    mask: np.ndarray | None = None
    truth: dict[str, Any] = {}  # noqa: RUF012 - never changed


def is_official(dataset: str) -> bool:
    """Returns whether a data set is one of those that this module arranges."""
    return dataset in DATASETS


def sources_of(dataset: str, given: Sequence[Path]) -> list[Path]:
    """Returns the folders to look in; archives among the given ones are unpacked beside images/.

    Raises:
        UserError: if a given source does not exist, or an archive cannot be unpacked safely.
    """
    folders = []
    for path in given:
        if not path.exists():
            raise UserError(f"--source {path} does not exist. Name a folder or an archive.")
        folders.append(_unpacked(path, dataset) if is_archive(path) else path)
    family = dataset.partition("_")[0]  # cub, p3d or imagenet
    return list(dict.fromkeys([*folders, collection_folder(dataset), DATASETS_FOLDER / family]))


def _unpacked(archive: Path, dataset: str) -> Path:
    folder = collection_folder(dataset) / "archives" / archive.name.partition(".")[0]
    if not folder.exists():
        logger.info("unpacking %s", archive)
        extract(archive, folder)
    return folder


def arrange(dataset: str, given: Sequence[Path]) -> bool:
    """Makes images/, masks/, ground_truth.npz and labels of an official data set, unless there are images.

    Args:
        dataset: cub, p3d_car, p3d_airplane or imagenet_<category>.
        given: folders and archives to look in, before datasets/<dataset>/ and datasets/<family>/.

    Returns:
        Whether anything was arranged.

    Raises:
        UserError: if the photographs cannot be found, or the annotations do not fit them.
    """
    root = collection_folder(dataset)
    if (root / "images").exists():
        return False
    sources = sources_of(dataset, given)
    photos = list(_photos(dataset, sources))
    if not photos:
        places = ", ".join(f"{path}/" for path in sources)
        raise UserError(f"{dataset}: none of {places} has its photographs. {_ADVICE[dataset[:3]]}")
    # Under a hidden name until all is done, so that images/ is complete or absent
    unfinished = root / ".images.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    for photo in progress(photos, description=f"arranging {dataset}"):
        link = unfinished / photo.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(photo.path.resolve())
        if photo.mask is not None:
            mask = root / "masks" / photo.name.with_suffix(".png")
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo.mask).save(mask)
    _save_truth(root, photos)
    table = _find(sources, "p3d_labels.csv") if dataset == "p3d_car" else None
    if table is not None:
        copy_car_labels(table, root)
    os.replace(unfinished, root / "images")
    logger.info("%s/: %d photographs", root, len(photos))
    return True


_ADVICE = {
    "cub": "Add --source with CUB_200_2011.tgz or its folder, and the annotations of CMR.",
    "p3d": "Add --source with PASCAL3D+_release1.1.zip or its folder, and the annotations of CMR.",
    "ima": "Add --source with the folder of ImageNet's synsets, such as n02391049.tar.",
}


def _photos(dataset: str, sources: Sequence[Path]) -> Iterator[Photo]:
    if dataset in _P3D_CLASSES:
        name = _P3D_CLASSES[dataset]
        images = _find(sources, "PASCAL3D+_release1.1/Images", "Images")
        annotations = (
            _find(sources, f"data/{name}_train.mat"),
            _find(sources, f"sfm/{name}_train.mat"),
        )
        if images is not None:
            wanted = _annotated(images, *annotations) or _plain(images / f"{name}_imagenet", images)
            # Only its photographs from ImageNet, as in the publications
            yield from (photo for photo in wanted if "_imagenet" in str(photo.name))
    elif dataset == "cub":
        images = _find(sources, "CUB_200_2011/images")
        annotations = (
            _find(sources, "data/train_cub_cleaned.mat"),
            _find(sources, "sfm/anno_train.mat"),
        )
        if images is not None:
            # Masks of CMR where they are at hand, else those of the data set
            segmentations = _find(sources, "segmentations", "CUB_200_2011/segmentations")
            plain = (_with_segmentation(p, segmentations) for p in _plain(images, images))
            yield from _annotated(images, *annotations) or plain
    else:
        yield from _imagenet(dataset, sources)


def _find(sources: Sequence[Path], *places: str) -> Path | None:
    """Returns the first of some places that exists in a source or in a folder of it."""
    for source in sources:
        for place in places:
            found = [source / place, *sorted(source.glob(f"*/{place}"))]
            for path in found:
                if path.exists():
                    return path
    return None


def _plain(folder: Path, root: Path) -> list[Photo]:
    """Returns all photographs of a folder, named by their paths below `root`."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return [Photo(path, path.relative_to(root)) for path in paths]


def _with_segmentation(photo: Photo, segmentations: Path | None) -> Photo:
    path = segmentations / photo.name.with_suffix(".png") if segmentations else None
    if path is None or not path.exists():
        return photo
    return photo._replace(mask=read_mask(path, {"gray": Rule()}))


def _imagenet(dataset: str, sources: Sequence[Path]) -> Iterator[Photo]:
    synsets = SYNSETS[DATASETS[dataset]]
    places = {synset: _synset_folder(dataset, synset, sources) for synset in synsets}
    missing = [synset for synset, folder in places.items() if folder is None]
    # A copy may lack some synsets, and the others are enough
    if 0 < len(missing) < len(synsets):
        logger.warning("%s: without the synsets %s", dataset, ", ".join(missing))
    for synset, folder in places.items():
        if folder is not None:
            photos = _plain(folder, folder)
            yield from (photo._replace(name=synset / photo.name) for photo in photos)


def _synset_folder(dataset: str, synset: str, sources: Sequence[Path]) -> Path | None:
    archive = _find(sources, f"{synset}.tar", f"images/{synset}.tar")
    folder = _find(sources, synset, f"images/{synset}")
    return _unpacked(archive, dataset) if folder is None and archive is not None else folder


def _annotated(images: Path, data: Path | None, cameras: Path | None) -> list[Photo]:
    """Returns the photographs that CMR's annotations list; none without annotations."""
    if data is None:
        return []
    records = read_structures(data, "images", ("rel_path", "mask", "parts"), _REMEDY)
    # The cameras are in a second file, in the same order
    poses: list[dict[str, np.ndarray]] = [{}] * len(records)
    if cameras is not None:
        poses = read_structures(cameras, "sfm_anno", ("rot", "scale", "trans"), _REMEDY)
    if len(poses) != len(records):
        raise UserError(
            f"{cameras} has {len(poses)} cameras, but {data} lists {len(records)} images. {_REMEDY}"
        )
    return [_photo(images, r, p, data) for r, p in zip(records, poses, strict=True)]


def _photo(
    images: Path, record: dict[str, np.ndarray], pose: dict[str, np.ndarray], source: Path
) -> Photo:
    name = Path(*PureWindowsPath(str(record["rel_path"])).parts)  # Pascal3D+ writes backslashes
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{source}: {name} leads out of {images}/. {_REMEDY}")
    if not (images / name).is_file():
        raise UserError(
            f"{images / name} does not exist, but {source} lists it. Unpack all images."
        )
    check_numbers(source, record, {"mask": ("h", "w")}, _REMEDY)
    if record["parts"].ndim != 2 or len(record["parts"]) != 3 or record["parts"].dtype.kind in "US":
        got = record["parts"].shape
        raise UserError(f"{source}: the keypoints of {name} are {got}, expected (3, K). {_REMEDY}")
    mask = np.where(record["mask"] > 0, 255, 0).astype(np.uint8)
    # Rows of x, y and visibility, with pixels counted from 0
    keypoints = record["parts"].astype(np.float32).T.copy()
    keypoints[:, :2] -= _ONE_BASED
    truth: dict[str, Any] = {"name": name.with_suffix("").as_posix(), "keypoints": keypoints}
    if pose:
        # A weak perspective: scale and translation without a distance
        _check_camera(pose, name)
        rotation = quaternion.from_matrix(torch.from_numpy(pose["rot"].astype(np.float64)))
        truth["rotation"] = rotation.numpy().astype(np.float32)
        truth["scale_px"] = pose["scale"].astype(np.float32)
        truth["translation_px"] = (pose["trans"] - _ONE_BASED).astype(np.float32)
        truth["camera_distance"] = np.float32(np.inf)
        truth["shape_id"] = np.int64(-1)
    return Photo(images / name, name, mask, truth)


def _check_camera(pose: dict[str, np.ndarray], name: Path) -> None:
    """Raises a UserError unless this is a camera: a rotation, a scale above 0, a translation."""
    shapes = {"rot": (3, 3), "scale": (), "trans": (2,)}
    check_numbers(Path(f"camera of {name}"), pose, shapes, _REMEDY)
    rotation = pose["rot"].astype(np.float64)
    # Orthogonal, and no reflection
    turned = np.abs(rotation @ rotation.T - np.eye(3)).max() < _ROUNDING
    if not turned or np.linalg.det(rotation) < 0 or pose["scale"] <= 0:
        raise UserError(f"camera of {name}: no rotation, or a scale below 0. {_REMEDY}")


def _save_truth(root: Path, photos: Sequence[Photo]) -> None:
    """Writes ground_truth.npz where every photograph has a camera."""
    if all("rotation" in photo.truth for photo in photos):
        columns = {key: np.stack([p.truth[key] for p in photos]) for key in photos[0].truth}
        save_arrays(root / "ground_truth.npz", columns)
