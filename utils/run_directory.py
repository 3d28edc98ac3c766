"""The record of a run: config.json, log.txt, metrics.jsonl and TensorBoard events in its folder."""

import json
import logging
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from utils import files
from utils.cli import UserError
from utils.distributed import is_main


class RunDirectory:
    """The folder of one run; only the first process writes to it.

    Attributes:
        path: the folder, made when it is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.json: the options, the commit, the versions and the device."""
        if is_main():
            files.write_json(self.path / "config.json", {**config, "environment": environment()})

    def check_same(self, config: Mapping[str, Any], keys: Sequence[str]) -> None:
        """Refuses to continue a run with other values of the options in `keys`.

        Raises:
            UserError: names the option, its value in config.json and the one asked for.
        """
        if not (self.path / "config.json").exists():
            return
        stored = files.read_json(self.path / "config.json", "Delete it and run again.")
        for key in keys:
            asked = json.loads(files.to_json(config[key]))  # tuples become lists, as when stored
            if key in stored and stored[key] != asked:
                raise UserError(
                    f"{self.path} was trained with {key}={stored[key]}; this command asks for "
                    f"{asked}. Use the same value, or another --name."
                )

    def record(self, **values: Any) -> None:
        """Appends one line to metrics.jsonl, for example record(step=100, loss_g=0.3)."""
        if is_main():
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(files.to_json(values) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl; a last line cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def rewind(self, step: int) -> None:
        """Removes the records after `step`, where a resumed run continues."""
        path = self.path / "metrics.jsonl"
        if is_main() and path.exists():
            kept = [record for record in self.records() if record.get("step", 0) <= step]
            text = "".join(files.to_json(record) + "\n" for record in kept)
            files.write_bytes(path, text.encode())

    def tensorboard(self, folder: str | Path | None, step: int = 0) -> Any:
        """Returns a SummaryWriter, or an object that ignores all calls when `folder` is None.

        Args:
            folder: where the event files go; only the first process writes.
            step: where a resumed run continues; later events are dropped.
        """
        if folder is None or not is_main():
            return _SilentWriter()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs a package: pip install tensorboard. Or omit the option."
            ) from None
        return SummaryWriter(str(folder), purge_step=step or None)


class _SilentWriter:
    """Stands for a SummaryWriter where nothing is to be written."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


def configure_logging(path: str | Path | None = None) -> None:
    """Sends log lines to the console and, with a path, appends them to that file.

    Only the first process speaks. A second call replaces the handlers of the first.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if (h.get_name() or "").startswith("run_")]:
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [_ConsoleHandler()] if is_main() else [logging.NullHandler()]
    if path is not None and is_main():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
    for number, handler in enumerate(handlers):
        handler.set_name(f"run_{number}")
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.INFO)


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def environment() -> dict[str, Any]:
    """Returns what a result depends on besides the options: commit, versions, device."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _commit() -> str:
    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        modified = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" modified" if modified else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"
