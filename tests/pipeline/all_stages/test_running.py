"""All stages as one command: what runs, what is skipped, and what stops it; and presets."""

import argparse
import itertools
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run_all
import run_generation
import run_reconstruction
from pipeline.all_stages import running, stages, verdicts
from pipeline.all_stages.presets import PRESETS
from tests.conftest import REPOSITORY
from tests.test_documentation import parse, program
from utils.cli import UserError
from utils.files import read_json, write_json

CONFIG = stages.Config(
    "toy", "car", "toy_singletpl", "singletpl", "cpu-30min", 4, ("--gpu_ids", "cpu")
)
COPY = "import sys; t = open(sys.argv[1]).read(); open(sys.argv[2], 'w').write(t + sys.argv[3])"


@pytest.fixture
def chain(tmp_path, monkeypatch, caplog) -> list[str]:
    """Three stages, each of which copies a file and adds a letter; returns the titles that have run."""
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("0")
    paths = [Path(f"{letter}.txt") for letter in "abcd"]
    made = [
        stages.Stage(str(b), "copy", (str(a), str(b), b.stem), (a,), (b,))
        for a, b in itertools.pairwise(paths)
    ]
    monkeypatch.setattr(running, "plan", lambda config: made)
    monkeypatch.setattr(running, "verdict", lambda title, config: f"verdict of {title}")
    ran: list[str] = []

    def command(stage: stages.Stage) -> list[str]:
        ran.append(stage.title)
        return [sys.executable, "-c", COPY, *stage.words]

    monkeypatch.setattr(running, "command", command)
    return ran


def test_stages_run_once_and_again_from_what_has_changed(chain, caplog):
    running.run_all(CONFIG)
    assert Path("d.txt").read_text() == "0bcd"
    assert "python copy.py a.txt b.txt b" in caplog.text
    assert "verdict of d.txt" in caplog.text
    running.run_all(CONFIG)
    assert chain == ["b.txt", "c.txt", "d.txt"]
    assert caplog.text.count("complete, nothing to do") == 3
    # Another input in the middle, then a result that was deleted
    Path("b.txt").write_text("other")
    running.run_all(CONFIG)
    assert chain[3:] == ["c.txt", "d.txt"]
    assert Path("d.txt").read_text() == "othercd"
    Path("d.txt").unlink()
    running.run_all(CONFIG)
    assert chain[5:] == ["d.txt"]


def test_a_stage_of_other_options_runs_again(chain, monkeypatch):
    running.run_all(CONFIG)
    first, *others = running.plan(CONFIG)
    changed = first._replace(words=(*first.words[:2], "B"))
    monkeypatch.setattr(running, "plan", lambda config: [changed, *others])
    running.run_all(CONFIG)
    assert chain == ["b.txt", "c.txt", "d.txt"] * 2
    assert Path("d.txt").read_text() == "0Bcd"


def test_a_failure_stops_the_run_and_is_taken_up_again(chain):
    Path("c.txt").mkdir()
    with pytest.raises(UserError, match=r"^c\.txt has failed, see above\. Once that is put right"):
        running.run_all(CONFIG)
    assert [*read_json("output/toy_singletpl_stages.json", "")] == ["b.txt"]
    Path("c.txt").rmdir()
    running.run_all(CONFIG)
    assert chain == ["b.txt", "c.txt", "c.txt", "d.txt"]


def test_a_folder_is_known_by_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_text("1")
    before = running.fingerprint([tmp_path])
    assert running.fingerprint([tmp_path]) == before
    os.utime(tmp_path / "a/b.txt", ns=(0, 0))
    touched = running.fingerprint([tmp_path])
    (tmp_path / "a/c.txt").touch()
    assert len({before, touched, running.fingerprint([tmp_path])}) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "send", "status"),
    [
        (signal.SIGINT, os.killpg, 130),  # as a terminal does
        (signal.SIGINT, os.kill, 130),
        (signal.SIGTERM, os.kill, 143),
    ],
)
def test_an_interrupted_run_ends_its_stage_and_continues_with_it(tmp_path, number, send, status):
    # The second stage says when it has begun, and lasts for a minute if it does so for the first time
    stage = (
        "import sys, time; from pathlib import Path; from utils import cli\n"
        "path = Path(sys.argv[1]); again = path.exists(); path.touch()\n"
        "cli.run(lambda: path.name == 'b' and not again and time.sleep(60))\n"
    )
    code = (
        "import signal, sys; from pathlib import Path; from pipeline.all_stages import running, stages\n"
        "from utils import cli; from tests.pipeline.all_stages.test_running import CONFIG\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored below a job with &
        "running.plan = lambda c: [stages.Stage(x, x, (x,), (), (Path(x),)) for x in 'abc']\n"
        f"running.command = lambda stage: [sys.executable, '-c', {stage!r}, *stage.words]\n"
        "running.verdict = lambda title, config: title\n"
        "cli.run(lambda: running.run_all(CONFIG))\n"
    )
    words = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "b").exists():
        assert process.poll() is None
        time.sleep(0.05)
    send(process.pid, number)
    _, errors = process.communicate()  # returns once the stage has closed its end
    assert process.returncode == status
    assert errors == "interrupted: run the same command again to continue\n"
    record = tmp_path / "output/toy_singletpl_stages.json"
    assert [*read_json(record, "")] == ["a"]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    assert [*read_json(record, "")] == ["a", "b", "c"]


