"""The training loop on a small task: whatever ends it, the same command continues it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import REPOSITORY
from tests.utils.training_world import World
from utils import checkpoint, training
from utils.cli import Terminated, UserError
from utils.interrupts import StopRequest

STEPS = 24


class Killed(BaseException):
    """Ends a process in the middle, as SIGKILL does."""


def everything(folder: Path) -> dict[str, Any]:
    """Returns what a run has left: weights, records without times, pictures."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds_per_step", None)
    state = checkpoint.load(folder / "checkpoint_latest.pth")
    return {
        "records": records,
        "weights": [state["network"][name].tolist() for name in ("weight", "bias")],
        "moments": [x["exp_avg"].tolist() for x in state["optimizer"]["state"].values()],
        "step": state["iteration"],
        "pictures": {p.name: p.read_bytes() for p in (folder / "samples").iterdir()},
        "numbered": [step for step, _ in checkpoint.numbered(folder)],
        "model": checkpoint.load(folder / "model.pth")["weight"].tolist(),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run leaves that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    World(folder).train(STEPS)
    return everything(folder)


def test_a_run_leaves_records_pictures_and_checkpoints(whole: dict[str, Any]) -> None:
    steps = [(r["step"], "score" in r) for r in whole["records"]]
    expected = [
        (7, True),
        (10, False),
        (14, True),
        (20, False),
        (21, True),
        (24, False),
        (24, True),
    ]
    assert steps == expected
    assert all({"square", "size", "lr"} <= r.keys() for r in whole["records"] if "score" not in r)
    assert sorted(whole["pictures"]) == [f"{step:07d}.png" for step in (6, 12, 18, 24)]
    assert whole["numbered"] == [16, 24]
    assert whole["step"] == STEPS
    assert whole["model"] == whole["weights"][0]


@pytest.mark.parametrize("seed", range(12))
def test_runs_killed_at_random_moments_equal_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any], seed: int
) -> None:
    """Every function that the loop calls may be the last, before or after its work."""
    rng = random.Random(seed)
    names = ["update", "picture", "evaluate", "write_model"]
    stored = ["save_checkpoint", "prune_checkpoints", "record"]

    def fatal(function: Any, chance: float) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if rng.random() < chance:
                raise Killed
            result = function(*args, **options)
            if rng.random() < chance:
                raise Killed
            return result

        return call

    kills = 0
    for attempt in range(60):
        chance = 0.06 if attempt < 40 else 0
        world = World(tmp_path / "run")
        for name in names:
            monkeypatch.setattr(world, name, fatal(getattr(world, name), chance))
        for name in stored:
            monkeypatch.setattr(world.run, name, fatal(getattr(world.run, name), chance))
        try:
            world.train(STEPS)
            break
        except Killed:
            kills += 1
    assert kills > 2
    assert everything(tmp_path / "run") == whole


@contextmanager
def started(
    folder: Path, seconds: float = 0.0, processes: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Runs the program in a group of its own, as a terminal does, for as long as the block."""
    words = ["-m", "tests.utils.training_world", folder, STEPS, seconds, processes]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until_it_trains(process: subprocess.Popen, folder: Path) -> int:
    """Returns a process that trains, at a random moment after its first save."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ready "), line
    while not (folder / "checkpoint_latest.pth").exists():
        time.sleep(0.01)
    time.sleep(random.random() * 0.1)
    return int(line.split()[1])


