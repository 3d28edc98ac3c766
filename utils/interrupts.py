"""Ctrl-C and SIGTERM in a loop: noted when they arrive, obeyed where the work can be resumed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from utils.cli import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Notes both signals inside a `with` block, and raises the matching exception at its end.

    Workers that are forked inside the block ignore them: the process that forked them ends them. A
    second Ctrl-C ends the process at once.

    Attributes:
        signal: the signal that came first; None so far.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._prompt = False
        self._owner = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.signal is not None and kind is None:
            raise self.error()

    def error(self, detail: str = "") -> KeyboardInterrupt:
        """Returns the exception that ends the program as the signal asks for, with one line."""
        return Terminated(detail) if self.signal == signal.SIGTERM else KeyboardInterrupt(detail)

    @contextmanager
    def prompt(self) -> Iterator[None]:
        """Raises at once inside a block that leaves no trace where it ends."""
        if self.signal is not None:
            raise self.error()
        self._prompt = True
        try:
            yield
        finally:
            self._prompt = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        if number == self.signal == signal.SIGINT:
            os.write(2, b"interrupted twice: ended at once\n")
            os._exit(130)
        # The first signal counts, and is obeyed when the loop asks for it
        self.signal = self.signal or number
        if self._prompt:
            self._prompt = False
            raise self.error()


@contextmanager
def blocked() -> Iterator[None]:
    """Holds both signals back until the end of the block; processes started in it inherit that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Delivers the signals held back since this process was started by one that blocks them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
