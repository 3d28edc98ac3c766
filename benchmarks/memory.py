"""Measures how the memory of every stage grows with the collection: `python -m benchmarks.memory`.

Collections of several sizes repeat the photographs of one synthetic collection (hard links, so that they
take no space) and go through the documented commands; stages 3 and 4 pass over the data once, in the widths
that a CPU can train. Prints the peak of each stage at each size, the line through them and what it says
of a large collection, and the seconds that an image takes; the last line is JSON.

The peak is that of the process and all that it started, sampled five times a second: the sum of the
proportional set sizes, which count shared pages once, or the largest resident set of a single process
where that is more, which the kernel records without gaps. Linux only.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.commands import HERE, execute, link_templates
from utils import cli, files
from utils.cli import UserError

NAME = "memory"  # of the collections
RUN = "memory_singletpl"
CATEGORY = "bird"
PHOTOGRAPHS = 20  # different ones
GB = 1e9

_RECONSTRUCTION = ("run_reconstruction.py", "--name", RUN, "--dataset", NAME)
_GENERATION = ("run_generation.py", "--name", RUN, "--dataset", NAME)
_BATCH = 10

_POSES = ("--dataset", NAME, "--mode", "singletpl", "--refine_steps")

# Commands by stage, given the numbers of images and of refinement steps; step 2 keeps nine tenths
STAGES: dict[str, Callable[[int, int], tuple[str, ...]]] = {
    "prepare": lambda *_: ("-m", "data.prepare", "--dataset", NAME, "--category", CATEGORY),
    "step1": lambda _, steps: ("pose_optimization_step1.py", *_POSES, str(steps)),
    "step2": lambda _, steps: ("pose_optimization_step2.py", *_POSES, str(steps)),
    "reconstruction": lambda images, _: (
        *_RECONSTRUCTION,
        *("--width", "0.25", "--batch_size", str(_BATCH), "--iters", str(images // _BATCH + 1)),
    ),
    "pseudogt": lambda *_: (
        *_RECONSTRUCTION,
        "--generate_pseudogt",
        "--pseudogt_resolution",
        "128",
    ),
    "generation": lambda images, _: (
        *_GENERATION,
        *("--texture_resolution", "128", "--width", "0.25", "--batch_size", str(_BATCH)),
        *("--iters", str(images // _BATCH + 1), "--evaluate_freq", "1000000"),
    ),
}


class Cost(NamedTuple):
    """What a stage took at one size.

    Attributes:
        peak: bytes.
        seconds: of the whole command.
    """

    peak: float
    seconds: float


class Growth(NamedTuple):
    """The line through the peaks of a stage.

    Attributes:
        bytes_per_image: its slope.
        bytes_at_target: its value at the size that was asked for.
        seconds_per_image: the slope of the durations.
    """

    bytes_per_image: float
    bytes_at_target: float
    seconds_per_image: float


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser."""
    parser = cli.Parser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=cli.positive_int, default=[600, 6000], metavar="N", help="numbers of images, two or more (default: 600 6000)")
    parser.add_argument("--until", choices=STAGES, default="generation", metavar="STAGE", help=f"last stage, of {', '.join(STAGES)} (default: %(default)s)")
    parser.add_argument("--refine_steps", type=cli.positive_int, default=30, metavar="N", help="of steps 1 and 2; fewer take as much memory and less time (default: %(default)s)")
    parser.add_argument("--target", type=cli.positive_int, default=50000, metavar="N", help="number of images that the lines are drawn to (default: %(default)s)")
    parser.add_argument("--limit", type=cli.positive_float, default=24.0, metavar="GB", help="memory that they are to fit (default: %(default)s)")
    parser.add_argument("--repository", type=Path, default=HERE, metavar="DIR", help="checkout whose commands are run (default: this one)")
    parser.add_argument("--folder", type=Path, default=None, metavar="DIR", help="working folder; stages measured there are not run again (default: a temporary one)")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Measures all stages at all sizes, and prints a table and one line of JSON."""
    parser = build_parser()
    options = parser.parse_args(argv)
    sizes = sorted(set(options.sizes))
    if len(sizes) < 2:
        parser.error("--sizes: a line needs two different numbers of images")
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("This needs the memory statistics in /proc that Linux keeps.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary).resolve()
        repository = options.repository.resolve()
        costs = {
            size: measure(repository, folder, size, options.refine_steps, options.until)
            for size in sizes
        }
    growth = {stage: extrapolate(costs, stage, options.target) for stage in costs[sizes[0]]}
    # A table for people, one line for programs
    print("\n".join(table(costs, growth, options.target, options.limit)))  # noqa: T201
    record = {
        "torch": torch.__version__,
        "threads": os.environ.get("TMG_THREADS"),
        "target": options.target,
        "refine_steps": options.refine_steps,
        "stages": {
            stage: {
                **line._asdict(),
                "sizes": {size: costs[size][stage]._asdict() for size in sizes},
            }
            for stage, line in growth.items()
        },
    }
    print(json.dumps(record))  # noqa: T201


def measure(
    repository: Path, folder: Path, size: int, refine_steps: int, until: str
) -> dict[str, Cost]:
    """Returns what the stages up to `until` take at one size; those done before are not repeated."""
    work = folder / str(size)
    # Photographs and templates are the same at every size
    make_collection(repository, folder / "photographs", work / "datasets" / NAME, size)
    link_templates(repository, work)
    # Finished stages are not repeated, as the largest sizes take hours
    record = work / "costs.json"
    done = files.read_json(record) if record.exists() else {}
    stages = [*STAGES][: [*STAGES].index(until) + 1]
    for stage in stages:
        if stage in done:
            continue
        script, *words = STAGES[stage](size, refine_steps)
        command = (script, *words) if script == "-m" else (str(repository / script), *words)
        peak = Peak()
        seconds = execute(repository, work, *command, watch=peak.sample)
        done[stage] = Cost(peak.bytes, seconds)._asdict()
        files.write_json(record, done)
    return {stage: Cost(**done[stage]) for stage in stages}


def make_collection(repository: Path, photographs: Path, target: Path, size: int) -> None:
    """Makes a collection of `size` images that repeats a few synthetic photographs."""
    # A few different photographs are enough, since memory depends on their number
    source = photographs / "datasets" / NAME
    if not source.exists():
        photographs.mkdir(parents=True)
        options = ("--category", CATEGORY, "--num_images", str(PHOTOGRAPHS))
        execute(repository, photographs, "-m", "data.synthetic", "--dataset", NAME, *options)
    stems = sorted(path.stem for path in (source / "images").iterdir())
    # To every stage a hard link is a file of its own
    for folder in ("images", "masks", "parts"):
        (target / folder).mkdir(parents=True, exist_ok=True)
        paths = {path.stem: path for path in (source / folder).iterdir()}
        for number in range(size):
            path = paths.get(stems[number % len(stems)])
            if path is not None:  # photographs may lack parts
                link = target / folder / f"{number:06d}{path.suffix}"
                link.unlink(missing_ok=True)
                link.hardlink_to(path)
    (target / "parts.json").write_bytes((source / "parts.json").read_bytes())


class Peak:
    """The largest memory of a process and its descendants, of all samples.

    Attributes:
        bytes: the peak so far.
    """

    def __init__(self) -> None:
        self.bytes = 0

    def sample(self, pid: int) -> None:
        """Looks at the process `pid` and all that descend from it."""
        processes, total = [*descendants(pid)], 0
        for process in processes:
            total += _field(process, "smaps_rollup", "Pss:")
            self.bytes = max(self.bytes, _field(process, "status", "VmHWM:"))
        # A fork between two readings would count what both share in full and by halves
        if processes == [*descendants(pid)]:
            self.bytes = max(self.bytes, total)


def descendants(pid: int) -> Iterator[int]:
    """Yields the id of a process, and those of all that it and its children have started."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(path).split():
            yield from descendants(int(child))


