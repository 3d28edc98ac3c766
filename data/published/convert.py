"""Checks published files one by one, and writes the pickled ones in their plain form."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from data.cache.feature_statistics import read_statistics
from data.cache.pose_files import ESTIMATED, HYPOTHESES, check_poses
from data.cache.pseudo_files import PseudoItem, item_shapes, read_metadata, write_metadata
from data.cache.storage import check_numbers, load_arrays, save_arrays
from data.cache.template_files import read_templates
from data.definitions import MODES
from data.detections import Detections, read_published, write_detections
from data.published.unpickling import is_pickled
from geometry.mesh_files import load_mesh
from utils import checkpoint, cli
from utils.cli import UserError
from utils.files import require_file
from utils.progress import progress

logger = logging.getLogger(__name__)

REMEDY = "Download it again."
_MODE = f"(?:{'|'.join(MODES)})"


class Report(NamedTuple):
    """What a check has found.

    Attributes:
        what: description of the content.
        convert: writes the file in its plain form; None where it is plain.
    """

    what: str
    convert: Callable[[], object] | None = None


def inspect(folder: Path, *, convert: bool) -> Counter[str]:
    """Logs what every published file below a folder holds, and converts the pickled ones.

    Returns:
        How many files are plain, converted (or, if that is not wanted, pickled) and unknown.

    Raises:
        UserError: after all others were handled, if there are no files, or some were refused.
    """
    require_file(folder, "Unpack the published archives first.")
    counts: Counter[str] = Counter()
    for path in progress(list(_files(folder)), description="checking files"):
        state, what = _handle(path, convert)
        counts[state] += 1
        # Files with numbers for names are too many to list, unless something is wrong with one
        if state in ("refused", "unknown") or not path.stem.isdecimal():
            logger.info("%-9s  %s", state, cli.one_line(f"{path}: {what}"))
    logger.info("%s", ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    if counts["refused"]:
        raise UserError(f"{folder}: {counts['refused']} files were refused, see above. {REMEDY}")
    if counts.total() == counts["unknown"]:
        raise UserError(f"{folder}: no published files there. Name the folder that has them.")
    return counts


def _files(folder: Path) -> Iterator[Path]:
    """Yields all files, and links to folders, in an order that puts detections before poses."""
    # Sorted, so that the order is the same on every file system
    for parent, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in sorted(names + links, key=_rank))


def _rank(name: str) -> tuple[bool, str]:
    return not name.startswith("detections"), name.zfill(20)


def _handle(path: Path, convert: bool) -> tuple[str, str]:
    """Returns the state of a file, and what it holds or why it was refused."""
    # A link could lead out of the folder, and conversion would overwrite its target
    if path.is_symlink():
        return "refused", "a link; only the files themselves are read"
    # The name says what a file should hold, its check whether it does
    check = next((f for pattern, f in CHECKS if re.search(f"(?:^|/){pattern}$", str(path))), None)
    if check is None:
        return "unknown", "no file of the published system"
    try:
        what, converter = check(path)
    except UserError as error:
        return "refused", str(error).removeprefix(str(path)).lstrip(": ")
    if converter is None:
        return "plain", what
    if convert:
        converter()
    return "converted" if convert else "pickled", what


def _check_checkpoint(path: Path) -> Report:
    state = checkpoint.load(path, remedy=REMEDY)
    # A network is a dictionary of named tensors alone, unlike the state of an optimizer
    networks = {key: value for key, value in state.items() if _is_network(value)}
    if not networks:
        raise UserError(f"{path}: has no network. {REMEDY}")
    damaged = [key for key, network in networks.items() if not _all_finite(network)]
    if damaged:
        raise UserError(f"{path}: {', '.join(damaged)} has values that are not finite. {REMEDY}")
    # Sizes tell one architecture from another
    sizes = (
        f"{key} ({sum(x.numel() for x in n.values()):,} numbers)" for key, n in networks.items()
    )
    length = state.get("epoch", "?")
    return Report(f"checkpoint after {length} epochs: {', '.join(sizes)}")


def _is_network(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(x, Tensor) for k, x in value.items())
    )


def _all_finite(network: dict[str, Tensor]) -> bool:
    return all(bool(x.isfinite().all()) for x in network.values())


def _check_templates(path: Path) -> Report:
    return Report(f"{len(read_templates(path, REMEDY))} remeshed templates")


def _check_drawing(path: Path) -> Report:
    return Report(f"remeshed templates to look at, {len(load_mesh(path).faces)} triangles")


def _check_poses(path: Path) -> Report:
    content = checkpoint.load(path, remedy=REMEDY)
    check_poses(path, content, ESTIMATED if "estimated" in path.name else HYPOTHESES, REMEDY)
    what = f"poses of {len(content['R'])} images"
    return Report(what, None if "fingerprint" in content else _stamping(path, content))


def _stamping(path: Path, content: dict[str, Any]) -> Callable[[], object] | None:
    """Returns what ties poses to the detections beside them; None where there are none."""
    source = path.with_name("detections.npy")
    if not source.exists():
        return None
    # Poses refer to detections by row
    detections = read_published(source, path.parent.name)
    rows = content["indices"].amax() + 1 if "indices" in content else len(content["R"])
    if rows > len(detections):
        raise UserError(f"{path}: refers to more than the {len(detections)} images of {source}.")
    return lambda: checkpoint.save(path, content | {"fingerprint": _plain(detections).fingerprint})


def _check_detections(path: Path) -> Report:
    detections = read_published(path, path.parent.name)
    target = path.with_suffix(".json")
    what = f"{len(detections)} objects of category {detections.category}"
    if target.exists():
        return Report(f"{what}; {target.name} is used instead")
    return Report(what, lambda: write_detections(target, _plain(detections)))


def _plain(detections: Detections) -> Detections:
    return Detections(detections.dataset, detections.category, detections.items)


def _check_metadata(path: Path) -> Report:
    metadata = read_metadata(path, REMEDY)
    what = f"poses of {len(metadata.paths)} pseudo-ground-truth items"
    return Report(what, (lambda: write_metadata(path, metadata)) if is_pickled(path) else None)


def _check_item(path: Path) -> Report:
    arrays = load_arrays(path, PseudoItem._fields, REMEDY)
    # The name of the folder contains the resolution
    size = int(path.parent.name.split("_")[1].partition("x")[0])
    check_numbers(path, arrays, item_shapes(size), REMEDY)
    return Report("item", (lambda: save_arrays(path, arrays)) if is_pickled(path) else None)


def _check_statistics(path: Path) -> Report:
    return Report(f"feature statistics of {read_statistics(path, REMEDY).num_images} images")


CHECKS: tuple[tuple[str, Callable[[Path], Report]], ...] = (
    (r"checkpoint_\w+\.pth", _check_checkpoint),
    (r"\w+_templates\.pth", _check_templates),
    (r"\w+_templates\.obj", _check_drawing),
    (rf"(?:camera_hypotheses_silhouette|poses_estimated)_{_MODE}\.bin", _check_poses),
    (r"detections\.npy", _check_detections),
    (rf"poses_metadata_{_MODE}\.npz", _check_metadata),
    (rf"pseudogt_(\d+)x\1_{_MODE}/\d+\.npz", _check_item),
    (r"precomputed_fid_299x299\.npz", _check_statistics),
)
