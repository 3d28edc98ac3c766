"""The folder of a run: config.json, log.txt, metrics.jsonl, checkpoints; and its TensorBoard events."""

import json
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from utils import checkpoint, files
from utils.cli import UserError
from utils.distributed import barrier, is_main
from utils.options import differences
from utils.progress import print_line

LATEST = "checkpoint_latest.pth"


class RunDirectory:
    """The folder of one run; only the first process writes to it.

    Attributes:
        path: the folder, made by the first thing that is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training the same run; their error names the one that does."""
        with ExitStack() as stack:
            if is_main():
                stack.enter_context(files.exclusive(self.path / ".lock", str(self.path)))
            barrier()
            yield

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json: the options, the commit, the versions and the device."""
        if is_main():
            files.write_json(self.path / "config.json", {**config, "environment": environment()})

    def changes(self, config: Mapping[str, Any], fixed: Sequence[str]) -> str:
        """Names the options that have changed since the run was begun; empty if none has.

        Raises:
            UserError: if one of the options `fixed` has, or config.json is damaged.
        """
        path, remedy = self.path / "config.json", "Delete it and run again."
        # A new run has nothing to compare with
        if not path.exists():
            return ""
        stored = files.read_json(path, remedy)
        if not isinstance(stored, dict):
            raise UserError(f"{path} is damaged: expected an object with options. {remedy}")
        changed = differences(config, stored)
        # Options that decide what the weights mean must not change
        for key in fixed:
            if key in changed:
                raise UserError(
                    f"{self.path} was trained with {key}={changed[key][0]}; this command asks for "
                    f"{changed[key][1]}. Use the same value, or another --name."
                )
        return ", ".join(f"{key} {now} (was {was})" for key, (was, now) in changed.items())

    def record(self, **values: Any) -> None:
        """Appends one line to metrics.jsonl, for example record(step=100, loss_g=0.3)."""
        if is_main():
            self.path.mkdir(parents=True, exist_ok=True)
            with open(self.path / "metrics.jsonl", "ab+") as file:
                _mend(file)
                file.write(files.to_json(values).encode() + b"\n")

    def records(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl; a last line cut off by a crash is left out.

        Raises:
            UserError: if another line is damaged.
        """
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [
            _parse_record(line, f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.endswith(b"\n")
        ]

    def rewind(self, step: int) -> None:
        """Removes the records after `step`, where a resumed run continues."""
        path = self.path / "metrics.jsonl"
        if is_main() and path.exists():
            kept = [record for record in self.records() if record.get("step", 0) <= step]
            text = "".join(files.to_json(record) + "\n" for record in kept)
            files.write_bytes(path, text.encode())

    def newest_checkpoint(self) -> tuple[Path, dict[str, Any]] | None:
        """Returns path and content of the checkpoint with the most steps; None where there is none.

        Published checkpoints may hold the weights alone, without a number of steps.
        """
        # The latest checkpoint is usually a link to the newest numbered one, and then read once
        latest = self.path / LATEST
        paths = [path for _, path in checkpoint.numbered(self.path)[-1:]]
        if latest.exists() and not any(path.samefile(latest) for path in paths):
            paths.append(latest)
        states = [(path, checkpoint.load(path)) for path in paths]
        return max(states, key=lambda found: _steps_of(*found), default=None)

    def save_checkpoint(self, step: int, state: Mapping[str, Any], *, numbered: bool) -> None:
        """Writes checkpoint_latest.pth, and the numbered one that it then shares its content with."""
        latest = self.path / LATEST
        if not numbered:
            checkpoint.save(latest, state)
            return
        # Both names share one file, which halves the disk space
        path = checkpoint.path_of(self.path, step)
        checkpoint.save(path, state)
        with files.atomic_path(latest) as temporary:
            try:
                os.link(path, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(path, temporary)

    def prune_checkpoints(self, keep: int, score: str | None = None) -> None:
        """Removes numbered checkpoints except the newest ones, and the one with the lowest score.

        Args:
            keep: how many of the newest stay.
            score: name of a measure in metrics.jsonl.
        """
        numbered = dict(checkpoint.numbered(self.path))
        # The newest ones stay, and the best of those that were measured
        spared = set(sorted(numbered)[-keep:])
        scores = {r["step"]: r[score] for r in self.records() if score in r and "step" in r}
        measured = [step for step in sorted(scores) if step in numbered]
        if measured:
            spared.add(min(measured, key=lambda step: scores[step]))
        for step in numbered.keys() - spared:
            numbered[step].unlink()

    def tensorboard(self, folder: str | Path | None, step: int = 0) -> Any:
        """Returns a SummaryWriter, or an object that ignores all calls when `folder` is None.

        Args:
            folder: where the event files go; only the first process writes.
            step: where a resumed run continues; later events of an earlier process are dropped.
        """
        if folder is None or not is_main():
            return _SilentWriter()
        # An optional package, and a slow import
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs a package: pip install tensorboard. Or omit the option."
            ) from None
        return SummaryWriter(str(folder), purge_step=step + 1)


def _mend(file: BinaryIO) -> None:
    """Removes a last line that a crash has cut off."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _parse_record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("step", 0), int):
        raise UserError(f"{where} is damaged. Delete this line, or the file, and run again.")
    return record


def _steps_of(path: Path, state: Mapping[str, Any]) -> int:
    steps = state.get("iteration", 0)
    if not isinstance(steps, int) or steps < 0:
        raise UserError(f"{path} is damaged: it was saved after {steps!r} steps. Delete it.")
    return steps


class _SilentWriter:
    """Stands for a SummaryWriter where nothing is to be written."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


def configure_logging(path: str | Path | None = None) -> None:
    """Sends log lines to the console and, with a path, appends them to that file.

    Only the first process speaks. A second call replaces the handlers of the first.
    """
    root = logging.getLogger()
    # Handlers of others, such as pytest's, stay
    for handler in [h for h in root.handlers if (h.get_name() or "").startswith("run_")]:
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [_ConsoleHandler()] if is_main() else [logging.NullHandler()]
    if path is not None and is_main():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, encoding="utf-8", errors="backslashreplace"))
    for number, handler in enumerate(handlers):
        handler.set_name(f"run_{number}")
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.INFO)


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(self.format(record))


def environment() -> dict[str, Any]:
    """Returns what a result depends on besides the options: commit, versions, device."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which checkpoints must not hold
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _commit() -> str:
    """Returns the commit that the code is of; of an installed package at least its version."""
    if files.PACKAGE is not None:
        package = distribution("textured-mesh-gan")
        origin = json.loads(package.read_text("direct_url.json") or "{}")
        return origin.get("vcs_info", {}).get("commit_id", f"release {package.version}")

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        modified = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" modified" if modified else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"
