"""How much memory is free, and how much space a disk has left."""

import os
import shutil
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")  # version 2, of containers


def free_memory() -> int:
    """Returns the bytes that this process can still take without swapping.

    What the system reports as available, or what the control group leaves if that is less.
    """
    candidates = [_available_in_system()]
    # A container may have less than its machine
    limit = _number(_CONTROL_GROUP / "memory.max")
    if limit is not None:
        candidates.append(max(0, limit - (_number(_CONTROL_GROUP / "memory.current") or 0)))
    return min(candidates)


def free_space(folder: Path) -> int:
    """Returns the bytes left on the disk of a folder that may not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def _available_in_system() -> int:
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _number(path: Path) -> int | None:
    """Returns the number in a file; None where there is no such file, or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
