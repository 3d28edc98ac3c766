"""The training loop of all stages: step, log, picture, evaluate, save, always in this order.

A stage brings its networks, losses and conditions as the functions of a `Task`; the loop knows
nothing else about them. What is saved last includes everything before it, so a run that was killed
continues with the same weights, records and pictures as one that was not.
"""

import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from utils import checkpoint, distributed
from utils.cli import UserError
from utils.interrupts import StopRequest
from utils.pictures import save_image
from utils.progress import progress
from utils.run_directory import LATEST, RunDirectory
from utils.threads import keep_freed_memory

logger = logging.getLogger(__name__)

LOG_INTERVAL = 10  # steps between records of the losses
CONSOLE_INTERVAL = 100  # steps between lines about them
_MISFITS = (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError)


class Term(NamedTuple):
    """One term of a loss.

    Attributes:
        value: scalar.
        weight: factor in the sum that is minimized.
    """

    value: Tensor
    weight: float = 1.0


def weighted_sum(terms: Mapping[str, Term]) -> Tensor:
    """Returns the loss that is minimized."""
    weighted = [term.weight * term.value for term in terms.values()]
    return sum(weighted[1:], start=weighted[0])


def values(terms: Mapping[str, Term]) -> dict[str, Tensor]:
    """Returns what is logged of a loss: its terms without their weights, detached."""
    return {name: term.value.detach() for name, term in terms.items()}


def announce(path: Path, asked: Mapping[str, Any], brought: Mapping[str, Any]) -> None:
    """Names the options that a checkpoint brings with it, where other ones were asked for."""
    if brought:
        text = ", ".join(f"{key} {value} (not {asked[key]})" for key, value in brought.items())
        logger.info("%s brings its own architecture: %s", path, text)


