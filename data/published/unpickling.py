"""Reads the pickled arrays of published archives without running anything that is in them.

A pickle is a program. This one may only build numbers, text, lists, tuples, dictionaries, arrays and
tensors: every other instruction or name is refused before the first step. Arrays and tensors are put
together here from their bytes, never by numpy's or PyTorch's own unpickling code, which trusts its
input.
"""

import io
import pickle
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy_format

from utils import checkpoint
from utils.cli import UserError
from utils.files import require_file

MAX_BYTES = 2**30  # of a member when unpacked; the largest published ones have some ten megabytes
MAX_INSTRUCTIONS = 2 * 10**7  # of a pickle; 6000 detections with ten parts each have four million
MAX_CONTAINERS = 2 * 10**6  # of them; the same detections have half a million
_CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE"}
_OPCODES = set(
    re.findall(
        r"\w+",
        """
        PROTO FRAME STOP MARK MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL STACK_GLOBAL
        REDUCE BUILD NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINBYTES
        SHORT_BINBYTES BINBYTES8 BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS
        EMPTY_DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
        """,
    )
)
_READ_ERRORS = (  # what unpickling of a damaged or hostile file ends with
    *(pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(EOFError, RuntimeError, RecursionError, MemoryError, OverflowError, ImportError),
    AssertionError,
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)


def is_pickled(path: str | Path) -> bool:
    """Returns whether an .npz file is a published one: a single member with a pickled dictionary."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist() == ["data.npy"]
    except (OSError, zipfile.BadZipFile):
        return False


def load_pickled(path: str | Path, remedy: str = "Download it again.") -> Any:
    """Reads the object of a published .npy or .npz file; nothing in the file is executed.

    Args:
        path: .npy with an object array, or .npz whose member `data` is one.
        remedy: last sentence of the errors.

    Returns:
        Numbers, text, bytes, lists, tuples, dictionaries, and arrays (tensors become arrays). An
        object array of shape () is its only element, one of shape (N,) a list.

    Raises:
        UserError: if the file is missing, damaged, too large, or holds anything else.
    """
    require_file(path, remedy)
    try:
        # An archive or a bare array: the content decides, not the suffix
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return _load_npy(file)
            with zipfile.ZipFile(file) as archive, archive.open(_member(archive)) as member:
                return _load_npy(member)
    except _READ_ERRORS as error:
        # Messages may repeat what the file holds: one line of them, and a short one
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} was not loaded: {reason}. {remedy}") from None


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    info = archive.getinfo("data.npy")
    if info.file_size > MAX_BYTES:
        raise ValueError(f"it unpacks to {info.file_size} bytes, at most {MAX_BYTES} are expected")
    return info


def _load_npy(file: IO[bytes]) -> Any:
    # The version that numpy writes for all but very long headers
    version = npy_format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"expected version 1.0 of the .npy format, got {version}")
    try:
        shape, _, dtype = npy_format.read_array_header_1_0(file)
    except (SyntaxError, tokenize.TokenError):
        raise ValueError("a damaged header of the .npy format") from None
    # Plain arrays are read elsewhere, without this detour
    if not dtype.hasobject or len(shape) > 1:
        raise ValueError(f"expected a pickled object, got an array {shape} of {dtype}")
    values = loads(file.read())
    if not isinstance(values, list) or len(values) != (shape[0] if shape else 1):
        raise ValueError("the pickled objects do not fill the array")
    return values if shape else values[0]


def loads(content: bytes) -> Any:
    """Builds the object of a pickle; tensors become arrays, object arrays lists.

    Raises:
        pickle.UnpicklingError: if it holds instructions or names that plain data do not need; other
            exceptions if it is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged text; the errors say enough
        _inspect(content)
        built = _Unpickler(io.BytesIO(content)).load()
        return _Plain().convert(built)


def _inspect(content: bytes) -> None:
    """Refuses a pickle by its instructions, none of which has run yet."""
    containers = 0
    for number, (name, argument, position) in enumerate(checkpoint.instructions(content)):
        if number >= MAX_INSTRUCTIONS:  # a megabyte that unpacks to a gigabyte of empty lists
            raise pickle.UnpicklingError(
                f"the pickle has more than {MAX_INSTRUCTIONS} instructions"
            )
        # Containers take far more memory than the bytes that make them
        containers += name in _CONTAINERS
        if containers > MAX_CONTAINERS:
            raise pickle.UnpicklingError(f"the pickle makes more than {MAX_CONTAINERS} containers")
        # Only instructions and names that plain data need
        if name not in _OPCODES:
            raise pickle.UnpicklingError(f"the pickle has the instruction {name}")
        if name == "GLOBAL" and tuple(str(argument).split(" ")) not in _NAMES:
            raise pickle.UnpicklingError(f"the pickle names {str(argument).replace(' ', '.')!r}")
        # A number of a variable far above the count of instructions would reserve gigabytes
        if name == "LONG_BINPUT" and int(argument or 0) > position:
            raise pickle.UnpicklingError("the pickle has a variable out of order")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"the pickle names '{module}.{name}'")
        return _NAMES[module, name]


