"""Files that try to run code, to write files or to exhaust memory when they are opened."""

import functools
import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.cache.pseudo_files import PseudoItem

MARK = "executed"  # the folder that a successful attack makes


def call(name: str, *arguments: Any) -> bytes:
    """Returns a pickle (protocol 2) that calls module.name(*arguments)."""
    module, _, attribute = name.rpartition(".")
    body = b"".join(pickle.dumps(x, 2)[2:-1] for x in arguments)
    return b"\x80\x02" + f"c{module}\n{attribute}\n(".encode() + body + b"tR."


def stacked(module: str, name: str, *arguments: Any) -> bytes:
    """The same with the name on the stack (protocol 4), where it may have dots."""
    body = b"".join(pickle.dumps(x, 2)[2:-1] for x in arguments)
    words = b"".join(b"\x8c" + bytes([len(w)]) + w.encode() for w in (module, name))
    return b"\x80\x04" + words + b"\x93(" + body + b"tR."


_EVAL = f"__import__('os').mkdir('{MARK}')"
_SHELL = f"mkdir {MARK}"
_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"


def _array(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    """Returns a pickled array with a state of its own making."""
    return b"\x80\x03" + _ARRAY + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb."


def _tensor(size: tuple, stride: tuple, storage: bytes) -> bytes:
    body = b"".join(pickle.dumps(x, 2)[2:-1] for x in (0, size, stride, False))
    inner = b"ctorch.storage\n_load_from_bytes\n(" + pickle.dumps(storage, 3)[2:-1] + b"tR"
    return b"\x80\x03ctorch._utils\n_rebuild_tensor_v2\n(" + inner + body + b"}tR."


def _saved(value: Any, zipped: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def deflated(content: bytes) -> bytes:
    """Returns a zip archive with the same members, compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w", 8) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return out.getvalue()


def _laughs(depth: int) -> bytes:
    """Lists of two references to the list before: 2^depth elements in a few bytes."""
    steps = b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(depth))
    return b"\x80\x02]q\x00" + steps + b"."


def tuples(depth: int) -> bytes:
    """A tuple of twice the tuple before, and so on: 2^depth elements to hash."""
    return b"K\x01q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(depth))


_STORAGE = next(
    argument
    for _, argument, _ in pickletools.genops(pickle.dumps(torch.ones(4), 3))
    if isinstance(argument, bytes)
)
_F4 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
_O8 = _F4.replace(b"f4", b"O8").replace(b"<", b"|")

PICKLES: dict[str, bytes] = {
    "os.system": call("os.system", _SHELL),
    "posix.system": call("posix.system", _SHELL),
    "os.mkdir": call("os.mkdir", MARK),
    "subprocess.Popen": call("subprocess.Popen", ["mkdir", MARK]),
    "subprocess.check_output": call("subprocess.check_output", ["mkdir", MARK]),
    "builtins.eval": call("builtins.eval", _EVAL),
    "builtins.exec": call("builtins.exec", _EVAL),
    "builtins.open": call("builtins.open", MARK, "w"),
    "builtins.getattr": call("builtins.getattr", "x", "__class__"),
    "builtins.__import__": call("builtins.__import__", "antigravity"),
    "__builtin__.eval": call("__builtin__.eval", _EVAL),
    "importlib.import_module": call("importlib.import_module", "this"),
    "runpy.run_path": call("runpy.run_path", "x.py"),
    "shutil.rmtree": call("shutil.rmtree", "kept"),
    "pathlib.Path.touch": stacked("pathlib", "Path.touch", MARK),
    "pty.spawn": call("pty.spawn", "true"),
    "ctypes.CDLL": call("ctypes.CDLL", "libc.so.6"),
    "pickle.loads": call("pickle.loads", call("os.mkdir", MARK)),
    "marshal.loads": call("marshal.loads", b"N"),
    "codecs.decode": call("codecs.decode", "x", "rot13"),
    "functools.partial": call("functools.partial", 1),
    "operator.attrgetter": call("operator.attrgetter", "system"),
    "numpy.load": call("numpy.load", "x.npy", None, True),
    "numpy.save": call("numpy.save", MARK, 1),
    "numpy.memmap": call("numpy.memmap", MARK, "f4", "w+", 0, 8),
    "numpy.fromfile": call("numpy.fromfile", "x"),
    "numpy.runstring": call("numpy.testing._private.utils.runstring", _EVAL, {}),
    "numpy.ndarray.tofile": stacked("numpy", "ndarray.tofile", 1, MARK),
    "numpy.core.multiarray.fromstring": call("numpy.core.multiarray.fromstring", "1", "f4"),
    "torch.load": call("torch.load", "x.pth"),
    "torch.save": call("torch.save", 1, MARK),
    "torch.hub.load": call("torch.hub.load", "x/y", "z"),
    "torch.jit.load": call("torch.jit.load", "x"),
    "torch.storage": call("torch.storage._load_from_bytes", call("os.mkdir", MARK)),
    "torch.storage nested": call("torch.storage._load_from_bytes", _saved([call("a.b")])),
    "torch.storage of an object": call("torch.storage._load_from_bytes", _saved(Path(MARK))),
    "torch.storage bomb": _tensor((4,), (1,), deflated(_saved(torch.zeros(10**6), True))),
    "tensor beyond its storage": _tensor((5,), (1,), _STORAGE),
    "tensor of stride 0": _tensor((10**12,), (0,), _STORAGE),
    "tensor of huge stride": _tensor((2,), (2**60,), _STORAGE),
    "array larger than its bytes": _array(b"(J\xff\xff\xff\x7ft", _F4, b"C\x04abcd"),
    "array of a structure": _array(b"(K\x01t", _F4.replace(b"f4", b"V4"), b"C\x04abcd"),
    "array of pointers": _array(b"(K\x01t", _O8, b"C\x08abcdefgh"),
    "array without a type": b"\x80\x03" + _ARRAY + b".",
    "dtype as data": b"\x80\x03" + _F4 + b".",
    "function as data": b"\x80\x03cnumpy\nndarray\n.",
    "function changed": b"\x80\x03ccollections\nOrderedDict\n}b.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "extension": b"\x80\x02\x82\x01.",
    "instance": f"(S'{_SHELL}'\nios\nsystem\n.".encode(),
    "new object": b"\x80\x02cos\nsystem\n)\x81.",
    "variable number 2^31": b"\x80\x02]r\xff\xff\xff\x7f.",
    "text of 2^40 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "nested 100000 deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "doubled 60 times": _laughs(60),
    "list of itself": b"\x80\x02]q\x00h\x00a.",
    "key doubled 60 times": b"\x80\x02}" + tuples(60) + b"K\x01s.",
    "keys doubled 60 times": b"\x80\x02}(" + tuples(60) + b"K\x01u.",
    "key doubled 60 times, in order": b"\x80\x02ccollections\nOrderedDict\n(](("
    + tuples(60)
    + b"K\x01teetR.",
    "keys that collide": b"\x80\x02}("
    + b"".join(
        b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"K\x01" for i in range(1, 9)
    )
    + b"u.",
    "type of a megabyte": b"\x80\x03cnumpy\ndtype\n(X"
    + struct.pack("<I", 2**20)
    + b"f4" * 2**19
    + b"\x89\x88tR.",
    "cut": call("collections.OrderedDict")[:-5],
    "empty": b"",
}


def npy(content: bytes, shape: str = "()") -> bytes:
    """Returns a .npy file with a pickle."""
    header = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def npz(content: bytes, name: str = "data.npy") -> bytes:
    """Returns a .npz file with one member."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def pth(content: bytes) -> bytes:
    """Returns a file of torch.save with another pickle in it."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_saved({"a": torch.ones(2)}, True))) as source,
        zipfile.ZipFile(out, "w") as target,
    ):
        for name in source.namelist():
            target.writestr(name, content if name.endswith("data.pkl") else source.read(name))
    return out.getvalue()


def _lying_npz() -> bytes:
    """A member that says it unpacks to 4 GB."""
    content = bytearray(npz(npy(b"N.")))
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 16)
    return bytes(content)


def _overlapping_pth() -> bytes:
    """A hundred members that are the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", bytes(10_000))
        archive.filelist.extend(archive.filelist * 99)
    return out.getvalue()


def _generator(tensor: torch.Tensor) -> bytes:
    return _saved({"generator": {"a": tensor}}, True)


def _without_numbers() -> bytes:
    """A file of the old format that reserves eight gigabytes and brings none of them."""
    content = _saved({"generator": {"a": torch.ones(7)}})
    ends = [end for end in range(len(content)) if content[end : end + 3] == b".\x80\x02"]
    kept = content[: ends[3] + 1].replace(b"K\x07", b"J" + struct.pack("<i", 2 * 10**9))
    return kept + pickle.dumps([], 2)


def _npz_of(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _poses(**changes: torch.Tensor) -> bytes:
    pose = {"R": torch.eye(4), "s": torch.ones(4, 1), "t": torch.zeros(4, 2), "w": torch.ones(4, 1)}
    pose |= dict.fromkeys(("z0", "iou", "miou"), torch.ones(4, 1)) | {"indices": torch.arange(4)}
    return _saved(pose | changes, True)


def _metadata(**changes: Any) -> bytes:
    arrays: dict[str, Any] = {"scale": np.ones((2, 1)), "translation": np.zeros((2, 3))}
    arrays |= {"rotation": np.ones((2, 4)), "z0": np.ones((2, 1)), "category": np.zeros(2, int)}
    return _npz_of(**arrays | {"path": ["a", "b"]} | changes)


def _statistics(**changes: Any) -> bytes:
    arrays = {"stats_m": np.zeros(3), "stats_s": np.eye(3), "num_images": 9, "resolution": 299}
    return _npz_of(**arrays | changes)


ARCHIVES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "npz of 4 GB": ("cache/cub/poses_metadata_singletpl.npz", _lying_npz),
    "npz without its member": (
        "cache/cub/poses_metadata_singletpl.npz",
        lambda: npz(npy(b"N."), "../../data.npy"),
    ),
    "npz in an npz": (
        "cache/cub/poses_metadata_singletpl.npz",
        lambda: npz(npz(npy(call("os.mkdir", MARK)))),
    ),
    "array of 10^15 numbers": (
        "cache/cub/precomputed_fid_299x299.npz",
        lambda: npz(npy(b"", "(10**15,)").replace(b"|O", b"f8"), "stats_m.npy"),
    ),
    "compressed checkpoint": (
        "checkpoints_gan/a/checkpoint_1.pth",
        lambda: deflated(_saved({"generator": {"a": torch.zeros(10**6)}}, True)),
    ),
    "overlapping checkpoint": ("checkpoints_gan/a/checkpoint_1.pth", _overlapping_pth),
    "checkpoint in the old format": (
        "checkpoints_gan/a/checkpoint_1.pth",
        lambda: call("os.mkdir", MARK),
    ),
    "checkpoint of a class": (
        "checkpoints_gan/a/checkpoint_1.pth",
        lambda: _saved({"generator": torch.nn.Linear(2, 2)}, True),
    ),
    "checkpoint of an array": (
        "checkpoints_gan/a/checkpoint_1.pth",
        lambda: _saved({"generator": np.ones(2)}, True),
    ),
}
_CHECKPOINT = "checkpoints_gan/a/checkpoint_1.pth"
_CUB = "cache/cub"
ARCHIVES |= {
    "80 GB of one number": (_CHECKPOINT, lambda: _generator(torch.zeros(1).expand(2 * 10**10))),
    "8 GB without numbers": (_CHECKPOINT, _without_numbers),
    "tensor elsewhere": (_CHECKPOINT, lambda: _generator(torch.empty(10**9, device="meta"))),
    "sparse tensor": (_CHECKPOINT, lambda: _generator(torch.eye(3).to_sparse())),
    "tensors without names": (_CHECKPOINT, lambda: _saved({"generator": {1: torch.ones(2)}}, True)),
    "templates of one number": (
        "cache/remeshed_templates/singletpl/bird_templates.pth",
        lambda: _saved(torch.zeros(1).expand(10**7, 962, 3), True),
    ),
    **{
        f"poses with {name}": (
            f"{_CUB}/poses_estimated_singletpl.bin",
            functools.partial(_poses, **{name: value}),
        )
        for name, value in {
            "R": torch.full((4, 4), float("nan")),
            "s": torch.ones(()),
            "t": torch.zeros(4, 3),
            "w": torch.ones(3, 1),
            "indices": torch.arange(-1, 3),
            "iou": torch.ones(4, 1).bool().to_sparse(),
        }.items()
    },
    **{
        f"metadata with {name}": (
            f"{_CUB}/poses_metadata_singletpl.npz",
            functools.partial(_metadata, **{name: value}),
        )
        for name, value in {
            "scale": np.full((2, 1), np.inf),
            "rotation": np.full((2, 4), "x"),
            "category": np.array([0, 99]),
            "path": np.array("a"),
        }.items()
    },
    **{
        f"statistics with {name}": (
            f"{_CUB}/precomputed_fid_299x299.npz",
            functools.partial(_statistics, **{name: value}),
        )
        for name, value in {
            "stats_m": np.full(3, np.nan),
            "stats_s": np.eye(3) * 1j,
            "num_images": 0,
            "resolution": "large",
            "sample": np.zeros((2, 3, 4)),
        }.items()
    },
    "item of text": (
        f"{_CUB}/pseudogt_8x8_singletpl/0.npz",
        lambda: _npz_of(**dict.fromkeys(PseudoItem._fields, "x")),
    ),
    "header of brackets": (
        f"{_CUB}/detections.npy",
        lambda: npy(b"N.").replace(b"'|O'", b"[[[[["),
    ),
}


def write_all(folder: Path) -> list[Path]:
    """Writes every hostile file, each in a folder of its own; returns their paths."""
    files: dict[str, bytes] = {}
    for number, content in enumerate(PICKLES.values()):
        root = f"p{number}"
        files[f"{root}/cub/detections.npy"] = npy(content, "(1,)")
        files[f"{root}/cub/poses_metadata_singletpl.npz"] = npz(npy(content))
        files[f"{root}/checkpoint_1.pth"] = pth(content)
    for number, (path, make) in enumerate(ARCHIVES.values()):
        files[f"a{number}/{path}"] = make()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in files]