class Length(NamedTuple):
    """How long a run is.

    Attributes:
        epoch: steps of a pass over the data.
        total: steps of the run.
        in_steps: whether --iters gave the length, rather than --epochs.
    """

    epoch: int
    total: int
    in_steps: bool

    def interval(self, given: int | None, epochs: int, shares: int | None = None) -> int:
        """Returns the steps between two events.

        Args:
            given: the user's interval, in the unit of the length; None for the default.
            epochs: the default.
            shares: the default of a run whose length is given in steps: so many intervals in all.
        """
        # The user's interval is in the unit of the length: steps or epochs
        if given:
            return given if self.in_steps else given * self.epoch
        if self.in_steps and shares:
            return -(-self.total // shares)
        return epochs * self.epoch


def make_length(samples: int, batch_size: int, iters: int | None, epochs: int) -> Length:
    """Returns the length of a run on that many samples; `iters` counts if it is given."""
    epoch = max(1, samples // batch_size)
    return Length(epoch, iters or epochs * epoch, iters is not None)


class Schedule(NamedTuple):
    """Length of a run and its intervals, all in steps."""

    total: int
    picture: int
    evaluate: int
    save: int
    checkpoint: int

    def due(self, step: int, interval: int) -> bool:
        """Returns whether an event takes place after a step; everything does after the last one."""
        return step == self.total or step % interval == 0


class Stateful(Protocol):
    """A network, an optimizer, or anything else with a state."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        members: networks and optimizers by their names in a checkpoint.
        batches: batches(step) yields what `update` takes, from that step on and without end.
        update: update(step, batch) makes one step and returns scalars to be logged, by name; each
            is logged until a later step replaces it. Like `picture` and `evaluate` it may raise
            FloatingPointError where numbers are not finite.
        rates: rates(step) returns the learning rates of a step by name.
        remedy: what to do against divergence, a sentence.
        constants: plain values that a checkpoint holds beside the members.
        picture: picture(step) draws the present state, (h, w, 3) uint8; called in the first process.
        images: draws more of it by name, for TensorBoard.
        evaluate: evaluate(step, writer) measures the present state and records it; called in all
            processes.
        score: name under which `evaluate` records what says which checkpoint is best, the lowest.
        write_model: write_model(step) writes the model file; called in the first process.
    """

    members: Mapping[str, Stateful]
    batches: Callable[[int], Generator[Any]]
    update: Callable[[int, Any], Mapping[str, Tensor]]
    rates: Callable[[int], Mapping[str, float]]
    remedy: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    picture: Callable[[int], np.ndarray] | None = None
    images: Callable[[], Mapping[str, np.ndarray]] | None = None
    evaluate: Callable[[int, Any], None] | None = None
    score: str | None = None
    write_model: Callable[[int], None] | None = None


def train(
    task: Task,
    schedule: Schedule,
    run: RunDirectory,
    options: Mapping[str, Any],
    *,
    found: tuple[Path, Mapping[str, Any]] | None,
    keep: int,
    tensorboard: Path | None = None,
) -> None:
    """Trains until the schedule's end.

    Args:
        task: what is trained.
        schedule: length and intervals.
        run: the folder of the run, which is locked meanwhile.
        options: all options by name, for config.json and TensorBoard.
        found: path and content of the checkpoint to continue from; None begins anew.
        keep: number of numbered checkpoints that stay, beside the best one.
        tensorboard: folder of the event files; None for none.

    Raises:
        UserError: if another process trains the run, the checkpoint does not fit, or the training
            has diverged.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    keep_freed_memory()
    # The lock is held and signals are noted until everything is saved
    with run.locked(), StopRequest() as stop:
        if changes := run.changes(options, fixed=("dataset", "mode", "split", "instances")):
            logger.info("options that have changed: %s", changes)
        loop = _Loop(task, schedule, run, stop, keep)
        step = loop.restore(found)
        loop.open_writer(tensorboard, options, step)
        with closing(loop.writer):
            # What an interrupted process left undone comes first
            loop.make_up(step)
            if step >= schedule.total:
                logger.info("%s is already trained for %d steps", run.path, step)
                return
            run.write_config(options)
            with (
                closing(task.batches(step)) as batches,
                progress(total=schedule.total, initial=step, description="training") as bar,
            ):
                while step < schedule.total:
                    loop.update(step, next(batches))
                    step += 1
                    loop.log(step)
                    loop.stop_if_asked(step)
                    loop.conclude(step)
                    bar.update(1)
        logger.info("finished %s after %d steps", run.path, step)


class _Loop:
    """What follows the update of a step."""

    def __init__(
        self, task: Task, schedule: Schedule, run: RunDirectory, stop: StopRequest, keep: int
    ) -> None:
        self.task, self.schedule, self.run, self.stop, self.keep = task, schedule, run, stop, keep
        self.writer: Any = None
        self.tensorboard = False
        self.latest: dict[str, Tensor | float] = {}  # tensors of this process, or means over all
        self.saved = self.first = 0
        self.start = time.monotonic()

    def restore(self, found: tuple[Path, Mapping[str, Any]] | None) -> int:
        """Loads a checkpoint, takes back the records after it, and returns its step."""
        step = 0
        if found is not None:
            path, state = found
            step = self._load(path, state)
            self.latest = dict(state.get("losses", {}))
            logger.info("continuing %s after step %d", self.run.path, step)
        # Steps after the checkpoint are made again, and so are their records
        self.run.rewind(step)
        self.saved = self.first = step
        return step

    def _load(self, path: Path, state: Mapping[str, Any]) -> int:
        # Published checkpoints lack the optimizers
        if any(name not in state for name in (*self.task.members, "iteration")):
            raise UserError(
                f"{path} holds weights only, so training cannot continue from it. Use another --name."
            )
        try:
            for name, member in self.task.members.items():
                member.load_state_dict(state[name])
        except _MISFITS as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} does not fit these networks ({reason}). Use another --name."
            ) from None
        return state["iteration"]

    def open_writer(self, folder: Path | None, options: Mapping[str, Any], step: int) -> None:
        """Begins TensorBoard's event file with the options as a table."""
        self.tensorboard = folder is not None
        self.writer = self.run.tensorboard(folder, step)
        rows = "".join(f"|{name}|{value}|\n" for name, value in options.items())
        self.writer.add_text("options", f"|option|value|\n|---|---|\n{rows}", step)

    def update(self, step: int, batch: Any) -> None:
        """Makes one step and remembers its losses."""
        try:
            self.latest.update(self.task.update(step, batch))
        except FloatingPointError:
            raise self._diverged(step + 1, "what is rendered") from None

    def _means(self) -> dict[str, float]:
        """Replaces what this process has noted by the means over all processes."""
        own = {name: value for name, value in self.latest.items() if isinstance(value, Tensor)}
        self.latest.update(distributed.mean(own))
        return {name: float(value) for name, value in self.latest.items()}

    def log(self, step: int) -> None:
        """Records losses and rates, unless they show that the training has diverged."""
        if not self.schedule.due(step, LOG_INTERVAL):
            return
        losses = self._means()
        # Divergence is noticed before it is recorded
        for name, value in losses.items():
            if not np.isfinite(value):
                raise self._diverged(step, name)
        rates = self.task.rates(step - 1)
        seconds = (time.monotonic() - self.start) / (step - self.first)
        self.run.record(step=step, **losses, **rates, seconds_per_step=round(seconds, 4))
        for name, value in {**losses, **rates}.items():
            self.writer.add_scalar(f"{'rate' if name in rates else 'train'}/{name}", value, step)
        if step % CONSOLE_INTERVAL == 0:
            text = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
            logger.info("step %d  %s  %.2f s/step", step, text, seconds)

    def stop_if_asked(self, step: int) -> None:
        """Saves and ends after Ctrl-C or SIGTERM in one of the processes."""
        if distributed.any_process(self.stop.signal is not None):
            self.save(step, numbered=False)
            raise self.stop.error(f" after step {step}, which is saved")

    def conclude(self, step: int) -> None:
        """Draws, evaluates and saves what is due after a step."""
        due = self.schedule.due
        # Pictures and scores first: what is saved last includes everything before it
        self._show(
            step,
            picture=due(step, self.schedule.picture),
            evaluate=due(step, self.schedule.evaluate),
        )
        numbered = due(step, self.schedule.checkpoint)
        if numbered or due(step, self.schedule.save):
            self.save(step, numbered=numbered)

    def make_up(self, step: int) -> None:
        """Draws, evaluates and saves what was due after a restored step and is missing."""
        if step == 0:
            return
        # Scores and pictures that exist already are not made again
        due, path = self.schedule.due, checkpoint.path_of(self.run.path, step)
        known = any(r.get("step") == step and self.task.score in r for r in self.run.records())
        self._show(
            step,
            picture=due(step, self.schedule.picture) and not self._picture_path(step).exists(),
            evaluate=due(step, self.schedule.evaluate) and not known,
        )
        if due(step, self.schedule.checkpoint) and not path.exists():
            self.save(step, numbered=True)
        if distributed.is_main():
            self.run.prune_checkpoints(self.keep, self.task.score)

    def _show(self, step: int, *, picture: bool, evaluate: bool) -> None:
        """Draws and evaluates; Ctrl-C ends this at once, to be made up by the next process."""
        # A picture of a diverged network would look like a result
        if picture or evaluate:
            self._require_finite(step)
        try:
            if picture and distributed.is_main():
                with self._interruptible():
                    self._draw(step)
            if evaluate and self.task.evaluate is not None:
                with self._interruptible():
                    self.task.evaluate(step, self.writer)
        except FloatingPointError:
            raise self._diverged(step, "what is rendered") from None
        except KeyboardInterrupt:
            if self.saved != step:
                self.save(step, numbered=False)
            raise self.stop.error(f" after step {step}, which is saved") from None

    def _interruptible(self) -> AbstractContextManager:
        """Returns a context that signals end at once, unless other processes would wait for this one."""
        return self.stop.prompt() if distributed.world_size() == 1 else nullcontext()

    def _draw(self, step: int) -> None:
        if self.task.picture is None:
            return
        # The file last: where it is, everything else is there too
        picture = self.task.picture(step)
        images = {"samples": picture}
        if self.task.images is not None and self.tensorboard:
            images |= self.task.images()
        for name, pixels in images.items():
            self.writer.add_image(name, pixels, step, dataformats="HWC")
        save_image(self._picture_path(step), picture)

    def _picture_path(self, step: int) -> Path:
        return self.run.path / "samples" / f"{step:07d}.png"

    def save(self, step: int, *, numbered: bool) -> None:
        """Saves the state, unless it shows that the training has diverged."""
        # Divergence is noticed before the last good state is replaced
        losses = self._means()
        self._require_finite(step)
        if distributed.is_main():
            self.writer.flush()  # a kill must not lose events that will not be written again
            members = {name: member.state_dict() for name, member in self.task.members.items()}
            state = {**members, **self.task.constants, "iteration": step, "losses": losses}
            # The model first: a process that is killed in between will write it again
            if self.task.write_model is not None:
                self.task.write_model(step)
            self.run.save_checkpoint(step, state, numbered=numbered)
            self.run.prune_checkpoints(self.keep, self.task.score)
        distributed.barrier()
        self.saved = step

    def _require_finite(self, step: int) -> None:
        for name, member in self.task.members.items():
            if not checkpoint.is_finite(member.state_dict()):
                raise self._diverged(step, f"the state of {name}")

    def _diverged(self, step: int, what: str) -> UserError:
        kept = (
            f"{self.run.path / LATEST} still holds step {self.saved}, from which the same command continues."
            if self.saved
            else "Nothing was saved before."
        )
        return UserError(f"Step {step}: {what} is not finite. {kept} {self.task.remedy}")
