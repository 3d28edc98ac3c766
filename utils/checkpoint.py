"""Checkpoints: dictionaries of tensors and plain values, `checkpoint_0020000.pth` in a run's folder.

They hold state dicts, numbers, text, lists and tuples only, so that reading one cannot run code, and a
digest of their bytes, so that damage is noticed.
"""

import io
import math
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from utils.cli import UserError
from utils.digests import append_digest, check_archive
from utils.files import require_file, write_bytes

_READ_ERRORS = (  # what reading a damaged or hostile file ends with
    *(RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    *(AssertionError, MemoryError, OverflowError, ImportError, zipfile.BadZipFile),
    *(struct.error, NotImplementedError),
)

_PLAIN = (type(None), bool, int, float, str, bytes, torch.Size, torch.dtype, torch.device)


_OF_MARKS = (pickletools.markobject, pickletools.stackslice)
_KEYS = set(  # instructions whose values hash at once, and that cannot be made to collide
    re.findall(
        r"\w+",
        """
        NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINBYTES SHORT_BINBYTES BINBYTES8 BINUNICODE
        SHORT_BINUNICODE BINUNICODE8
        """,
    )
)
# Of each instruction: whether it takes all down to a mark, how many values below, how many it leaves
_EFFECTS = {
    opcode.name: (
        pickletools.markobject in opcode.stack_before,
        len([kind for kind in opcode.stack_before if kind not in _OF_MARKS]),
        len(opcode.stack_after),
    )
    for opcode in pickletools.opcodes
}


def path_of(folder: str | Path, step: int) -> Path:
    """Returns the file of a step in a run's folder."""
    return Path(folder) / f"checkpoint_{step:07d}.pth"


def save(path: str | Path, state: Any) -> None:
    """Writes a checkpoint (or a bare tensor) atomically.

    Raises:
        TypeError: if it holds something that `load` would refuse.
    """
    _require_plain(state)
    # In memory first: torch.save turns a full disk into a RuntimeError that hides the reason.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    append_digest(buffer)
    write_bytes(path, buffer.getvalue())


def _require_plain(value: Any) -> None:
    if isinstance(value, Mapping):
        for entry in (*value.keys(), *value.values()):
            _require_plain(entry)
    elif type(value) in (list, tuple, set):
        for entry in value:
            _require_plain(entry)
    elif not isinstance(value, torch.Tensor) and type(value) not in _PLAIN:
        raise TypeError(f"a checkpoint with a {type(value).__name__} could not be loaded")


def load(
    path: str | Path, device: torch.device | str = "cpu", remedy: str = "Train it first."
) -> dict[str, Any]:
    """Reads a dictionary of tensors and plain values; nothing in the file is executed.

    Raises:
        UserError: if the file is missing, damaged, not a dictionary, or holds other objects.
    """
    state = load_plain(path, device, remedy)
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, expected a dictionary.")
    return state


def load_plain(path: str | Path, device: torch.device | str = "cpu", remedy: str = "") -> Any:
    """Reads a tensor or a container of tensors and plain values; nothing in the file is executed.

    Raises:
        UserError: if the file is missing, damaged, or holds other objects.
    """
    require_file(path, remedy)
    # All damage ends in one line; running out of GPU memory is no damage
    try:
        with open(path, "rb") as file:
            return load_stream(file, device)
    except torch.OutOfMemoryError:
        raise
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is damaged or holds objects other than tensors and plain values, so it was "
            "not loaded. Delete it, or replace it by a copy from a source that you trust."
        ) from None
    except OSError as error:  # a cut file is an "invalid argument" to torch's zip reader
        raise UserError(
            f"{path} cannot be read ({error.strerror}). If it is damaged, delete it and run again."
        ) from None
    except _READ_ERRORS:
        raise UserError(
            f"{path} is damaged or not a checkpoint. Delete it and run again."
        ) from None


