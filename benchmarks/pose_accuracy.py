"""Measures the poses of stages 1 and 2 where views are known: `python -m benchmarks.pose_accuracy`.

Runs the documented commands with their defaults, one process each, in a working folder: preparation,
step 1, and step 2 with `--keep_share 1`, since all images are judged and not only the confident ones.
Prints the half of each collection that constants were chosen by and the half that is reported
(benchmarks/halves.py) apart; the last line is JSON.

Examples:
  python -m benchmarks.pose_accuracy
  # Each kind of evidence left out in turn
  python -m benchmarks.pose_accuracy --collections realcars photobirds --ablation
  # Another checkout; what is done is kept, and used again after an interruption
  python -m benchmarks.pose_accuracy --repository ../before --folder output/before
  # Collections side by side, and one table of all
  python -m benchmarks.pose_accuracy --collections photobirds | tail -1 >>records.txt
  python -m benchmarks.pose_accuracy --records records.txt
  # After a change to step 2 only
  python -m benchmarks.pose_accuracy --folder output/poses --step2_only
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks import pose_figures
from benchmarks.commands import HERE, execute, link_templates
from benchmarks.halves import COLLECTIONS, HALVES, MISFITS, SYNTHETIC, SYNTHETIC_IMAGES
from benchmarks.pose_figures import Figures
from data.cache import pose_files, template_files
from data.detections import detections_path, load_detections
from utils import cli, files
from utils.cli import MODES, UserError

Halves = dict[str, dict[str, dict[str, Figures]]]  # by half, collection and variant

# Options of step 2 that leave one kind of evidence out; those that a checkout lacks are skipped
EVIDENCE = {
    "without part maps": ("--parts_source", "appearance"),
    "without features": ("--features", "none"),
}


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser."""
    default = [name for name in COLLECTIONS if name not in MISFITS]
    parser = cli.Parser(prog="python -m benchmarks.pose_accuracy", description=__doc__)
    parser.add_argument("--collections", nargs="+", choices=COLLECTIONS, default=default, metavar="NAME", help=f"of {', '.join(COLLECTIONS)} (default: all but {', '.join(MISFITS)})")
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data", metavar="DIR", help="folder of the photographed collections (default: ../shared/data beside this repository)")
    parser.add_argument("--mode", choices=MODES, default="singletpl", help="templates (default: %(default)s)")
    parser.add_argument("--ablation", action="store_true", help=f"also estimate {', '.join(EVIDENCE)}")
    parser.add_argument("--any_frame", action="store_true", help="judge after the best common rotation, for templates whose axes are arbitrary")
    parser.add_argument("--repository", type=Path, default=HERE, metavar="DIR", help="checkout whose commands are run (default: this one)")
    parser.add_argument("--folder", type=Path, default=None, metavar="DIR", help="working folder; what it holds is used again (default: a temporary one)")
    parser.add_argument("--step2_only", action="store_true", help="keep preparation and step 1 of --folder although the checkout has changed since")
    parser.add_argument("--records", type=Path, default=None, metavar="FILE", help="measure nothing, print the tables of earlier runs, whose last lines FILE holds")
    parser.add_argument("--step1_options", type=shlex.split, default=[], metavar="TEXT", help="further options of step 1, as one quoted word")
    parser.add_argument("--step2_options", type=shlex.split, default=[], metavar="TEXT", help="further options of step 2, as one quoted word")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Estimates and judges the poses of all collections, and prints tables and one line of JSON."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.step2_only and options.folder is None:
        parser.error("--step2_only needs the --folder of an earlier run")
    # Tables of earlier runs, without measuring anything
    if options.records is not None:
        print_tables(read_records(options.records))
        return
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(
            repository=options.repository.resolve(),
            folder=Path(options.folder or temporary).resolve(),
            data=options.data.resolve(),
            mode=options.mode,
            step1=options.step1_options,
            step2=options.step2_options,
        )
        run.open(options.step2_only)
        origin = os.getcwd()
        os.chdir(run.folder)  # where datasets/ and cache/ are looked for
        try:
            results = {
                name: measure(run, name, options.ablation, options.any_frame)
                for name in options.collections
            }
            clock = files.read_json("seconds.json", "Name another --folder.")
        finally:
            os.chdir(origin)
    # Tables for people; the last line is for programs
    halves = by_half(results)
    print_tables(halves)
    how = {"commit": run.commit, "mode": run.mode, "step1": run.step1, "step2": run.step2}
    machine = {"torch": torch.__version__, "threads": os.environ.get("TMG_THREADS")}
    how |= {"any_frame": options.any_frame, **machine, "seconds": clock}
    print(json.dumps({**how, "halves": halves}))  # noqa: T201


