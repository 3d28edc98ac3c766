"""The shell scripts, run in a copy whose Python and tools only write down their arguments."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_documentation import parse

RECORDER = """#!/usr/bin/env bash
[ "$2" = pip ] || printf '%q ' python "$@" >>commands.txt
[ "$2" = pip ] || echo >>commands.txt
"""


@pytest.fixture
def copy(tmp_path) -> Path:
    """Returns a folder with the shell scripts and an environment that counts as installed."""
    scripts = ("scripts/setup_environment.sh", "scripts/make_pretrained.sh")
    for name in ("demo.sh", "test.sh", "requirements.txt", *scripts):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    shutil.copy(REPOSITORY / "requirements.txt", tmp_path / ".venv" / "installed_requirements.txt")
    return tmp_path


def run(folder: Path, script: str, *options: str, **variables: str) -> subprocess.CompletedProcess:
    command = ["bash", script, *options]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_demo_calls_every_stage_with_options_that_exist(copy):
    for _ in range(2):
        process = run(copy, "demo.sh")
        assert process.returncode == 0, process.stderr
    commands = (copy / "commands.txt").read_text().splitlines()
    for command in commands:
        parse(command)
    programs = [next(word for word in shlex.split(c)[1:] if word != "-m") for c in commands]
    assert programs[: len(programs) // 2] == [
        "data.synthetic",
        "data.prepare",
        "pose_optimization_step1.py",
        "pose_optimization_step2.py",
        *["run_reconstruction.py"] * 4,
        *["run_generation.py"] * 3,
        "scripts.demo_report",
    ]
    durations = (copy / "output" / "demo" / "durations.tsv").read_text().splitlines()
    assert len(durations) == 2 * 12  # eleven stages and the environment, twice


def test_shipped_models_are_made_by_options_that_exist_and_copied(copy):
    work = copy / "work"
    work.mkdir()
    for stage in ("recon", "gan"):
        folder = work / f"checkpoints_{stage}" / "pretrained_synthetic_car_singletpl"
        folder.mkdir(parents=True)
        (folder / "model.pth").write_text(stage)
    process = run(copy, "scripts/make_pretrained.sh", str(work))
    assert process.returncode == 0, process.stderr
    commands = (work / "commands.txt").read_text().replace(f"{copy}/", "").splitlines()
    for command in commands:
        parse(command)
    assert len(commands) == 10
    for stage in ("recon", "gan"):
        folder = copy / f"checkpoints_{stage}" / "pretrained_synthetic_car_singletpl"
        assert (folder / "model.pth").read_text() == stage


def test_the_demo_stops_at_a_stage_that_fails(copy):
    (copy / ".venv" / "bin" / "python").write_text('#!/bin/sh\n[ "$2" = pip ]\n')
    process = run(copy, "demo.sh")
    assert process.returncode == 1
    assert process.stdout.count("== ") == 2  # environment, photographs


def test_an_environment_that_is_complete_is_left_alone(copy):
    process = run(copy, "scripts/setup_environment.sh")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_changed_requirements_are_installed(copy):
    (copy / "requirements.txt").write_text("numpy\n")
    assert "Installing" in run(copy, "scripts/setup_environment.sh").stdout
    installed = copy / ".venv" / "installed_requirements.txt"
    assert installed.read_text() == "numpy\n"


def test_an_unusable_interpreter_is_refused_with_one_line(copy):
    shutil.rmtree(copy / ".venv")
    process = run(copy, "scripts/setup_environment.sh", PYTHON="/bin/false")
    assert process.returncode == 1
    assert process.stderr.startswith("error: /bin/false is not Python 3.10 or newer.")
    assert process.stderr.count("\n") == 1


def install_tools(folder: Path, failing: str = "") -> None:
    """Puts tools into the environment that write down their arguments, of which one may fail."""
    for name in ("ruff", "pyright", "pytest"):
        tool = folder / ".venv" / "bin" / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@" >>commands.txt\n[ {name} != "{failing}" ]\n')
        tool.chmod(0o755)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "pytest -q -m not slow"),
        (["--all"], "pytest -q"),
        (["tests/rendering", "-x"], "pytest -q -m not slow tests/rendering -x"),
        (["--all", "tests/rendering"], "pytest -q tests/rendering"),
    ],
)
def test_slow_tests_run_on_request_and_other_options_reach_pytest(copy, options, expected):
    install_tools(copy)
    process = run(copy, "test.sh", *options)
    assert process.returncode == 0, process.stderr
    assert "All checks passed" in process.stdout.splitlines()[-1]
    commands = (copy / "commands.txt").read_text().splitlines()
    assert sorted(commands) == ["pyright", expected, "ruff check .", "ruff format --check ."]


@pytest.mark.parametrize("tool", ["ruff", "pyright", "pytest"])
def test_every_check_runs_when_one_fails(copy, tool):
    install_tools(copy, failing=tool)
    process = run(copy, "test.sh")
    assert process.returncode == 1
    assert process.stdout.splitlines()[-1].startswith(f"FAILED: {tool}")
    assert len((copy / "commands.txt").read_text().splitlines()) == 4


def test_continuous_integration_runs_every_test(copy):
    install_tools(copy)
    (copy / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci" / "run", copy / ".ci" / "run")
    assert run(copy, ".ci/run").returncode == 0
    assert "pytest -q" in (copy / "commands.txt").read_text().splitlines()


@pytest.mark.parametrize(
    "name",
    [
        "demo.sh",
        "test.sh",
        ".ci/run",
        "scripts/setup_environment.sh",
        "scripts/make_pretrained.sh",
    ],
)
def test_shell_scripts_are_executable(name):
    assert os.access(REPOSITORY / name, os.X_OK)
    subprocess.run(["bash", "-n", REPOSITORY / name], check=True)
