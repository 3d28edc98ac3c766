"""The wheel: one package, free of the repository's own names, that works beside files called alike."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import namespace
from tests.conftest import REPOSITORY
from tests.test_architecture import DEPENDENCIES
from tests.test_documentation import SCRIPTS, tracked_files
from textured_mesh_gan.__main__ import PROGRAMS, run_program

MODULES = {"utils.cli", "data.prepare", "remesh"}
HOSTILE = "raise SystemExit('imported a file of the user')\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Returns the folder of the package as the wheel has it."""
    folder = tmp_path_factory.mktemp("site") / namespace.NAME
    namespace.write_package(REPOSITORY, folder)
    return folder


def imported(tree: ast.AST) -> list[str]:
    """Returns the names of the modules that a file imports, but relative ones."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(str(node.module))
    return names


def test_imports_of_the_project_alone_are_moved():
    source = (
        "import utilsx, numpy.data\n"
        "from utils import cli, files\n"
        "from utils.cli import (\n    run,\n)\n"
        "from . import near\n"
        "from torch.utils import data\n"
        "def f():\n    'from utils import cli'\n    é = 1; from remesh import main\n"
    )
    moved = namespace.move_imports(source, "x.py", MODULES)
    assert moved.splitlines() == [
        "import utilsx, numpy.data",
        "from textured_mesh_gan.utils import cli, files",
        "from textured_mesh_gan.utils.cli import (",
        "    run,",
        ")",
        "from . import near",
        "from torch.utils import data",
        "def f():",
        "    'from utils import cli'",
        "    é = 1; from textured_mesh_gan.remesh import main",
    ]


@pytest.mark.parametrize("source", ["import utils.cli", "import os, utils", "import remesh as r"])
def test_imports_without_equivalent_are_refused(source):
    with pytest.raises(SyntaxError, match=r"x\.py, line 2: write"):
        namespace.move_imports(f"\n{source}\n", "x.py", MODULES)


def test_messages_name_the_command_of_the_package():
    texts = {
        "run: python remesh.py --mode m": "run: textured-mesh-gan remesh --mode m",
        "python -m data.prepare --dataset d": "textured-mesh-gan data.prepare --dataset d",
        "python other.py, mypython remesh.py": "python other.py, mypython remesh.py",
    }
    assert [namespace.name_commands(text, MODULES) for text in texts] == [*texts.values()]


def test_the_package_is_whole(package):
    present = {path.relative_to(package).as_posix() for path in package.rglob("*")}
    tops = (*namespace.PACKAGES, "cache")
    expected = {name for name in tracked_files() if name.partition("/")[0] in tops}
    expected |= {f"{name}.py" for name in SCRIPTS}
    # Pictures of templates are for people who look into the folder
    expected = {name for name in expected if not re.match(r"cache/(README|.*\.obj)", name)}
    assert expected <= present


def test_no_import_of_a_name_of_the_repository_is_left(package):
    tops = {path.stem for path in REPOSITORY.glob("*.py")} | {*namespace.PACKAGES}
    names = [
        name
        for path in package.rglob("*.py")
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert [name for name in names if name.partition(".")[0] in tops] == []
    assert sum(name.startswith("textured_mesh_gan.") for name in names) > 500


def test_no_text_names_a_module_that_has_moved(package):
    # importlib, `python -m` and pickles find modules by text; relative or computed names stay right
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")
    }
    dotted = {name for name in modules if "." in name} - {*PROGRAMS}
    texts = [
        (path.name, node.value)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [(name, text) for name, text in texts if text in dotted] == []
    stale = re.compile(rf"python (-m data\.|({'|'.join(SCRIPTS)})\.py)")
    assert [(name, text) for name, text in texts if stale.search(text)] == []


def test_the_lists_of_the_build_are_complete():
    assert {*namespace.PACKAGES} == DEPENDENCIES.keys()
    assert {*SCRIPTS} <= {*PROGRAMS}


def test_the_wheel_needs_what_the_requirements_install():
    settings = (REPOSITORY / "pyproject.toml").read_text()
    listed = re.findall('"(.*)"', settings.partition("dependencies = [")[2].partition("\n]")[0])
    ranges = {Requirement(line).name: Requirement(line) for line in listed}
    text = (REPOSITORY / "requirements.txt").read_text().partition("# -- development")[0]
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    pinned = {Requirement(line).name: Requirement(line) for line in lines if line}
    assert pinned.keys() == ranges.keys()
    for name, requirement in ranges.items():
        assert importlib.metadata.version(name) in requirement.specifier
        exact = [s.version for s in pinned[name].specifier if s.operator == "=="]
        assert all(version in requirement.specifier for version in exact)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_found_by_name(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as end:
        run_program([name, "--help"])
    assert end.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_an_unknown_program_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        run_program(["run_generatoin"])
    assert end.value.code == 2
    assert "run_generation" in capsys.readouterr().err


@pytest.mark.slow
def test_the_wheel_works_beside_files_of_the_same_names(tmp_path):
    # Build, unpack, and stand in a folder whose files must not be imported
    site, work = tmp_path / "site", tmp_path / "work"
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    work.mkdir()
    for name in (*namespace.PACKAGES, *SCRIPTS):
        (work / f"{name}.py").write_text(HOSTILE)

    def run(*words: str) -> str:
        command = (sys.executable, *words)
        environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    # All modules, none of which the repository or the folder provides
    code = (
        "import importlib, pkgutil, sys, textured_mesh_gan as t\n"
        "for m in pkgutil.walk_packages(t.__path__, 'textured_mesh_gan.'):\n"
        "    if '_cuda' not in m.name and 'triton' not in m.name and '__main__' not in m.name:\n"
        "        importlib.import_module(m.name)\n"
        f"print({{*{namespace.PACKAGES}}} & sys.modules.keys() or 'none')\n"
        # What the package ships is found
        "from textured_mesh_gan.data.cache.template_files import load_templates\n"
        "from textured_mesh_gan.pipeline.remeshing.stage import find_templates, MODELED_TEMPLATES\n"
        "from textured_mesh_gan.utils.run_directory import environment\n"
        "print(load_templates('car', 'singletpl').shape, environment()['commit'])\n"
        "print(len(find_templates(MODELED_TEMPLATES, 'car', 'multitpl')))\n"
    )
    assert run("-c", code) == "none\ntorch.Size([1, 962, 3]) release 0.1.0\n2\n"
    # Programs: help, and a collection
    program = ("-m", "textured_mesh_gan")
    assert "usage: textured-mesh-gan run_generation " in run(*program, "run_generation", "--help")
    options = ("--dataset", "toy", "--category", "car", "--num_images", "1", "--image_size", "64")
    assert "datasets/toy/" in run(*program, "data.synthetic", *options)
    assert (work / "datasets/toy/ground_truth.npz").is_file()
