"""Remeshed templates of a category: cache/remeshed_templates/<mode>/<category>_templates.pth."""

from pathlib import Path

from torch import Tensor

from data.cache.folders import CACHE_FOLDER
from data.cache.storage import check_numbers
from utils import checkpoint
from utils.cli import UserError


def templates_path(category: str, mode: str) -> Path:
    """Returns the path of a category's remeshed templates."""
    return CACHE_FOLDER / "remeshed_templates" / mode / f"{category}_templates.pth"


def save_templates(category: str, mode: str, vertices: Tensor) -> Path:
    """Writes the vertices (T, 962, 3) of the remeshed templates; returns the path."""
    path = templates_path(category, mode)
    checkpoint.save(path, vertices.detach().cpu().float().contiguous())
    return path


def load_templates(category: str, mode: str) -> Tensor:
    """Reads the remeshed templates of a category.

    Returns:
        (T, 962, 3) float32; T = 1 in mode singletpl.

    Raises:
        UserError: if the file is missing, damaged, or has another shape.
    """
    path = templates_path(category, mode)
    remedy = f"Create it with: python remesh.py --mode {mode} --classes {category}"
    vertices = read_templates(path, remedy)
    if mode == "singletpl" and len(vertices) != 1:
        raise UserError(f"{path}: singletpl expects 1 template, got {len(vertices)}. {remedy}")
    return vertices


def read_templates(path: Path, remedy: str) -> Tensor:
    """Reads remeshed templates (T, 962, 3) from a file."""
    vertices = checkpoint.load_plain(path, remedy=remedy)
    check_numbers(path, {"the tensor": vertices}, {"the tensor": ("T", 962, 3)}, remedy)
    return vertices.float()
