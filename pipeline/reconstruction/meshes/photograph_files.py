"""Photographs that belong to no collection, and their masks: from files, transparency or networks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.collection import plain_name, walk, word_about
from data.crops import square_box
from data.image_files import (
    SUFFIXES,
    UnreadablePicture,
    has_alpha,
    read_mask_numbers,
    read_photograph,
)
from data.preparation.mask_reader import read_own_mask
from data.preparation.masking import Detector, Limits, best_mask
from data.preparation.quality import find_faults, find_small_or_cut
from data.run_lengths import mask_box
from pipeline.reconstruction.meshes.mask_search import MaskFinder
from pipeline.reconstruction.meshes.mesh_folder import Subject, cut_subject
from utils.cli import UserError
from utils.files import require_file

MIN_AREA = 256  # pixels of a usable mask


class Found(NamedTuple):
    """The object in a photograph.

    Attributes:
        subject: cut out of its photograph.
        oddities: what a person should know of it; ends of sentences that begin with the path.
        estimated_mask: (h, w) bool, if the mask is the model's own guess.
    """

    subject: Subject
    oddities: list[str]
    estimated_mask: np.ndarray | None = None


def find_photographs(path: Path) -> list[Path]:
    """Returns a photograph, or all below a folder.

    Raises:
        UserError: if there is none.
    """
    if not require_file(path, "--photo: check the path.").is_dir():
        return [path]
    files, _ = walk(path)
    found = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not found:
        word = word_about(tuple(files))
        raise UserError(f"--photo {path}: no photographs there{f' ({word})' if word else ''}.")
    return found


def folder_names(path: Path, photographs: Sequence[Path]) -> list[str]:
    """Returns a name for each photograph: its own, with its suffix only where several share it."""
    root = path if path.is_dir() else path.parent
    inner = [photograph.relative_to(root) for photograph in photographs]
    counts = Counter(name.with_suffix("") for name in inner)
    return [
        (name if counts[name.with_suffix("")] > 1 else name.with_suffix("")).as_posix()
        for name in inner
    ]


def match_masks(path: Path | None, photographs: Sequence[Path]) -> dict[Path, Path]:
    """Returns the mask file of each photograph that has one, of --mask.

    Args:
        path: the file of the only photograph, or a folder with files of the same names, perhaps with
            words such as _mask behind them; None without masks.
        photographs: all of them.

    Raises:
        UserError: if there is no such file, or one file for several photographs.
    """
    if path is None:
        return {}
    if not require_file(path, "--mask: check the path.").is_dir():
        if len(photographs) > 1:
            raise UserError(
                f"--mask {path}: expected a folder with masks for {len(photographs)} photographs."
            )
        return {photographs[0]: path}
    files, _ = walk(path)
    table = {plain_name(file.name): file for file in files if file.suffix.lower() in SUFFIXES}
    names = {photograph: plain_name(photograph.name) for photograph in photographs}
    return {photograph: table[name] for photograph, name in names.items() if name in table}


def read_object(
    path: Path,
    masks: Mapping[Path, Path] | None,
    detector: Detector | MaskFinder | None,
    resolution: int,
) -> Found:
    """Reads a photograph with its mask.

    Args:
        path: of the photograph; any size, mode and EXIF orientation.
        masks: of the photographs that have one; None where --mask was not given.
        detector: finds the object where there is no mask.
        resolution: of the texture that is to be made of it.

    Raises:
        UnreadablePicture: if the photograph or its mask cannot be used.
    """
    photograph = read_photograph(path)
    shape = photograph.shape[:2]
    oddities, estimated = [], None
    if masks is not None and path not in masks:
        raise UnreadablePicture(path, "has no mask of its name in the folder of --mask")
    if masks is not None or _is_cut_out(path):
        source = path if masks is None else masks[path]
        mask, findings = read_own_mask(path, source, (shape[0], shape[1]))
        oddities += [finding.text for finding in findings]
    elif isinstance(detector, MaskFinder):
        mask, oddity = detector.find(path, photograph)
        oddities.append(oddity)
        estimated = mask
    else:
        mask = _detected(path, detector)
    if mask.sum() < MIN_AREA:
        raise UnreadablePicture(path, f"has a mask of {mask.sum()} pixels, expected {MIN_AREA}")
    oddities += [finding.text for finding in find_faults(mask) + find_small_or_cut(mask)]
    box = square_box(mask_box(mask))
    return Found(cut_subject(photograph, mask, box, resolution), oddities, estimated)


def _is_cut_out(path: Path) -> bool:
    """Returns whether a photograph is transparent somewhere, and not everywhere."""
    if not has_alpha(path):
        return False
    alpha = read_mask_numbers(path, "alpha").values
    return bool(alpha.min() < alpha.max())


def _detected(path: Path, detector: Detector | None) -> np.ndarray:
    """Returns the mask (h, w) of the object that a network finds."""
    if detector is None:
        raise UnreadablePicture(
            path,
            "has no mask, and the model was trained without a mask head: give one with --mask, make the "
            "photograph transparent around the object, or let --mask_model or --mask_rcnn find it",
        )
    mask, reason = best_mask(path, detector, Limits(min_area=MIN_AREA))
    if reason:
        raise UnreadablePicture(path, reason)
    return mask