@pytest.mark.slow
def test_kills_by_the_system_lose_nothing(tmp_path: Path, whole: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    for _ in range(3):
        with started(folder, 0.02) as process:
            wait_until_it_trains(process, folder)
    World(folder).train(STEPS)
    assert everything(folder) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "processes"),
    [(signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 1), (signal.SIGINT, 130, 2)],
)
def test_signals_save_and_end_with_one_line(
    tmp_path: Path, whole: dict[str, Any], number: int, status: int, processes: int
) -> None:
    folder = tmp_path / "run"
    with started(folder, 0.2, processes) as process:
        wait_until_it_trains(process, folder)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors.startswith("interrupted")
    assert errors.endswith("run the same command again to continue\n")
    assert errors.count("\n") == 1
    saved = checkpoint.load(folder / "checkpoint_latest.pth")["iteration"]
    assert saved < STEPS
    if processes == 1:
        assert f"after step {saved}, which is saved" in errors
        World(folder).train(STEPS)
        assert everything(folder) == whole


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_one_line(tmp_path: Path) -> None:
    with started(tmp_path / "run", 0.1, processes=2) as process:
        os.kill(wait_until_it_trains(process, tmp_path / "run"), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "was killed (SIGKILL), so the others were ended" in errors


@pytest.mark.slow
def test_losses_are_means_over_the_processes(tmp_path: Path, whole: dict[str, Any]) -> None:
    with started(tmp_path / "run", processes=2) as process:
        process.communicate(timeout=60)
    records = everything(tmp_path / "run")["records"]
    sizes = [[r["size"] for r in rs if "size" in r] for rs in (records, whole["records"])]
    for both, one in zip(*sizes, strict=True):
        assert both == pytest.approx(one + 0.5)  # each process has added its rank


def test_a_signal_during_an_evaluation_ends_it_at_once_and_it_is_made_up(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    world = World(tmp_path / "run")

    def interrupted(step: int, writer: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    world.evaluate = interrupted
    with pytest.raises(KeyboardInterrupt, match="after step 7, which is saved"):
        world.train(STEPS)
    World(tmp_path / "run").train(STEPS)
    assert everything(tmp_path / "run") == whole


def signalled(passed: list[int | None]) -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        passed.append(stop.signal)


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    before, passed = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Terminated):
        signalled(passed)
    assert passed == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("spoil", "saved"), [(17, 16), (2, None)])
def test_a_state_that_is_not_finite_ends_the_run_and_keeps_the_last_good_one(
    tmp_path: Path, whole: dict[str, Any], spoil: int, saved: int | None
) -> None:
    folder = tmp_path / "run"
    kept = f"still holds step {saved}" if saved else "Nothing was saved before"
    with pytest.raises(UserError, match=rf"is not finite.*{kept}.*Use a smaller --rate"):
        World(folder, spoil=spoil).train(STEPS)
    assert (folder / "checkpoint_latest.pth").exists() == bool(saved)
    World(folder).train(STEPS)
    assert everything(folder) == whole


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    world = World(tmp_path / "run")
    update = world.update
    world.update = lambda step, batch: {**update(step, batch), "square": torch.tensor(torch.nan)}
    with pytest.raises(UserError, match=r"^Step 6: |^Step 10: square is not finite"):
        world.train(STEPS)


def test_rates_come_from_the_command_and_not_from_the_checkpoint(tmp_path: Path) -> None:
    World(tmp_path / "run", rate=0.01).train(8)
    world = World(tmp_path / "run", rate=0.02)
    world.train(STEPS)
    assert world.optimizer.param_groups[0]["lr"] == 0.02
    assert everything(tmp_path / "run")["records"][-2]["lr"] == 0.02


@pytest.mark.slow
def test_a_second_process_is_told_which_one_trains(tmp_path: Path) -> None:
    with started(tmp_path / "run", 0.1) as process:
        wait_until_it_trains(process, tmp_path / "run")
        with pytest.raises(UserError, match=rf"run is in use by process {process.pid}\. .*kill"):
            World(tmp_path / "run").train(STEPS)
    World(tmp_path / "run").train(STEPS)


def test_a_checkpoint_of_other_networks_is_refused_in_one_line(tmp_path: Path) -> None:
    World(tmp_path / "run").train(8)
    path = tmp_path / "run" / "checkpoint_latest.pth"
    state = checkpoint.load(path)
    for change, message in (
        ({"network": {"weight": torch.zeros(5, 5)}}, "does not fit these networks"),
        ({"iteration": "8"}, "damaged"),
        ({"iteration": -1}, "damaged"),
    ):
        for file in (path, checkpoint.path_of(path.parent, 8)):
            checkpoint.save(file, state | change)
        with pytest.raises(UserError, match=message) as refusal:
            World(tmp_path / "run").train(STEPS)
        assert "\n" not in str(refusal.value)
    weights = {key: value for key, value in state.items() if key == "network"}
    for file in (path, checkpoint.path_of(path.parent, 8)):
        checkpoint.save(file, weights)
    with pytest.raises(UserError, match="holds weights only"):
        World(tmp_path / "run").train(STEPS)


def test_tensorboard_shows_every_loss_the_rates_the_options_and_pictures_once(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tensorboard"
    world = World(tmp_path / "run")
    update = world.update

    def killed(step: int, batch: Any) -> Any:
        if step == 22:
            raise Killed
        return update(step, batch)

    world.update = killed
    with pytest.raises(Killed):
        world.train(STEPS, tensorboard=folder)
    World(tmp_path / "run").train(STEPS, tensorboard=folder)
    events = EventAccumulator(str(folder), {"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    assert events.Tags()["scalars"] == ["train/square", "train/size", "rate/lr"]
    for tag in events.Tags()["scalars"]:
        assert [event.step for event in events.Scalars(tag)] == [10, 20, 24]
    assert events.Tags()["images"] == ["samples", "more"]
    assert [event.step for event in events.Images("samples")] == [6, 12, 18, 24]
    text = events.Tensors("options/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "|dataset|toy|" in text


def test_the_newest_checkpoints_and_the_best_one_stay(tmp_path: Path) -> None:
    world = World(tmp_path / "run")
    world.evaluate = lambda step, writer: None
    for step in (8, 16):
        world.run.record(step=step, score=step)
    world.run.save_checkpoint(8, {"iteration": 8}, numbered=True)
    world.run.save_checkpoint(16, {"iteration": 16}, numbered=True)
    world.run.save_checkpoint(24, {"iteration": 24}, numbered=True)
    world.run.save_checkpoint(32, {"iteration": 32}, numbered=True)
    world.run.prune_checkpoints(1, "score")
    assert [step for step, _ in checkpoint.numbered(world.run.path)] == [8, 32]
    world.run.prune_checkpoints(1)
    assert [step for step, _ in checkpoint.numbered(world.run.path)] == [32]


def test_the_latest_checkpoint_is_the_numbered_one_of_the_same_step(tmp_path: Path) -> None:
    World(tmp_path / "run").train(8)
    latest = tmp_path / "run" / "checkpoint_latest.pth"
    assert latest.samefile(checkpoint.path_of(tmp_path / "run", 8))  # takes no space
    World(tmp_path / "run").run.save_checkpoint(9, {"iteration": 9}, numbered=False)
    assert checkpoint.load(checkpoint.path_of(tmp_path / "run", 8))["iteration"] == 8


def test_a_loss_is_the_weighted_sum_of_its_terms() -> None:
    terms = {"a": training.Term(torch.tensor(2.0)), "b": training.Term(torch.tensor(3.0), 0.5)}
    assert training.weighted_sum(terms) == 3.5
    assert training.values(terms) == {"a": 2, "b": 3}


@pytest.mark.parametrize(
    ("given", "in_steps", "expected"),
    [(None, True, 4), (None, False, 40), (7, True, 7), (7, False, 70)],
)
def test_intervals_have_the_unit_of_the_length(
    given: int | None, in_steps: bool, expected: int
) -> None:
    length = training.make_length(30, 3, 100 if in_steps else None, epochs=10)
    assert length == (10, 100, in_steps)
    assert length.interval(given, epochs=4, shares=30) == expected