def _field(pid: int, file: str, name: str) -> int:
    """Returns the bytes behind a name in a file of /proc; 0 of a process that has ended."""
    for line in _read(Path(f"/proc/{pid}/{file}")).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # ended since it was listed
        return ""


def extrapolate(costs: Mapping[int, Mapping[str, Cost]], stage: str, target: int) -> Growth:
    """Returns the line of least squares through the costs of a stage by number of images."""
    # Memory is linear in the images: a constant for the program, and a slope
    sizes = np.array([*costs], np.float64)
    peaks, seconds = np.array([costs[size][stage] for size in costs]).T
    slope, start = np.polyfit(sizes, peaks, 1)
    return Growth(slope, start + slope * target, np.polyfit(sizes, seconds, 1)[0])


def table(
    costs: Mapping[int, Mapping[str, Cost]], growth: Mapping[str, Growth], target: int, limit: float
) -> Iterator[str]:
    """Yields the lines of the table, and a verdict."""
    sizes = "".join(f"{f'{size:,}':>12}" for size in costs)
    yield f"{'peak in GB at':16}{sizes}{f'{target:,}':>12}{'kB/image':>12}{'s/image':>10}"
    for stage, line in growth.items():
        peaks = "".join(f"{cost[stage].peak / GB:12.2f}" for cost in costs.values())
        yield (
            f"{stage:16}{peaks}{line.bytes_at_target / GB:12.2f}"
            f"{line.bytes_per_image / 1e3:12.1f}{line.seconds_per_image:10.3f}"
        )
    # The stage that takes most memory decides
    largest = max(growth, key=lambda stage: growth[stage].bytes_at_target)
    needed = growth[largest].bytes_at_target / GB
    verdict = "fit" if needed <= limit else "do not fit"
    yield f"{target:,} images {verdict} {limit:g} GB: {largest} needs {needed:.1f}"


if __name__ == "__main__":
    cli.run(main)