def load_stream(file: IO[bytes], device: torch.device | str = "cpu") -> Any:
    """Reads tensors and plain values that torch.save wrote.

    Raises:
        pickle.UnpicklingError: if there are other objects, or less content than memory to hold it;
            other exceptions if the content is damaged.
    """
    # Archives are checked before PyTorch reads them: their size, then their digest
    if file.read(4) == b"PK\x03\x04":  # files of PyTorch before 1.6 are no archives
        _refuse_bomb(file)
        check_archive(file)
    _refuse_costly_keys(file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they are about is read or refused
        content = torch.load(file, map_location=device, weights_only=True)
    _refuse_inflated(content, file.seek(0, io.SEEK_END))
    return content


def instructions(content: bytes | IO[bytes]) -> Iterator[tuple[str, Any, int]]:
    """Yields name, argument and position of every instruction up to the end of a pickle.

    The stack of the unpickler is followed with what matters only: whether a value can be the key of a
    dictionary. To hash a tuple of shared tuples takes time without bound.

    Raises:
        pickle.UnpicklingError: at an instruction that uses anything but text, bytes or a number of 32
            bits as a key; IndexError, KeyError or ValueError if the pickle is damaged.
    """
    # For every value on the stack: whether it may be a key
    stack: list[bool | None] = []  # None is a mark
    variables: dict[Any, bool | None] = {}
    for opcode, argument, position in pickletools.genops(content):
        name = opcode.name
        yield name, argument, position or 0
        # What the instruction takes off the stack
        taken, below, pushed = _EFFECTS[name]
        start = len(stack) - below
        items = stack[start:]
        if taken:
            mark = len(stack) - 1
            while stack[mark] is not None:
                mark -= 1
            items, start = stack[mark + 1 :], mark - below
        if name in ("SETITEM", "SETITEMS") and not all(items[0 if taken else 1 :: 2]):
            raise pickle.UnpicklingError("the pickle has a key that is neither text nor a number")
        # What it leaves there
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            variables[argument] = stack[-1]
        elif name == "MEMOIZE":
            variables[len(variables)] = stack[-1]
        else:
            del stack[start:]
            value = variables[argument] if name.endswith("GET") else name in _KEYS
            stack += [None if name == "MARK" else value] * pushed


def _refuse_costly_keys(file: IO[bytes]) -> None:
    """Goes through the instructions of all pickles in a file before PyTorch runs them."""
    file.seek(0)
    # An archive has one pickle, an older file several in a row
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            pickles = [io.BytesIO(archive.read(name)) for name in names]
    else:
        file.seek(0)
        pickles = [file] * 5  # one after another: number, version, system, content, storages
    for stream in pickles:
        for _ in instructions(stream):
            pass


def _refuse_bomb(file: IO[bytes]) -> None:
    """Refuses an archive that grows when it is read: torch.save neither compresses nor overlaps."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise pickle.UnpicklingError("compressed members")
    if sum(info.file_size for info in members) > file.seek(0, io.SEEK_END):
        raise pickle.UnpicklingError("overlapping members")


def _refuse_inflated(content: Any, size: int) -> None:
    """Refuses tensors that stand for more numbers than a file of this size can hold."""
    # Every storage counts once, however many tensors share it
    storages: dict[int, int] = {}
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, torch.Tensor | torch.TypedStorage):
            storage = (
                _dense_storage(value) if isinstance(value, torch.Tensor) else value._untyped_storage
            )
            storages[storage.data_ptr()] = storage.nbytes()
    if sum(storages.values()) > size:
        raise pickle.UnpicklingError("tensors without their numbers")


def _dense_storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    """Returns the memory of a tensor; only dense ones, which store all their numbers, have one."""
    # Sparse, quantized and expanded tensors may stand for far more numbers than are stored
    dense = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_nested)
    if not dense or tensor.is_meta or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise pickle.UnpicklingError("a tensor that is incomplete")
    return tensor.untyped_storage()


def stored_options(
    path: str | Path, state: dict[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns those options of the run that made a checkpoint that differ from the present ones.

    Args:
        path: of the checkpoint, for errors.
        state: its content; without an entry "args" no option is known.
        options: present values of the options in question.

    Raises:
        UserError: if a stored value is of another type than the present one.
    """
    # Options that the file does not hold count as unchanged
    stored = state.get("args", {})
    if not isinstance(stored, dict):
        raise UserError(f"{path}: its args are a {type(stored).__name__}, no dictionary.")
    values = {key: stored.get(key, now) for key, now in options.items()}
    # A value of another type would fail far from here
    for key, value in values.items():
        if not isinstance(value, type(options[key])):
            raise UserError(f"{path} was trained with {key}={value!r}, which is no such option.")
    return {key: value for key, value in values.items() if value != options[key]}


def numbered(folder: str | Path) -> list[tuple[int, Path]]:
    """Returns the (step, path) of every numbered checkpoint, in ascending order."""
    matches = ((re.fullmatch(r"checkpoint_(\d+)\.pth", p.name), p) for p in Path(folder).glob("*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def resolve(folder: str | Path, which: str | int, remedy: str = "Train it first.") -> Path:
    """Returns the checkpoint named by --which_epoch: "latest" or a step.

    "latest" is the highest number, or `checkpoint_latest.pth` in a folder without numbered ones.

    Raises:
        UserError: if there is no such checkpoint; lists the available ones.
    """
    folder = require_file(folder, remedy)
    # Numbered ones first; published folders have none
    found = dict(numbered(folder))
    unnumbered = folder / "checkpoint_latest.pth"
    if which == "latest" and found:
        return found[max(found)]
    if which == "latest" and unnumbered.exists():
        return unnumbered
    if str(which).isdecimal() and int(which) in found:
        return found[int(which)]
    # The available steps help to correct the command
    listed = ", ".join(map(str, found)) or "none"
    raise UserError(f"{folder} has no checkpoint {which!r}; numbered ones: {listed}. {remedy}")


def is_finite(state: Any) -> bool:
    """Returns whether all numbers of a state dict are finite."""
    if isinstance(state, Mapping):
        return all(map(is_finite, state.values()))
    if isinstance(state, list | tuple):
        return all(map(is_finite, state))
    if isinstance(state, torch.Tensor) and state.is_floating_point():
        return bool(torch.isfinite(state).all())
    return not isinstance(state, float) or math.isfinite(state)
