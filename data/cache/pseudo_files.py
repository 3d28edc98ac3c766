"""The pseudo-ground-truth of a dataset: one .npz per photograph, and the poses that belong to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.cache.folders import cache_folder
from data.cache.storage import PUBLISHED, check_numbers, load_arrays, save_arrays
from data.cache.template_files import present_fingerprint
from data.definitions import CATEGORIES, folder_names
from geometry.camera import Pose
from geometry.uv_maps import MESH_RESOLUTIONS
from utils.cli import UserError
from utils.files import read_json

COMPRESSED = ("seg", "texture_alpha", "image")  # flat, or not read by training
IMAGE_RESOLUTION = 299  # of the Inception network
ORTHOGRAPHIC_Z0 = 20.0  # a camera distance of 5e8: no perspective in single precision


class PoseMetadata(NamedTuple):
    """Poses of the K pseudo-ground-truth items, from which the GAN draws its views.

    Attributes:
        scale: (K, 1).
        translation: (K, 3), the third component is 0.
        rotation: (K, 4).
        z0: (K, 1).
        category: (K,) int64, position in the category list of the run (0 for a single dataset).
        paths: K image paths.
        templates: fingerprint of the templates of the run, of several datasets with commas between; ""
            in published files.
    """

    scale: Tensor
    translation: Tensor
    rotation: Tensor
    z0: Tensor
    category: Tensor
    paths: list[str]
    templates: str = PUBLISHED

    @property
    def pose(self) -> Pose:
        """The K poses as a batch."""
        return Pose(self.scale, self.translation[:, :2], self.rotation, self.z0)


class PseudoItem(NamedTuple):
    """Pseudo-ground-truth of one image; arrays of the types stored.

    Attributes:
        mesh: (3, S, S) float32 displacement map.
        seg: (K + 1, h, w) float32 part probabilities in UV space.
        texture: (3, R, R) float16 in [-1, 1], 0 where unseen.
        texture_alpha: (1, R, R) float16 in [0, 1].
        image: (4, 299, 299) float16, premultiplied RGB in [-1, 1] and mask.
        category: position in the category list of the run.
    """

    mesh: np.ndarray
    seg: np.ndarray
    texture: np.ndarray
    texture_alpha: np.ndarray
    image: np.ndarray
    category: int


def metadata_path(dataset: str, mode: str) -> Path:
    """Returns the path of the poses that belong to the pseudo-ground-truth."""
    return cache_folder(dataset) / f"poses_metadata_{mode}.npz"


def pseudo_folder(dataset: str, resolution: int, mode: str) -> Path:
    """Returns the folder of the pseudo-ground-truth items."""
    return cache_folder(dataset) / f"pseudogt_{resolution}x{resolution}_{mode}"


def source_path(folder: Path) -> Path:
    """Returns the path of the record of what a folder of items was made from."""
    return folder / "source.json"


def save_metadata(dataset: str, mode: str, metadata: PoseMetadata) -> Path:
    """Writes the poses that belong to the pseudo-ground-truth; returns the path."""
    return write_metadata(metadata_path(dataset, mode), metadata)


def write_metadata(path: Path, metadata: PoseMetadata) -> Path:
    """Writes such poses to a file; returns the path."""
    tensors = metadata._asdict()
    # Text as arrays of text, which need no pickle
    texts = {"path": np.array(tensors.pop("paths"), dtype=np.str_)}
    texts |= {"templates": np.asarray(tensors.pop("templates"))}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return save_arrays(path, arrays | texts)


def load_metadata(dataset: str, mode: str) -> PoseMetadata:
    """Reads the poses that belong to the pseudo-ground-truth.

    Those of several datasets come one after another, each a category of its own.

    Raises:
        UserError: if the file is missing, damaged, or was made with other templates than those that
            the dataset has now.
    """
    found = []
    # Each dataset keeps its own file
    for name in folder_names(dataset):
        path, command = metadata_path(name, mode), _export_command(name, mode)
        found.append(read_metadata(path, f"Create it with: {command}"))
        _check_templates(path, found[-1].templates, name, mode, command)
    if len(found) == 1:
        return found[0]
    # Joined, the position in the list is the class
    labels = [torch.full_like(m.category, i) for i, m in enumerate(found)]
    return PoseMetadata(
        *(torch.cat(members) for members in zip(*(m[:4] for m in found), strict=True)),
        category=torch.cat(labels),
        paths=[path for m in found for path in m.paths],
        templates=",".join(m.templates for m in found),
    )


def read_metadata(path: Path, remedy: str) -> PoseMetadata:
    """Reads such poses from a file, also a published one.

    Files of the predecessor's predecessor know neither categories nor perspective: one category, and
    a camera far away.
    """
    # Entries that early files lack are optional
    names = ("scale", "translation", "rotation", "path")
    arrays = load_arrays(path, names, remedy, optional=("z0", "category", "templates"))
    return _checked_metadata(path, arrays, remedy)


def metadata_from(path: Path, content: Any, remedy: str) -> PoseMetadata:
    """Returns such poses from the `_asdict()` that a model file holds.

    Raises:
        UserError: if an entry is missing or damaged.
    """
    try:
        arrays = {name: np.asarray(content[name]) for name in PoseMetadata._fields}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its views are damaged ({error!r}). {remedy}") from None
    return _checked_metadata(path, arrays | {"path": arrays.pop("paths")}, remedy)


def _checked_metadata(path: Path, arrays: dict[str, np.ndarray], remedy: str) -> PoseMetadata:
    # The paths tell how many images there are; what early files lack is filled in
    count = arrays["path"].size
    if arrays["path"].shape != (count,) or arrays["path"].dtype.kind != "U":
        raise UserError(f"{path}: path is no list of texts. {remedy}")
    arrays.setdefault("z0", np.full((count, 1), ORTHOGRAPHIC_Z0, np.float32))
    arrays.setdefault("category", np.zeros(count, np.int64))
    # One row for each image
    widths = {"scale": 1, "translation": 3, "rotation": 4, "z0": 1}
    shapes = {name: (count, width) for name, width in widths.items()}
    check_numbers(path, arrays, {**shapes, "category": (count,)}, remedy)
    category = arrays["category"]
    if category.dtype.kind not in "iu" or not np.isin(category, range(len(CATEGORIES))).all():
        raise UserError(
            f"{path}: category has other numbers than 0-{len(CATEGORIES) - 1}. {remedy}"
        )
    # In the types that the rest of the program uses
    pose = {name: torch.from_numpy(arrays[name]).float() for name in widths}
    paths = [str(entry) for entry in arrays["path"]]
    templates = str(arrays.get("templates", PUBLISHED))
    return PoseMetadata(
        **pose, category=torch.from_numpy(category).long(), paths=paths, templates=templates
    )


def save_pseudo_item(
    dataset: str, resolution: int, mode: str, index: int, item: PseudoItem
) -> Path:
    """Writes one item of the pseudo-ground-truth; returns the path.

    What training reads again and again, meshes and textures, stays uncompressed.
    """
    path = pseudo_folder(dataset, resolution, mode) / f"{index}.npz"
    # Colors need eight bits, so sixteen are plenty; meshes and parts keep all
    half = {name: getattr(item, name) for name in ("texture", "texture_alpha", "image")}
    single = {"mesh": item.mesh, "seg": item.seg}
    arrays = {name: np.asarray(value, np.float16) for name, value in half.items()}
    arrays |= {name: np.asarray(value, np.float32) for name, value in single.items()}
    arrays |= {"category": np.asarray(item.category, np.int64)}
    return save_arrays(path, arrays, COMPRESSED)


def item_bytes(resolution: int, num_parts: int, maps: int, mesh_resolution: int) -> int:
    """Returns how much one item takes at most, in bytes.

    Args:
        resolution: of the texture, texels.
        num_parts: channels of its part maps.
        maps: resolution of the part maps.
        mesh_resolution: of the displacement map.
    """
    half = 4 * resolution**2 + 4 * IMAGE_RESOLUTION**2
    return 2 * half + 4 * (3 * mesh_resolution**2 + num_parts * maps**2)


def load_pseudo_arrays(
    dataset: str, resolution: int, mode: str, index: int, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Reads only the named members (fields of `PseudoItem`) of one item, which training does often."""
    path = pseudo_folder(dataset, resolution, mode) / f"{index}.npz"
    command = _export_command(dataset, mode, resolution)
    return load_arrays(path, names, f"Create it with: {command}", verify=False)


