"""Runs the documented commands of a checkout in a working folder, as a user would."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from utils.cli import UserError

HERE = Path(__file__).resolve().parents[1]  # this checkout
INTERVAL = 0.2  # seconds between two looks at a running command


def link_templates(repository: Path, folder: Path) -> None:
    """Lets the commands of a checkout find its remeshed templates in a working folder."""
    templates = folder / "cache" / "remeshed_templates"
    templates.parent.mkdir(parents=True, exist_ok=True)
    if not templates.exists():
        templates.symlink_to(repository / "cache" / "remeshed_templates")


def execute(
    repository: Path, folder: Path, *command: str, watch: Callable[[int], object] | None = None
) -> float:
    """Runs a Python command and adds its output to log.txt.

    Args:
        repository: the checkout that modules are imported from.
        folder: working folder of the command; log.txt lies there.
        command: what follows `python`.
        watch: called with the id of the process again and again while it runs.

    Returns:
        Its seconds.

    Raises:
        UserError: if the command fails; quotes the last line that it printed.
    """
    log = folder / "log.txt"
    # The checkout comes first, before packages that are found on the same path
    packages = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([str(repository), *filter(None, packages)])
    environment = os.environ | {"PYTHONPATH": path}
    start = time.perf_counter()
    # One log for all commands, each of them above its output
    with open(log, "ab") as output:
        output.write(f"\n{shlex.join(command)}\n".encode())
        output.flush()
        words = [sys.executable, *command]
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            # The memory of a process can only be read while it runs
            while watch is not None and process.poll() is None:
                watch(process.pid)
                time.sleep(INTERVAL)
            status = process.wait()
        finally:
            process.kill()  # if this process was interrupted
    if status:
        # Commands report a mistake in one line, their last
        reason = log.read_text(errors="replace").strip().splitlines()[-1]
        raise UserError(f"{shlex.join(command)}: {reason} (all output: {log})")
    return time.perf_counter() - start
