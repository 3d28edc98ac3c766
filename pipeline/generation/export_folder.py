"""The folder of an export: which model its meshes come from, and that they all come from the same one."""

import re
from pathlib import Path
from typing import Any

from pipeline.generation.config import GenerationConfig
from utils import files
from utils.cli import UserError
from utils.digests import file_digest
from utils.options import flatten
from utils.run_directory import environment

# Everything that an export writes; all other files in the folder are somebody else's
_EXPORTED = re.compile(
    r"mesh_\d+\.(?:obj|mtl|png|glb)|index\.html|turntable\.gif|provenance\.json|morphs\.glb|walk\.gif"
    r"|swap\.png|swap_\d+_\d+\.glb|parts\.png|mesh_\d+_parts\.glb"
)
PARTS = "parts.png"  # all meshes in the colors of their parts
# What makes mesh <i> the same
_SAME = ("checkpoint_sha256", "seed", "truncation_sigma", "filter_class")


def provenance(config: GenerationConfig, path: Path, step: int | None) -> dict[str, Any]:
    """Returns what an export is a function of: checkpoint, seed, options, commit, versions, device.

    Args:
        config: the options, with the checkpoint's architecture.
        path: of the checkpoint.
        step: steps it was trained for; None if unknown.
    """
    return {
        "run": config.name,
        "checkpoint": path.as_posix(),
        "checkpoint_sha256": file_digest(path),
        "step": step,
        "seed": config.seed,
        "truncation_sigma": config.truncation_sigma,
        "filter_class": config.sampling.filter_class,
        "options": flatten(config),
        "environment": environment(),
    }


def picture_path(folder: Path) -> Path:
    """Returns where the picture of all meshes lies: beside the folder, whose name may have dots."""
    return folder.with_name(f"{folder.name}.png")


def check(folder: Path, record: dict[str, Any], *, overwrite: bool) -> None:
    """Refuses a folder that holds meshes of another seed or model, or has no place for the picture.

    Args:
        folder: of the export; need not exist.
        record: provenance of the meshes to be written.
        overwrite: allows every folder.

    Raises:
        UserError: says what differs.
    """
    picture = picture_path(folder)
    if picture.is_dir():
        raise UserError(
            f"{picture} is a folder, where the picture of {folder}/ belongs. Move it away."
        )
    difference = _difference(folder, record)
    if difference and not overwrite:
        raise UserError(
            f"{folder}/ holds meshes {difference}. Move it away, or add --overwrite to replace them."
        )


def begin(folder: Path, record: dict[str, Any]) -> None:
    """Records an export; removes what one of another seed or model wrote before, and nothing else."""
    if _difference(folder, record):
        for path in _exported(folder):
            path.unlink()
    files.write_json(folder / "provenance.json", record)


def finish(folder: Path, how_many: int) -> None:
    """Removes the meshes that an earlier export of the same model wrote beyond the present ones, and their picture."""
    for path in _exported(folder):
        name, _, rest = path.stem.partition("_")
        if name == "mesh" and int(rest.removesuffix("_parts")) >= how_many:
            path.unlink()
            (folder / PARTS).unlink(missing_ok=True)


def _difference(folder: Path, record: dict[str, Any]) -> str:
    """Says how the meshes in a folder differ from those to be written; empty if they don't."""
    if not _exported(folder):
        return ""
    # Exports of earlier versions have no record
    path = folder / "provenance.json"
    earlier = files.read_json(path, "Delete it, then add --overwrite.") if path.exists() else {}
    if not isinstance(earlier, dict) or not {*_SAME} <= earlier.keys():
        return "of unknown origin"
    # Commit and number of meshes may differ
    changed = [key for key in _SAME if earlier[key] != record[key]]
    words = "; ".join(f"{key} {earlier[key]}, now {record[key]}" for key in changed)
    return words and f"of another export ({words})"


def _exported(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [p for p in folder.iterdir() if _EXPORTED.fullmatch(p.name) and not p.is_dir()]