def item_shapes(resolution: int, mesh_resolution: int = 32) -> dict[str, tuple[int | str, ...]]:
    """Returns the shapes of an item's arrays, whose textures and displacement maps have these resolutions."""
    return {
        "mesh": (3, mesh_resolution, mesh_resolution),
        "seg": ("P", "h", "w"),
        "texture": (3, resolution, resolution),
        "texture_alpha": (1, resolution, resolution),
        "image": (4, IMAGE_RESOLUTION, IMAGE_RESOLUTION),
        "category": (),
    }


def check_item(
    dataset: str,
    resolution: int,
    mode: str,
    index: int,
    arrays: Mapping[str, np.ndarray],
    mesh_resolution: int = 32,
) -> None:
    """Raises a UserError unless the arrays of an item are finite, of their shapes, and its category is one."""
    path = pseudo_folder(dataset, resolution, mode) / f"{index}.npz"
    remedy = f"Delete it and run: {_export_command(dataset, mode, resolution)}"
    # Only what was read
    known = item_shapes(resolution, mesh_resolution)
    shapes = {name: shape for name, shape in known.items() if name in arrays}
    check_numbers(path, arrays, shapes, remedy)
    if arrays["category"] not in range(len(CATEGORIES)):
        raise UserError(f"{path}: category {arrays['category']}, expected 0-{len(CATEGORIES) - 1}.")


