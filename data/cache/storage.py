"""Plain tensors and plain arrays on disk: written atomically, never pickled, with their origin.

Published files, which are pickled and do not tell their origin, are read as well.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.published.unpickling import MAX_BYTES, is_pickled, load_pickled
from utils import checkpoint
from utils.cli import UserError
from utils.digests import append_digest, check_archive
from utils.files import atomic_path, require_file

PUBLISHED = ""  # stands for the fingerprint of the published detections, which have none


class Origin(NamedTuple):
    """What a file was made from, as fingerprints.

    Attributes:
        detections: whose rows the file's rows are.
        templates: vertices (T, 962, 3) whose order and axes the file refers to.
    """

    detections: str
    templates: str


def save_tensors(path: Path, content: dict[str, Any], origin: Origin) -> Path:
    """Writes tensors and plain values with the fingerprints of what they were made from."""
    # Clones, because a view would be stored with all that it is a view of
    plain = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        if isinstance(value, Tensor)
        else value
        for key, value in content.items()
    }
    stamps = {"fingerprint": origin.detections, "templates": origin.templates}
    checkpoint.save(path, plain | stamps)
    return path


def belongs_to(path: Path, detections: str) -> bool:
    """Returns whether a file of `save_tensors` was made from detections with a fingerprint; False if damaged."""
    try:
        return checkpoint.load(path, remedy="").get("fingerprint", PUBLISHED) == detections
    except UserError:
        return False


def load_tensors(
    path: Path, names: Sequence[str], origin: Origin, command: str, optional: Sequence[str] = ()
) -> dict[str, Any]:
    """Reads what `save_tensors` wrote: the entries `names`, and those of `optional` that there are.

    Raises:
        UserError: if the file is missing, damaged, or made from other detections or templates than
            `origin`; names the command that makes it. Published files don't tell their templates.
    """
    # Damage and missing entries first
    content = checkpoint.load(path, remedy=f"Create it with: {command}")
    if not {*names} <= content.keys():
        raise UserError(f"{path}: expected the entries {', '.join(names)}. Make it with: {command}")
    # Then whether it belongs to the present state of the cache
    if content.get("fingerprint", PUBLISHED) != origin.detections:
        raise UserError(
            f"{path} was made from other detections than the present detections.json, so its rows "
            f"mean other images. Make it again with: {command}"
        )
    if content.get("templates", origin.templates) != origin.templates:
        raise UserError(
            f"{path} was made with other templates than those in cache/remeshed_templates/. "
            f"Make it again with: {command}"
        )
    return {name: content[name] for name in (*names, *optional) if name in content}


def check_numbers(
    path: Path, content: Mapping[str, Any], shapes: Mapping[str, Sequence[int | str]], remedy: str
) -> None:
    """Refuses arrays and tensors that are not finite numbers of the expected shapes.

    Args:
        path: of the file, for the error.
        content: what the file holds, by name.
        shapes: of the entries to check; a letter is a size above 0, the same wherever it occurs.
        remedy: last sentence of the error.

    Raises:
        UserError: names the first entry that is wrong.
    """
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        # numpy knows no bfloat16
        value, known = content[name], dict(sizes)
        floating = isinstance(value, Tensor) and value.is_floating_point()
        array = np.asarray(value.float() if floating else value)
        # Letters take the size that they meet first
        expected = tuple(
            sizes.setdefault(axis, size) if isinstance(axis, str) else axis
            for axis, size in zip(shape, array.shape, strict=False)
        )
        # Shape, kind and values, reported as one error
        fits = len(shape) == array.ndim and array.shape == expected and 0 not in expected
        if not fits or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            wanted = ", ".join(f"{x} = {known[x]}" if x in known else str(x) for x in shape)
            raise UserError(
                f"{path}: {name} is {array.dtype} {array.shape}, expected finite numbers ({wanted}). "
                f"{remedy}"
            )


def save_arrays(path: Path, arrays: dict[str, np.ndarray], compressed: Sequence[str] = ()) -> Path:
    """Writes an .npz file that carries a digest of its bytes.

    Args:
        path: of the file.
        arrays: members by name.
        compressed: names of the members that are deflated; the others are stored as they are.
    """
    # Member by member, because numpy compresses all or none
    with atomic_path(path) as temporary, open(temporary, "w+b") as file:
        with zipfile.ZipFile(file, "w", compresslevel=1) as archive:
            for name, array in arrays.items():
                method = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
                info = zipfile.ZipInfo(f"{name}.npy")  # without a date: same arrays, same bytes
                info.compress_type = method
                with archive.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        append_digest(file)
    return path


def load_arrays(
    path: Path,
    names: Sequence[str],
    remedy: str,
    optional: Sequence[str] = (),
    *,
    verify: bool = True,
) -> dict[str, np.ndarray]:
    """Reads the named members of an .npz file and no others.

    Published files hold one pickled dictionary instead; it is read without executing anything.

    Args:
        path: of the file.
        names: members that there must be.
        remedy: last sentence of the errors.
        optional: members that may be absent, also from the result.
        verify: checks the whole file; without it, only the checksums of the members that are read.

    Raises:
        UserError: if the file is missing, damaged, lacks a member, or unpacks to too much.
    """
    require_file(path, remedy)
    try:
        # Published archives hold one pickled dictionary, ours a member for each array
        either = [*names, *optional]
        found = (
            _published_arrays(path, remedy)
            if is_pickled(path)
            else _members(path, either, verify=verify)
        )
        wanted = [*names, *(name for name in optional if name in found)]
        return {name: found[name] for name in wanted}
    except (
        *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, MemoryError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError),
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}). {remedy}") from error


def _members(path: Path, names: Sequence[str], *, verify: bool) -> dict[str, np.ndarray]:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        # The size is checked before anything is unpacked
        largest = max((info.file_size for info in archive.zip.infolist()), default=0)
        if largest > MAX_BYTES:
            raise ValueError(f"unpacks to {largest} bytes, at most {MAX_BYTES} are expected")
        if verify:
            check_archive(file)
        return {name: archive[name] for name in names if name in archive}


def _published_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    content = load_pickled(path, remedy)
    if not isinstance(content, dict):
        raise TypeError(f"holds a {type(content).__name__}, expected a dictionary")
    arrays = {name: np.asarray(value) for name, value in content.items()}
    if any(array.dtype == object for array in arrays.values()):
        raise ValueError("holds lists of unequal lengths")
    return arrays
