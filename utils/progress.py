"""Progress of finite work: a bar on a terminal, a log line every tenth when asked for, else silence."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

from utils.distributed import is_main

logger = logging.getLogger(__name__)

# The default is a semaphore of the system, about which Python warns when a process is killed
tqdm.set_lock(threading.RLock())


def print_line(text: str) -> None:
    """Prints above a progress bar instead of through it; escapes what the console cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)
    sys.stdout.flush()


def progress(
    iterable: Iterable | None = None,
    total: int | None = None,
    description: str = "",
    initial: int = 0,
) -> Any:
    """Returns `iterable` with a report of its rate and the time left.

    Without an iterable, call `.update(n)` on the result, which is also a context manager. Where
    stderr is no terminal, TMG_PROGRESS=1 logs a line about every 10 %; other ranks stay silent.

    Args:
        iterable: what is worked through.
        total: number of items, `initial` included, where `len(iterable)` does not say it.
        description: a word or two that name the work.
        initial: items that an earlier run has done.
    """
    # Iterables with a length need no total
    if total is None and iterable is not None and hasattr(iterable, "__len__"):
        total = len(iterable) + initial  # type: ignore[arg-type] - has a length, checked above
    if is_main() and not sys.stderr.isatty() and os.environ.get("TMG_PROGRESS") == "1":
        return LoggedProgress(iterable, total, description, initial)
    return tqdm(
        iterable,
        desc=description or None,
        total=total,
        initial=initial,
        disable=not (is_main() and sys.stderr.isatty()),
        dynamic_ncols=True,
        leave=False,
    )


class LoggedProgress:
    """The part of tqdm's interface that the pipeline uses, reported through the log."""

    def __init__(
        self, iterable: Iterable | None, total: int | None, description: str, initial: int
    ) -> None:
        self.iterable, self.total, self.description = iterable, total, description
        self.initial = self.n = initial
        self.start = time.monotonic()
        self.reported = self._tenths()

    def __iter__(self) -> Iterator:
        for item in () if self.iterable is None else self.iterable:
            yield item
            self.update(1)

    def __enter__(self) -> "LoggedProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Counts n more items and logs a line when another tenth is done."""
        self.n += n
        if self._tenths() > self.reported:
            self.reported = self._tenths()
            self._log()

    def set_postfix(self, *args: Any, **values: Any) -> None:
        """Does nothing: log lines carry no postfix."""

    def close(self) -> None:
        """Does nothing: every line is complete."""

    def _tenths(self) -> int:
        return 10 * self.n // self.total if self.total else 0

    def _log(self) -> None:
        seconds = max(time.monotonic() - self.start, 1e-9)
        # The rate of this process alone: what an earlier run has done does not count
        rate = max(self.n - self.initial, 1) / seconds
        left = ((self.total or self.n) - self.n) / rate
        line = "%s %d/%s  %.3g/s  %.0f s left"
        logger.info(line, self.description or "progress", self.n, self.total, rate, left)