class _Value:
    """Something that is complete, and that no further instruction can change."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle changes a finished value")


class _Function(_Value):
    """A function of this module that stands for one that a pickle names."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        return self.value(*arguments)


class _Type:
    """An array type, made by numpy.dtype("f4", ...) and completed with the order of its bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def build(self) -> np.dtype:
        dtype = np.dtype(self.order + self.code)
        if dtype.kind not in "biufSUO" or dtype.names or dtype.subdtype:
            raise pickle.UnpicklingError(f"the pickle has an array of type {dtype}")
        return dtype


def _type(code: str, *_: Any) -> _Type:
    if len(code) > 8:
        raise pickle.UnpicklingError(f"the pickle has an array of type {code[:20]}...")
    return _Type(code)


def _ordered(items: Any = ()) -> dict:
    """An ordered dictionary, in Python 2 of pairs."""
    if any(not isinstance(key, str | bytes) for key, _ in items):
        raise pickle.UnpicklingError("the pickle has a key that is no text")
    return dict(items)


class _Array:
    """An array, made empty and completed with its shape, type and bytes."""

    __slots__ = ("value",)

    def __setstate__(self, state: tuple) -> None:
        # The state as numpy pickles it: version, shape, type, order, bytes
        _, shape, kind, fortran, content = state
        dtype = kind.build()
        if not dtype.hasobject:
            flat = np.frombuffer(content, dtype)
            self.value = flat.reshape(shape, order="F" if fortran else "C")
        elif isinstance(content, list) and len(shape) <= 1:
            self.value = content
        else:
            raise pickle.UnpicklingError("the pickle has an object array of several axes")


def _empty_array(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: _Type, content: bytes) -> Any:
    return np.frombuffer(content, kind.build())[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as Python 2 compatible pickles write them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the pickle has bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _storage(content: bytes) -> _Value:
    """The numbers of a tensor, in an archive of PyTorch's within the pickle."""
    # The same checks as for any other file of PyTorch's
    stored = checkpoint.load_stream(io.BytesIO(content))
    if not isinstance(stored, torch.TypedStorage):
        raise pickle.UnpicklingError(f"expected a tensor's storage, got {type(stored).__name__}")
    return _Value(torch.empty(0, dtype=stored.dtype).set_(stored))  # type: ignore[arg-type]


def _tensor(storage: _Value, offset: int, size: tuple, stride: tuple, *_: Any) -> _Value:
    numbers: torch.Tensor = storage.value
    if int(np.prod(size, dtype=object)) > numbers.numel():  # overlapping elements: a small file
        raise pickle.UnpicklingError(f"a tensor of shape {size} is larger than its storage")
    return _Value(numbers.as_strided(size, stride, offset).numpy())


_NAMES: dict[tuple[str, str], Callable] = {
    ("numpy.core.multiarray", "_reconstruct"): _Function(_empty_array),
    ("numpy._core.multiarray", "_reconstruct"): _Function(_empty_array),
    ("numpy.core.multiarray", "scalar"): _Function(_scalar),
    ("numpy._core.multiarray", "scalar"): _Function(_scalar),
    ("numpy", "ndarray"): _Function(_empty_array),
    ("numpy", "dtype"): _Function(_type),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch.storage", "_load_from_bytes"): _Function(_storage),
    ("collections", "OrderedDict"): _Function(_ordered),
    ("_codecs", "encode"): _Function(_encode),
}


class _Plain:
    """Replaces what stands for arrays by arrays; shared containers stay shared.

    A list of twice the list before, and so on, is small until something visits all of its elements,
    so these are counted.
    """

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, int] | None] = {}  # by identity; None while it is made

    def convert(self, value: Any) -> Any:
        """Returns the plain form of what the unpickler has built, and keeps alive."""
        return self._convert(value)[0]

    def _convert(self, value: Any) -> tuple[Any, int]:
        """Returns the plain form, and how many elements it has when shared ones count every time."""
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value, 1
        if id(value) not in self._done:
            # Marked while it is being made, so that a container inside itself is noticed
            self._done[id(value)] = None
            self._done[id(value)] = found = self._container(value)
            if found[1] > MAX_INSTRUCTIONS:
                raise pickle.UnpicklingError(f"more than {MAX_INSTRUCTIONS} elements")
        found = self._done[id(value)]
        if found is None:
            raise pickle.UnpicklingError("the pickle has a list that is an element of itself")
        return found

    def _container(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, _Value | _Array):
            inner = value.value
            return self._convert(inner) if isinstance(inner, list) else (inner, 1)
        if isinstance(value, dict):
            entries = [(key, self._convert(entry)) for key, entry in value.items()]
            return {key: x for key, (x, _) in entries}, 1 + sum(n for _, (_, n) in entries)
        if isinstance(value, list | tuple):
            parts = [self._convert(x) for x in value]
            return type(value)([x for x, _ in parts]), 1 + sum(n for _, n in parts)
        raise pickle.UnpicklingError(f"the pickle leaves a {type(value).__name__}")
