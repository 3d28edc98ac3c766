"""Remeshed templates of a category: cache/remeshed_templates/<mode>/<category>_templates.pth.

Those of a user's own meshes, or learned from photographs, lie in cache/own_templates/<mode>/ and are used in the place of the others,
until they are deleted.
"""

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from data.cache.folders import CACHE_FOLDER, collection_path, prepare_command, record_of
from data.cache.storage import check_numbers
from data.definitions import CATEGORIES, DATASETS, MODES, check_word, expand_dataset
from data.detections import Detections
from utils import checkpoint
from utils.cli import UserError
from utils.files import shipped

logger = logging.getLogger(__name__)


def written_path(category: str, mode: str, *, own: bool) -> Path:
    """Returns the path of remeshed templates that are a user's own, or those modeled here."""
    folder = "own_templates" if own else "remeshed_templates"
    return CACHE_FOLDER / folder / mode / f"{category}_templates.pth"


def templates_path(category: str, mode: str) -> Path:
    """Returns the path of the remeshed templates in use: the user's own, where there are any."""
    own = written_path(category, mode, own=True)
    return own if own.exists() else shipped(written_path(category, mode, own=False))


def save_templates(category: str, mode: str, vertices: Tensor, *, own: bool = False) -> Path:
    """Writes the vertices (T, 962, 3) of remeshed templates; returns the path."""
    path = written_path(category, mode, own=own)
    checkpoint.save(path, vertices.detach().cpu().float().contiguous())
    return path


def has_templates(category: str) -> bool:
    """Whether there are remeshed templates of a category, in whichever mode."""
    return any(templates_path(category, mode).exists() for mode in MODES)


def check_lender(category: str, where: str) -> str:
    """Returns a category from which templates can be borrowed; UserError for any other."""
    check_word(category, where, "category")
    if not has_templates(category):
        folders = (CACHE_FOLDER, shipped(CACHE_FOLDER / "remeshed_templates").parent)
        paths = (path for x in folders for path in x.glob("*_templates/*/*_templates.pth"))
        present = sorted({path.name.removesuffix("_templates.pth") for path in paths})
        remesh = f"python remesh.py --mode singletpl --classes {category}"
        remedy = f" Make them with: {remesh}" if category in CATEGORIES else ""
        raise UserError(
            f"{where} {category}: there are no templates of it; there are some of: "
            f"{', '.join(present) or 'nothing'}.{remedy}"
        )
    return category


def ways_to_templates(category: str, dataset: str | None = None, mode: str = "singletpl") -> str:
    """Returns, in one line, the three ways to templates of a category that was never modeled here."""
    name = dataset or "<dataset>"
    remesh = f"python remesh.py --mode {mode} --classes {category}"
    return (
        f"{category} has no template ({mode}). Remesh a mesh of your own, <folder>/{category}1.obj: "
        f"{remesh} --templates <folder>; or borrow one when preparing: "
        f"{prepare_command(name, category)} --template_of horse; or learn one from the "
        f"prepared photographs: {remesh} --from_photographs {name}"
    )


def templates_of(detections: Detections, mode: str) -> Tensor:
    """Reads the templates of a dataset: of its category, or of the one that it borrows from.

    Returns:
        As `load_templates`.
    """
    record = record_of(detections.dataset, detections.category)
    return load_templates(record.template_of, mode, detections.dataset)


def load_templates(category: str, mode: str, dataset: str | None = None) -> Tensor:
    """Reads the remeshed templates of a category.

    Args:
        category: whose templates.
        mode: singletpl or multitpl.
        dataset: for which they are wanted; for the error.

    Returns:
        (T, 962, 3) float32; T = 1 in mode singletpl.

    Raises:
        UserError: if the file is missing, damaged, or has another shape.
    """
    path = templates_path(category, mode)
    if category not in CATEGORIES and not path.exists():
        raise UserError(ways_to_templates(category, dataset, mode))
    remedy = f"Create it with: python remesh.py --mode {mode} --classes {category}"
    # A user's own ones cannot be made again by the same command
    own = path == written_path(category, mode, own=True)
    if own:
        remedy = (
            "Delete it to use the modeled ones, or make it again with: remesh.py --templates, "
            "--from_points or --from_photographs"
        )
    vertices = read_templates(path, remedy)
    if own:
        logger.info("templates of %s: your own, %s", category, path)
    if mode == "singletpl" and len(vertices) != 1:
        raise UserError(f"{path}: singletpl expects 1 template, got {len(vertices)}. {remedy}")
    return vertices


def templates_fingerprint(vertices: Tensor) -> str:
    """Returns what tells templates (T, 962, 3) apart: a hash of their coordinates in single precision."""
    return hashlib.sha256(vertices.detach().cpu().float().numpy().tobytes()).hexdigest()


def present_fingerprint(dataset: str, mode: str) -> str | None:
    """Returns the fingerprint of the templates that a dataset has now; None where they are not at hand.

    Of several datasets (`all`), that of their templates one after another.
    """
    # Nothing to compare with where the category or its templates are unknown
    names = expand_dataset(dataset)
    if not all(name in DATASETS or collection_path(name).exists() for name in names):
        return None
    categories = [record_of(name).template_of for name in names]
    if not all(templates_path(category, mode).exists() for category in categories):
        return None
    return templates_fingerprint(torch.cat([load_templates(x, mode) for x in categories]))


def read_templates(path: Path, remedy: str) -> Tensor:
    """Reads remeshed templates (T, 962, 3) from a file."""
    vertices = checkpoint.load_plain(path, remedy=remedy)
    check_numbers(path, {"the tensor": vertices}, {"the tensor": ("T", 962, 3)}, remedy)
    return vertices.float()