@dataclass(frozen=True)
class Run:
    """The commands of a checkout in a working folder.

    Attributes:
        repository: the checkout.
        folder: where its commands run: datasets/, cache/, log.txt, and poses/ with what step 2 found.
        data: the photographed collections.
        mode: singletpl or multitpl.
        step1: further options of step 1.
        step2: further options of step 2.
    """

    repository: Path
    folder: Path
    data: Path
    mode: str
    step1: list[str]
    step2: list[str]

    def open(self, step2_only: bool) -> None:
        """Sets the folder up; UserError if it holds the results of other sources or options."""
        for name in ("datasets", "cache", "poses"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # Results of other sources are refused, or those of step 2 are made again
        record, origin = self.folder / "origin", self._origin()
        if record.exists() and record.read_text() != origin:
            if not step2_only:
                raise UserError(
                    f"{self.folder} holds results of other sources or options than {self.repository} "
                    "has now. Name another --folder, or add --step2_only if step 1 is unchanged."
                )
            shutil.rmtree(self.folder / "poses")
            (self.folder / "poses").mkdir()
        files.write_bytes(record, origin.encode())
        link_templates(self.repository, self.folder)

    def _origin(self) -> str:
        """Returns a hash of all that results depend on: sources, templates, options."""
        # Everything that results depend on; tests and benchmarks only judge them
        patterns = ("*.py", "cache/remeshed_templates/*.pth", ":!tests", ":!benchmarks")
        names = self._git("ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns)
        found = hashlib.sha256(repr((self.mode, self.step1, self.step2)).encode())
        for path in (self.repository / name for name in sorted(names.splitlines())):
            found.update(path.read_bytes() if path.exists() else b"")
        return found.hexdigest()

    def _git(self, *words: str) -> str:
        command = ["git", "-C", str(self.repository), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"--repository {self.repository}: {done.stderr.strip()}")
        return done.stdout

    @cached_property
    def commit(self) -> str:
        """Which version of the sources is measured."""
        return self._git("describe", "--always", "--dirty").strip()

    @cached_property
    def evidence(self) -> dict[str, tuple[str, ...]]:
        """The kinds of evidence that this checkout can leave out."""
        command = [sys.executable, str(self.repository / "pose_optimization_step2.py"), "--help"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {kind: words for kind, words in EVIDENCE.items() if words[0] in text.split()}

    def execute(self, collection: str, stage: str, *command: str) -> None:
        """Runs a Python command and adds its seconds to seconds.json."""
        # Progress goes to stderr, as stdout is for results
        print(f"{collection}: {stage}", file=sys.stderr, flush=True)  # noqa: T201
        taken = execute(self.repository, self.folder, *command)
        clock = self.folder / "seconds.json"
        seconds = files.read_json(clock) if clock.exists() else {}
        seconds.setdefault(collection, {})[stage] = round(taken, 1)
        files.write_json(clock, seconds)

    def prepare(self, name: str) -> None:
        """Makes or links a collection and prepares it, unless that has been done."""
        if detections_path(name).exists():
            return
        # Synthetic collections are made here, photographed ones are linked
        protocol, target = COLLECTIONS[name], Path("datasets") / name
        if name in SYNTHETIC:
            count = str(SYNTHETIC_IMAGES)
            words = ("-m", "data.synthetic", "--category", protocol.category, "--num_images", count)
            self.execute(name, "making", *words)
        elif not target.exists():
            source = self.data / (protocol.source or name)
            target.symlink_to(files.require_file(source, "--data names the folder of collections."))
        category = ("--category", protocol.category)
        self.execute(name, "preparation", "-m", "data.prepare", "--dataset", name, *category)

    def search(self, name: str) -> None:
        """Runs step 1, unless that has been done."""
        if not pose_files.hypotheses_path(name, self.mode).exists():
            self._step("1", name, "step 1", self.step1)

    def choose(self, name: str, variant: str, words: Sequence[str]) -> Path:
        """Runs step 2 for all images, unless that has been done; returns the path of the poses."""
        path = self.folder / "poses" / f"{name}_{variant.replace(' ', '_')}_{self.mode}.bin"
        if not path.exists():
            self._step("2", name, f"step 2, {variant}", [*words, *self.step2, "--keep_share", "1"])
            os.replace(pose_files.poses_path(name, self.mode), path)
        return path

    def _step(self, number: str, name: str, stage: str, words: Sequence[str]) -> None:
        script = str(self.repository / f"pose_optimization_step{number}.py")
        self.execute(name, stage, script, "--dataset", name, "--mode", self.mode, *words)


def measure(run: Run, name: str, ablation: bool, any_frame: bool) -> dict[str, dict[str, Figures]]:
    """Returns the figures of a collection by variant ("all" evidence first) and half."""
    run.prepare(name)
    run.search(name)
    # What the steps have found, as later stages read it
    detections = load_detections(name)
    templates = template_files.templates_of(detections, run.mode)
    origin = pose_files.origin_of(detections, templates)
    hypotheses = pose_files.load_hypotheses(name, run.mode, origin)
    results = {}
    # Step 2 once per variant, from the same hypotheses
    for variant, words in variants(run, name, ablation):
        path = run.choose(name, variant, words)
        poses = pose_files.read_estimated_poses(path, origin, f"rm {path}")
        found = (detections, COLLECTIONS[name], hypotheses, poses)
        estimates = pose_figures.compare(*found, any_frame)
        results[variant] = pose_figures.judge(estimates)
    return results


def variants(run: Run, name: str, ablation: bool) -> Iterator[tuple[str, Sequence[str]]]:
    """Yields the names of all ways to choose the poses of a collection, and their options."""
    yield "all", ()
    for kind, words in run.evidence.items() if ablation else ():
        if kind != "without part maps" or (Path("datasets") / name / "parts").is_dir():
            yield kind, words


def by_half(results: dict[str, dict[str, dict[str, Figures]]]) -> Halves:
    """Returns figures by half, collection and variant instead of by collection, variant and half."""
    halves: Halves = {half: {} for half in HALVES}
    for name, variants in results.items():
        for variant, found in variants.items():
            for half, some in found.items():
                halves[half].setdefault(name, {})[variant] = some
    return halves


def read_records(path: Path) -> Halves:
    """Returns the figures of all lines of JSON in a file; those of later lines replace earlier ones."""
    halves: Halves = {half: {} for half in HALVES}
    text = files.require_file(path, "It holds what earlier runs printed.").read_text()
    try:
        records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        for half, collections in (pair for r in records for pair in r["halves"].items()):
            for name, variants in collections.items():
                halves[half].setdefault(name, {}).update(variants)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not what this benchmark prints ({error!r}).") from error
    return halves


def print_tables(halves: Halves) -> None:
    """Prints a table of figures and one of sectors for each half."""
    lines = [pose_figures.EXPLANATION]
    for half, found in halves.items():
        tables = (*pose_figures.table(found), *pose_figures.sector_table(found))
        lines += ["", f"The half for {half}", *tables]
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    cli.run(main)
