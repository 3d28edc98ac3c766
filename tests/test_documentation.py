"""The documentation says what the programs do: commands, links, file tree, help."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from data.definitions import SYNSETS
from tests.conftest import REPOSITORY
from utils.cli import UserError

GUIDES = ("README.md", "TRAINING.md", "SETUP.md")
DOCUMENTS = (
    *GUIDES,
    "cache/README.md",
    *(f"docs/{path.name}" for path in REPOSITORY.glob("docs/*.md")),
)
SCRIPTS = (
    "remesh",
    "pose_optimization_step1",
    "pose_optimization_step2",
    "run_reconstruction",
    "run_generation",
    "run_all",
)
MODULES = (
    "data.prepare",
    "data.released",
    "data.synthetic",
    "mesh_templates.build",
    "scripts.demo_report",
    "scripts.half_model",
    "benchmarks.generation",
    "benchmarks.memory",
    "benchmarks.learned_templates",
    "benchmarks.pose_accuracy",
    "benchmarks.pose_confidence",
    "benchmarks.pose_search",
    "benchmarks.rasterization",
)

NUM_PREDECESSOR_COMMANDS = 32


def commands_of(text: str) -> list[str]:
    """Returns the lines of fenced blocks that run a program, with continued lines joined."""
    commands = []
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"((\.venv/bin/)?python3?|textured-mesh-gan) ", line.strip()):
                commands.append(line.strip())
    return commands


def split_command(command: str) -> tuple[str, list[str]]:
    """Returns the module behind a command and its arguments; brackets mark options as optional."""
    runner, *words = shlex.split(re.sub(r"[\[\]]", " ", command), comments=True)
    if words[0] == "-m":
        return words[1], words[2:]
    if runner == "textured-mesh-gan":
        return words[0], words[1:]
    return words[0].removesuffix(".py"), words[1:]


def program(name: str) -> ModuleType:
    """Imports what `python -m name` runs."""
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


def parse(command: str) -> None:
    """Parses a command with the parser of its program."""
    name, arguments = split_command(command)
    try:
        program(name).build_parser().parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{command}: refused by its parser")


def predecessor_commands(shared: Path) -> list[str]:
    texts = [(shared / "seeds" / name).read_text() for name in ("README.md", "TRAINING.md")]
    return [command for text in texts for command in commands_of(text)]


def tracked_files() -> list[str]:
    git = ["git", "-C", str(REPOSITORY), "ls-files"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_documented_command_is_accepted(document):
    for command in commands_of((REPOSITORY / document).read_text()):
        assert split_command(command)[0] in SCRIPTS + MODULES, f"{command}: no such program"
        parse(command)


def test_commands_in_tables_are_accepted():
    texts = [(REPOSITORY / document).read_text() for document in DOCUMENTS]
    rows = [line for text in texts for line in text.splitlines() if line.startswith("| ")]
    commands = [found for row in rows for found in re.findall(r"`(python [^`]+ --[^`]+)`", row)]
    assert len(commands) > 10
    for command in commands:
        assert split_command(command)[0] in SCRIPTS + MODULES, f"{command}: no such program"
        parse(command)


def test_commands_are_found_in_the_guides():
    assert all(commands_of((REPOSITORY / guide).read_text()) for guide in GUIDES)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    path = REPOSITORY / document
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", path.read_text())
    local = [link for pair in links for link in pair if link and "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_the_synsets_of_the_categories_are_those_that_are_looked_for():
    text = (REPOSITORY / "docs" / "datasets.md").read_text()
    rows = re.findall(r"^\| `imagenet_(\w+)` \| (n\d.*) \|$", text, flags=re.MULTILINE)
    assert {category: tuple(words.split(", ")) for category, words in rows} == SYNSETS


def test_all_commands_of_the_predecessor_are_known(shared):
    assert len(predecessor_commands(shared)) == NUM_PREDECESSOR_COMMANDS


@pytest.mark.parametrize("number", range(NUM_PREDECESSOR_COMMANDS))
def test_commands_of_the_predecessor_are_accepted(shared, number):
    parse(predecessor_commands(shared)[number])


@pytest.mark.parametrize("devices", ["as written", "cpu"])
@pytest.mark.parametrize("number", range(NUM_PREDECESSOR_COMMANDS))
def test_commands_of_the_predecessor_say_what_is_missing(
    shared, tmp_path, monkeypatch, number, devices
):
    name, arguments = split_command(predecessor_commands(shared)[number])
    remedy = r"python |datasets/|Put one there|--mode (singletpl|multitpl)|--gpu_ids cpu"
    if devices == "cpu":
        arguments += ["--gpu_ids", "cpu"]
        remedy = remedy.removesuffix("|--gpu_ids cpu")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        program(name).main(arguments)
    assert re.search(remedy, str(refusal.value)), f"no remedy in: {refusal.value}"
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SCRIPTS + MODULES)
def test_help_is_printed(name, capsys):
    with pytest.raises(SystemExit) as end:
        program(name).main(["--help"])
    assert end.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_the_file_tree_of_the_readme_is_complete():
    section = (REPOSITORY / "README.md").read_text().partition("## Files")[2]
    tree = section.split("```")[1].splitlines()[1:]
    described = {line.split()[0] for line in tree if line and not line.startswith(" ")}
    present = {path.partition("/")[0] + "/" * ("/" in path) for path in tracked_files()}
    assert described == present


def test_no_tracked_file_names_a_folder_of_this_machine():
    folders = [REPOSITORY, REPOSITORY.parent / "shared", Path.home()]
    paths = [f"{folder}/".encode() for folder in folders if folder != Path("/")]
    naming = [
        name
        for name in tracked_files()
        if (REPOSITORY / name).is_file()
        and any(path in (REPOSITORY / name).read_bytes() for path in paths)
    ]
    assert naming == []


def test_parsers_load_without_pytorch():
    # Ctrl-C is one line only once `cli.run` has begun, and --help should not take seconds
    modules = ", ".join([*SCRIPTS, "data.prepare", "data.released", "data.synthetic.__main__"])
    code = f"import sys, {modules}; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert answer.stdout == "[]\n", answer.stderr


def test_the_repository_stays_small():
    # Clones should take seconds: 25 MB of tracked files, of which none has more than 4 MB
    sizes = {name: (REPOSITORY / name).stat().st_size for name in tracked_files()}
    assert sum(sizes.values()) <= 25e6
    assert {name: size for name, size in sizes.items() if size > 4e6} == {}