def load_pseudo_item(
    dataset: str, resolution: int, mode: str, index: int, mesh_resolution: int = 32
) -> PseudoItem:
    """Reads one item of the pseudo-ground-truth."""
    arrays = load_pseudo_arrays(dataset, resolution, mode, index, PseudoItem._fields)
    check_item(dataset, resolution, mode, index, arrays, mesh_resolution)
    category = int(arrays.pop("category"))
    return PseudoItem(**arrays, category=category)


def pseudo_item_paths(dataset: str, resolution: int, mode: str) -> list[Path]:
    """Lists the items present, in order of their number; empty if the folder is missing."""
    paths = pseudo_folder(dataset, resolution, mode).glob("*.npz")
    return sorted((p for p in paths if p.stem.isdecimal()), key=lambda p: int(p.stem))


def check_pseudo_ground_truth(
    dataset: str, resolution: int, mode: str, expected: int, mesh_resolution: int = 32
) -> None:
    """Raises a UserError unless exactly the items 0..expected-1 are present, of the present templates.

    Displacement maps of the first item, and so of all that one model has made, have `mesh_resolution`.
    """
    command = _export_command(dataset, mode, resolution)
    folder = pseudo_folder(dataset, resolution, mode)
    source = _read_source(folder, command)
    if source:
        _check_templates(folder, source.get("templates", PUBLISHED), dataset, mode, command)
    # An interrupted export has gaps at the end
    paths = pseudo_item_paths(dataset, resolution, mode)
    if [int(path.stem) for path in paths] != list(range(expected)):
        raise UserError(
            f"{folder}/ has {len(paths)} items, but {metadata_path(dataset, mode)} lists {expected}. "
            f"Export them (again) with: {command}"
        )
    mesh = load_pseudo_arrays(dataset, resolution, mode, 0, ["mesh"])["mesh"]
    found = mesh.shape[-1] if mesh.shape else 0
    if found != mesh_resolution and found in MESH_RESOLUTIONS:
        train = command.replace("--generate_pseudogt", f"--mesh_resolution {mesh_resolution}")
        raise UserError(
            f"{folder}/ has displacement maps of {found} x {found}, expected {mesh_resolution} x "
            f"{mesh_resolution}: train with --mesh_resolution {found}, or export those of another model, trained "
            f"with: {train}"
        )


def check_common_parts(dataset: str, resolution: int, mode: str) -> None:
    """Raises a UserError unless the part maps of several datasets have the same channels."""
    # The record of an export names the parts of its maps
    command = _export_command(dataset, mode, resolution)
    folders = [pseudo_folder(name, resolution, mode) for name in folder_names(dataset)]
    parts = [_read_source(folder, command).get("parts") for folder in folders]
    if None in parts or parts.count(parts[0]) < len(parts):
        raise UserError(
            f"--conditional_semantics: the part maps of {dataset} have different channels. Export "
            f"them with one model of all: {command}"
        )


def _read_source(folder: Path, command: str) -> dict[str, Any]:
    """Reads what an export was made from; published ones have no such record, and get an empty one."""
    path = source_path(folder)
    source = read_json(path, f"Export them again with: {command}") if path.exists() else {}
    if not isinstance(source, dict) or not isinstance(source.get("templates", PUBLISHED), str):
        raise UserError(f"{path} is damaged. Delete it, then export them again with: {command}")
    return source


def _check_templates(path: Path, made_with: str, dataset: str, mode: str, command: str) -> None:
    """Refuses what was made with other templates than the present ones, if both are known."""
    if made_with == PUBLISHED:
        return
    if made_with != (present_fingerprint(dataset, mode) or made_with):
        raise UserError(
            f"{path} was made with other templates than those in cache/remeshed_templates/. "
            f"Make it again with: {command}"
        )


def _export_command(dataset: str, mode: str, resolution: int | None = None) -> str:
    option = f" --pseudogt_resolution {resolution}" if resolution else ""
    return (
        f"python run_reconstruction.py --name <model> --dataset {dataset} --mode {mode} "
        f"--generate_pseudogt{option}"
    )
