"""Runs the stages one after another, and none again whose command and inputs are as they were."""

import hashlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.all_stages.stages import Config, Stage, plan
from pipeline.all_stages.verdicts import verdict
from utils import files, interrupts
from utils.cli import Terminated, UserError
from utils.run_directory import configure_logging

_INTERRUPTED = (130, 143)  # exit statuses, see `cli.run`

logger = logging.getLogger(__name__)


def run_all(config: Config) -> None:
    """Runs what is missing, and logs the command, the verdict and the cost of every stage.

    The record output/<name>_stages.json says which command made what from which inputs.

    Raises:
        UserError: if a stage fails.
    """
    configure_logging()
    record_path = Path("output") / f"{config.name}_stages.json"
    with files.exclusive(record_path.with_suffix(".lock"), f"the run {config.name}"):
        record = files.read_json(record_path, "Delete it.") if record_path.exists() else {}
        for number, stage in enumerate(stages := plan(config), start=1):
            logger.info("\n== %d/%d %s: %s", number, len(stages), stage.title, shown(stage))
            if is_complete(stage, record):
                logger.info("complete, nothing to do")
            else:
                inputs = fingerprint(stage.inputs)
                cost = execute(stage)
                record[stage.title] = {"command": shown(stage), "inputs": inputs, **cost}
                files.write_json(record_path, record)
            logger.info("%s", verdict(stage.title, config))
        logger.info("\n%s\nthe meshes: output/%s/index.html", table(stages, record), config.name)


def is_complete(stage: Stage, record: dict[str, Any]) -> bool:
    """Returns whether the last success of a stage was by the same command, from the same inputs."""
    last = record.get(stage.title)
    if last is None or not all(path.exists() for path in stage.outputs):
        return False
    return last["command"] == shown(stage) and last["inputs"] == fingerprint(stage.inputs)


def fingerprint(paths: Iterable[Path]) -> str:
    """Returns what changes with the names, sizes or times of files, and of all in folders."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                state = file.stat()
                digest.update(f"{file} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def shown(stage: Stage) -> str:
    """Returns the command of a stage as a person types it."""
    if files.PACKAGE is not None:
        program = f"textured-mesh-gan {stage.program}"
    elif "." in stage.program:
        program = f"python -m {stage.program}"
    else:
        program = f"python {stage.program}.py"
    return f"{program} {shlex.join(stage.words)}"


def command(stage: Stage) -> list[str]:
    """Returns the command of a stage as it works from every working directory."""
    if files.PACKAGE is not None:
        return [sys.executable, "-m", files.PACKAGE.name, stage.program, *stage.words]
    if "." in stage.program:
        return [sys.executable, "-m", stage.program, *stage.words]
    return [sys.executable, str(_root() / f"{stage.program}.py"), *stage.words]


def execute(stage: Stage) -> dict[str, float]:
    """Runs a stage.

    Returns:
        Its seconds, and the largest memory of its process in MB.

    Raises:
        UserError: if it fails; it has printed why.
        SystemExit: if it, or this program, was interrupted; it has printed that.
    """
    paths = [str(_root()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    start = time.perf_counter()
    process = None
    try:
        with interrupts.blocked():  # until there is a process to pass them on to
            process = subprocess.Popen(
                command(stage), env=environment, preexec_fn=_leave_ctrl_c_to_parent
            )
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt as stop:
        if process is not None:
            _end(process, stop)
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode in _INTERRUPTED:
        sys.exit(process.returncode)
    if process.returncode:
        raise UserError(
            f"{stage.title} has failed, see above. Once that is put right, this command continues there."
        )
    return {"seconds": round(time.perf_counter() - start, 1), "memory_mb": usage.ru_maxrss // 1024}


def table(stages: Sequence[Stage], record: dict[str, Any]) -> str:
    """Returns time and memory of the stages, and the disk that their results take."""
    rows = [f"{'stage':<26}{'minutes':>8}{'memory':>10}"]
    for stage in stages:
        cost = record[stage.title]
        memory = f"{cost['memory_mb'] / 1024:.1f} GB"
        rows.append(f"{stage.title:<26}{cost['seconds'] / 60:>8.1f}{memory:>10}")
    total = sum(record[stage.title]["seconds"] for stage in stages)
    rows.append(f"{'all':<26}{total / 60:>8.1f}")
    folders = {path.parent for stage in stages for path in stage.outputs}
    bytes_ = sum(x.stat().st_size for f in folders for x in f.rglob("*") if x.is_file())
    rows.append(f"files written: {bytes_ / 1e6:.0f} MB")
    return "\n".join(rows)


def _leave_ctrl_c_to_parent() -> None:
    """Runs in the new process: a terminal sends Ctrl-C to all processes, and one of them is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.unblock()


def _end(process: subprocess.Popen, stop: KeyboardInterrupt) -> None:
    """Ends a stage as this program was asked to end, and waits for it.

    Raises:
        SystemExit: if the stage has reported the interruption, which is not to be repeated.
    """
    while True:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait()
        except KeyboardInterrupt as again:
            stop = again
        else:
            break
    if status in _INTERRUPTED:
        sys.exit(143 if isinstance(stop, Terminated) else 130)


def _root() -> Path:
    """Returns the folder from which this module was imported."""
    return Path(__file__).parents[__name__.count(".")]
