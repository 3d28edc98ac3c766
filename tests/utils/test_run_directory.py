import io
import json
import logging
import sys

import pytest

from utils.cli import UserError
from utils.run_directory import RunDirectory, configure_logging


def test_config_holds_the_options_and_the_environment(tmp_path):
    run = RunDirectory(tmp_path / "checkpoints_gan" / "a")
    run.write_config({"name": "a", "gpu_ids": (0, 1)})
    config = json.loads((run.path / "config.json").read_text())
    assert config["gpu_ids"] == [0, 1]
    assert {"commit", "torch", "numpy", "python", "device"} <= set(config["environment"])


def test_options_that_have_changed_are_named_or_refused(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.changes({"lr": 1.0}, ["dataset"]) == ""  # nothing was trained yet
    run.write_config({"dataset": "cub", "shape": (2, 3), "iters": 10})
    assert (
        run.changes({"dataset": "cub", "shape": (2, 3), "iters": 10, "new": 1}, ["dataset"]) == ""
    )
    assert run.changes({"dataset": "cub", "iters": 20}, ["dataset"]) == "iters 20 (was 10)"
    with pytest.raises(UserError, match=r"trained with dataset=cub; this command asks for car"):
        run.changes({"dataset": "car"}, ["dataset"])


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_a_damaged_config_is_told_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is .*Delete it and run again\.$"):
        RunDirectory(tmp_path).changes({}, [])


def test_records_after_the_resumed_step_are_removed(tmp_path):
    run = RunDirectory(tmp_path)
    for step in (1, 2, 3):
        run.record(step=step, loss=0.5 * step)
    run.rewind(2)
    run.record(step=3, loss=9.0)
    expected = [{"step": s, "loss": x} for s, x in ((1, 0.5), (2, 1.0), (3, 9.0))]
    assert run.records() == expected


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path):
    run = RunDirectory(tmp_path)
    run.record(step=1)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    run.rewind(2)
    run.record(step=2)
    assert run.records() == [{"step": 1}, {"step": 2}]


def test_the_log_goes_to_the_console_and_the_file_once(tmp_path, capsys):
    for _ in range(2):
        configure_logging(tmp_path / "run" / "log.txt")
    logging.getLogger("pipeline.x").info("step %d", 3)
    configure_logging()
    logging.getLogger("pipeline.x").info("only on the console")
    assert capsys.readouterr().out == "step 3\nonly on the console\n"
    assert (tmp_path / "run" / "log.txt").read_text() == "step 3\n"


def test_names_in_another_encoding_are_escaped(tmp_path, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", console)
    configure_logging(tmp_path / "log.txt")
    logging.getLogger("x").info("left out: caf\udce9 and Müsli")
    configure_logging()
    assert console.buffer.getvalue() == b"left out: caf\\udce9 and M\\xfcsli\n"
    assert (tmp_path / "log.txt").read_text("utf-8") == "left out: caf\\udce9 and Müsli\n"


def test_the_silent_writer_ignores_every_call(tmp_path):
    writer = RunDirectory(tmp_path).tensorboard(None)
    writer.add_scalar("loss", 1.0, 3)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_writes_events(tmp_path):
    writer = RunDirectory(tmp_path / "run").tensorboard(tmp_path / "tensorboard_gan")
    writer.add_scalar("loss", 1.0, 3)
    writer.close()
    assert [path.name.split(".")[0] for path in (tmp_path / "tensorboard_gan").iterdir()] == [
        "events"
    ]


def test_a_cut_line_is_mended_before_the_next_one_is_written(tmp_path):
    run = RunDirectory(tmp_path)
    run.record(step=1)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    run.record(step=2)
    assert run.records() == [{"step": 1}, {"step": 2}]


def test_nothing_of_an_earlier_attempt_stays_when_a_run_begins_anew(tmp_path):
    run = RunDirectory(tmp_path)
    run.record(step=10, loss=1.0)
    run.rewind(0)
    assert run.records() == []


@pytest.mark.parametrize("line", ["{", "[1]", '{"step": "x"}', "\xff", '{"step": 1}{"step": 2}'])
def test_a_damaged_record_is_told_with_its_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is damaged\. Delete this line"):
        RunDirectory(tmp_path).records()
