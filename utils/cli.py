"""Common parts of the command lines: options, their types, and one-line errors for users."""

import argparse
import errno
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

MODES = ("singletpl", "multitpl")
RASTERIZERS = ("auto", "numba", "triton", "kaolin", "dense")
POINT_GRID = 64

_UNUSABLE = {  # a path that is forbidden, taken by something else, or too long
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
# How PyTorch words it on CPUs and GPUs
_OUT_OF_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory")
_REPEAT_SECONDS = 0.05  # after which a callback has ended
# Rounds that threads of OpenMP wait busily for each other before they sleep. Its default of 300,000 lets
# them burn a processor for milliseconds while the thread they wait for has none. Between 2,000 and 5,000,
# two programs on two cores take 1.9 to 2.8 times as long each, and one alone hardly longer (docs/hardware.md).
_SPIN_COUNT = 3000


class UserError(Exception):
    """A mistake of the user, reported in one line: what, where, got versus expected, remedy."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a program as Ctrl-C does."""


def run(main: Callable[[], object]) -> None:
    """Calls `main` and reports expected failures in one line, without a traceback.

    Exit status: 1 after a `UserError`, without memory, on a full disk or a path that may not be
    used, 130 after Ctrl-C, 143 after SIGTERM. Everything else is a bug and keeps its traceback.
    """
    spin_little()
    # Installed first, so that SIGTERM ends every stage in the same way
    signal.signal(signal.SIGTERM, _terminator())
    repeat_lost_signals()
    try:
        main()
    except (UserError, MemoryError, RuntimeError) as error:
        if (mistake := mistake_behind(error)) is None:
            raise
        _fail(f"error: {one_line(str(mistake))}", 1)
    except KeyboardInterrupt as stop:
        sys.unraisablehook = lambda lost: None  # of objects that were left half made
        status = 143 if isinstance(stop, Terminated) else 130
        _fail(f"interrupted{stop}: run the same command again to continue", status)
    except OSError as error:
        # Paths that cannot be used are the user's to fix, and so is a full disk; the rest are bugs
        if error.errno in _UNUSABLE and error.filename:
            _fail(f"error: {one_line(str(error.filename))} cannot be used ({error.strerror}).", 1)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _fail(f"error: no space left on the disk{where}. Free some, then run the command again.", 1)


def spin_little() -> None:
    """Bounds how long waiting threads keep a processor busy, unless the environment says it.

    Only before PyTorch is loaded: OpenMP reads it once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPIN_COUNT))


def mistake_behind(error: Exception) -> UserError | None:
    """Returns what to tell the user of an error; None of a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        details = one_line(str(error))[:120]
        return UserError(
            f"memory has run out ({details}). Use a smaller --batch_size, --width or resolution, or "
            "fewer processes."
        )
    return None


def repeat_lost_signals() -> None:
    """Sends Ctrl-C and SIGTERM again where Python drops what they raise.

    It drops all exceptions in callbacks from C, as while numba loads compiled loops, in destructors,
    and while it forks.
    """
    report = sys.unraisablehook

    def repeat(lost: Any) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            report(lost)
            return
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        timer = threading.Timer(_REPEAT_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = repeat


def _terminator() -> Callable[[int, FrameType | None], None]:
    """Returns a handler that raises in this process, and ends forked ones as if there were none."""
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return terminate


def one_line(text: str) -> str:
    """Returns text as one line of printable characters: file names may hold terminal escapes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.splitlines()))


def _fail(line: str, status: int) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - the one message that a user must see
    sys.exit(status)


class Parser(argparse.ArgumentParser):
    """Argument parser without abbreviations; dashes and underscores in long options are the same."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self._presets: Mapping[str, Mapping[str, Any]] = {}

    def add_presets(self, presets: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds --preset, by whose name other defaults take the place of the present ones."""
        self._presets = presets
        text = "defaults for a budget of time, which other options override"
        self.add_argument("--preset", choices=tuple(presets), help=text)

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line, without the list of all options."""
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help lists the options)\n")

    def parse_known_args(  # type: ignore[override] - argparse overloads on the namespace
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parses as argparse does, after `--export-sample` was read as `--export_sample`."""
        # argparse itself takes only the exact spelling
        words = sys.argv[1:] if args is None else args
        words = [self._spell(word) for word in words]
        self._apply_preset(words)
        return super().parse_known_args(words, namespace)

    def _apply_preset(self, words: Sequence[str]) -> None:
        """Sets the defaults of the preset that is named, wherever it stands."""
        spelled = " ".join(words).replace("--preset=", "--preset ").split(" ")
        name = dict(zip(spelled, [*spelled[1:], ""], strict=True)).get("--preset", "")
        values = dict(self._presets.get(name, {}))
        # The length of a training is said in either of two ways
        if any(word.partition("=")[0] == "--epochs" for word in words):
            values.pop("iters", None)
        self.set_defaults(**values)

    def _spell(self, word: str) -> str:
        if not word.startswith("--"):
            return word
        option, equals, value = word.partition("=")
        # Compare without the difference between dashes and underscores
        for known in self._option_string_actions:
            if known.replace("_", "-") == option.replace("_", "-"):
                return known + equals + value
        return word


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Adds --gpu_ids, --seed and --rasterizer."""
    # fmt: off
    group = parser.add_argument_group("machine")
    group.add_argument("--gpu_ids", type=gpu_ids, default=None, metavar="IDS", help="GPUs such as 0,1, or cpu (default: GPU 0 if there is one, else the CPU)")
    group.add_argument("--seed", type=non_negative_int, default=1, metavar="N", help="seed of all random numbers (default: %(default)s)")
    group.add_argument("--rasterizer", choices=RASTERIZERS, default="auto", help="rasterizer backend (default: the fastest that works on the device)")
    # fmt: on


def add_silhouette_options(group: argparse._ArgumentGroup, *, grid: bool = True) -> None:
    """Adds --silhouette, how silhouettes of meshes are compared with masks, and its --point_grid."""
    # fmt: off
    group.add_argument("--silhouette", choices=("raster", "volume", "cover"), default="raster", help="how silhouettes are compared with masks: raster renders meshes; without rendering, volume fills a grid with points of their surfaces, and cover spreads points over the mask (default: %(default)s)")
    if grid:
        group.add_argument("--point_grid", type=pixels, default=POINT_GRID, metavar="G", help="cells along each edge of the grid of --silhouette volume (default: %(default)s)")
    # fmt: on


def check_silhouette_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses a grid that would not be used."""
    if args.point_grid != POINT_GRID and args.silhouette != "volume":
        parser.error(f"--point_grid {args.point_grid} is for --silhouette volume")


def mode_from_name(name: str, mode: str) -> str:
    """Returns singletpl or multitpl, read from the run's name when `mode` is "autodetect"."""
    if mode != "autodetect":
        return mode
    # By convention the name of a run contains its mode
    for candidate in MODES:
        if candidate in name:
            return candidate
    raise UserError(
        f"--name {name}: the name contains neither singletpl nor multitpl, so the mode is unknown. "
        f"Give the whole name, such as {name}_singletpl, or add --mode singletpl or multitpl."
    )


def _number(text: str, kind: type, accept: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    # NaN and infinity parse as numbers, but no option takes them
    if value is None or not math.isfinite(value) or not accept(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def positive_int(text: str) -> int:
    """Option type: 1, 2, ..."""
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def pixels(text: str) -> int:
    """Option type: size of a picture, 16 to 4096."""
    return _number(text, int, lambda value: 16 <= value <= 4096, "a number of pixels, 16 to 4096")


def part_count(text: str) -> int:
    """Option type: 1 to 64."""
    return _number(text, int, lambda value: 1 <= value <= 64, "a whole number from 1 to 64")


def spread(text: str) -> float:
    """Option type: a number in [0, 10]."""
    return _number(text, float, lambda value: 0 <= value <= 10, "a number from 0 to 10")


def non_negative_int(text: str) -> int:
    """Option type: 0, 1, ..."""
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or above")


def automatic_int(text: str) -> int:
    """Option type: 1, 2, ..., or -1 to let the program choose."""
    return _number(
        text, int, lambda value: value > 0 or value == -1, "a whole number above 0, or -1"
    )


def positive_float(text: str) -> float:
    """Option type: a finite number above 0."""
    return _number(text, float, lambda value: value > 0, "a number above 0")


def gigabytes(text: str) -> float:
    """Option type: 0 to a million."""
    return _number(text, float, lambda value: 0 <= value <= 1e6, "a number from 0 to 1000000")


def learning_rate(text: str) -> float:
    """Option type: a number above 0 by which single precision can multiply."""
    return _number(text, float, lambda value: 0 < value <= 1e30, "a number above 0, at most 1e30")


def non_negative_float(text: str) -> float:
    """Option type: a finite number, 0 or above."""
    return _number(text, float, lambda value: value >= 0, "a number, 0 or above")


def fraction(text: str) -> float:
    """Option type: a number in [0, 1]."""
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def fractions(text: str) -> tuple[float, ...]:
    """Option type: "0.1,0.15" -> (0.1, 0.15); numbers above 0, up to 1."""
    words = text.split(",")
    expected = "numbers above 0, up to 1, as in 0.1,0.15"
    return tuple(_number(word, float, lambda value: 0 < value <= 1, expected) for word in words)


def several(*choices: str) -> Callable[[str], tuple[str, ...]]:
    """Returns an option type: different words out of some, such as "iou,color"."""

    def parse(text: str) -> tuple[str, ...]:
        words = tuple(word.strip() for word in text.split(","))
        if not {*words} <= {*choices} or len({*words}) < len(words):
            known = ", ".join(choices)
            raise argparse.ArgumentTypeError(f"expected some of {known}; got {text!r}")
        return words

    return parse


def checkpoint_choice(text: str) -> str:
    """Option type: the number of a checkpoint, "latest" or "best"."""
    if text not in ("latest", "best") and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number, latest or best; got {text!r}")
    return text


def run_name(text: str) -> str:
    """Option type: the name of a run or dataset, which becomes the name of one folder."""
    # Separators would leave the folder of runs; a leading dash reads as an option
    unsafe = any(c in "/\\:" or not c.isprintable() for c in text)
    if unsafe or not text.strip() or text.startswith((".", "-")):
        raise argparse.ArgumentTypeError(
            f"expected a plain folder name (no separators, no leading dot or dash), got {text!r}"
        )
    return text


def dataset_name(text: str) -> str:
    """Option type: the name of a single dataset; a comma would make it a list."""
    if "," in run_name(text):
        raise argparse.ArgumentTypeError(f"expected the name of one dataset, got {text!r}")
    return text


def dataset_names(text: str) -> str:
    """Option type: the names of one dataset or several different ones, as in dogs,cats; or all."""
    names = [run_name(name) for name in text.split(",")]
    if len(set(names)) < len(names) or ("all" in names and len(names) > 1):
        raise argparse.ArgumentTypeError(
            f"expected all, or different datasets as in dogs,cats; got {text!r}"
        )
    return text


def gpu_ids(text: str) -> tuple[int | str, ...]:
    """Option type: "0,1" -> (0, 1); "cpu" -> ("cpu",); "cpu,cpu" means two processes."""
    # Equal numbers would share a GPU, "cpu" may repeat
    words = [word.strip() for word in text.split(",")]
    if all(word == "cpu" for word in words):
        return tuple(words)
    if all(word.isdecimal() for word in words) and len(set(map(int, words))) == len(words):
        return tuple(int(word) for word in words)
    raise argparse.ArgumentTypeError(
        f"expected different GPU numbers as in 0,1, or cpu; got {text!r}"
    )