@pytest.mark.parametrize("preset", PRESETS)
def test_all_commands_are_accepted_and_have_a_verdict(preset):
    machine = ("--gpu_ids", "0,1", "--seed", "3", "--rasterizer", "dense")
    config = stages.Config("d", "car", "n_multitpl", "multitpl", preset, 4, machine)
    plan = stages.plan(config)
    for stage in plan:
        words = shlex.split(running.shown(stage))
        parse(shlex.join(words))
        module = program(stage.program)
        if hasattr(module, "check_options"):
            parser: argparse.ArgumentParser = module.build_parser()
            module.check_options(parser, parser.parse_args(list(stage.words)))
    assert [stage.title for stage in plan] == [*verdicts._VERDICTS]
    # Every stage but the first reads what an earlier one writes
    written = {path for stage in plan for path in stage.outputs}
    assert {path for stage in plan[1:] for path in stage.inputs} <= written


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_defaults_that_options_override(preset):
    parsers = {stage: program(stage).build_parser for stage in PRESETS[preset]}
    required = {
        stage: ["--dataset", "d"]
        + (["--name", "n"] if "run_" in stage else ["--mode", "singletpl"])
        for stage in parsers
    }
    for stage, values in PRESETS[preset].items():
        words = required[stage]
        plain = vars(parsers[stage]().parse_args(words))
        found = vars(parsers[stage]().parse_args([*words, "--preset", preset]))
        assert found == {**plain, **values, "preset": preset}
        # Before and behind the preset, whatever the value
        for name in values:
            option = "model" if name == "kind" else name
            given = ["--" + option, str(plain[name] or 7)]
            for line in ([*given, f"--preset={preset}"], ["--preset", preset, *given]):
                kept = vars(parsers[stage]().parse_args([*words, *line]))
                assert kept[name] == (plain[name] or 7)


def test_epochs_take_the_place_of_a_presets_steps():
    for script in (run_generation, run_reconstruction):
        parser = script.build_parser()
        words = [
            "--name",
            "n_singletpl",
            "--dataset",
            "d",
            "--preset",
            "cpu-overnight",
            "--epochs",
            "3",
        ]
        args = parser.parse_args(words)
        script.check_options(parser, args)
        assert (args.epochs, args.iters) == (3, None)


def test_an_unknown_preset_is_one_line(capsys):
    for script in (run_generation, run_all):
        with pytest.raises(SystemExit):
            script.build_parser().parse_args(["--dataset", "d", "--name", "n", "--preset", "cpu"])
        assert "cpu-overnight" in capsys.readouterr().err


def test_options_of_the_command_reach_the_stages(monkeypatch):
    seen: list[stages.Config] = []
    monkeypatch.setattr(running, "run_all", seen.append)
    run_all.main(["--dataset", "d"])
    run_all.main(["--dataset", "d", "--category", "cow", "--gpu_ids", "0,1", "--seed", "2"])
    plain = stages.Config("d", None, "d_cpu-30min_singletpl", "singletpl", "cpu-30min", 16, ())
    assert seen[0] == plain
    assert (seen[1].category, seen[1].machine) == ("cow", ("--gpu_ids", "0,1", "--seed", "2"))


def test_verdicts_follow_the_figures():
    assert verdicts._judged(True, "111 photographs", "100 or more") == "good: 111 photographs"
    doubt = verdicts._judged(False, "9 photographs", "100 or more")
    assert doubt == "doubtful: 9 photographs, expected 100 or more"


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        # 480 photobirds: the template of a songbird is too short for some, fitted shapes are not
        ({"mean_shape_iou": 0.894}, "good: 432 of 480 photographs kept, confidence 97%, outlines overlap 0.79, of fitted shapes 0.89"),
        ({}, "doubtful: 432 of 480 photographs kept, confidence 97%, outlines overlap 0.79, expected 50%, 65% and 0.80; see"),
        ({"mean_shape_iou": 0.75}, "doubtful: "),
        # Shapes cover anything, that of a bird deformed to cars, too
        ({"mean_shape_iou": 0.91, "mean_confidence": 0.46}, "doubtful: 432 of 480 photographs kept, confidence 46%, "),
        ({"mean_shape_iou": 0.91, "kept": 200}, "doubtful: 200 of 480 photographs kept, "),
    ],
)  # fmt: skip
def test_poses_are_judged_by_fitted_shapes_and_confidence(tmp_path, monkeypatch, figures, expected):
    monkeypatch.chdir(tmp_path)
    bird = {"images": 480, "kept": 432, "mean_iou": 0.7896, "mean_confidence": 0.966}
    write_json(
        Path("cache/toy/metrics.json"),
        {"step1": {"singletpl": bird}, "step2": {"singletpl": bird | figures}},
    )
    assert verdicts.verdict("poses, step 2", CONFIG).startswith(expected)
    step1 = verdicts.verdict("poses, step 1", CONFIG)
    assert step1.startswith(
        "doubtful: 432 of 480 photographs kept, outlines overlap 0.79, expected"
    )
