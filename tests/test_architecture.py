"""The shape of the code: which package imports which, no import cycles, no crowded folder."""

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# What each package may import; scripts may import all of them, and nothing imports a script
DEPENDENCIES = {
    "pipeline": {"models", "data", "rendering", "geometry", "utils"},
    "models": {"geometry", "utils"},
    "data": {"mesh_templates", "rendering", "geometry", "utils"},
    "mesh_templates": {"geometry", "utils"},
    "rendering": {"geometry", "utils"},
    "geometry": {"utils"},
    "utils": set(),
}
TOOLS = (
    "benchmarks",
    "scripts",
    "textured_mesh_gan",
)  # beside the stages, they import like scripts
STAGES = ("remeshing", "template_learning", "poses", "reconstruction", "generation")
# Templates are learned in turn with the poses of the photographs; the camera of a single photograph
# is searched as those of a collection are
STAGE_ARROWS = {"template_learning": "pipeline.poses.", "reconstruction": "pipeline.poses."}
LARGEST_FOLDER = 16  # modules


def sources() -> dict[str, Path]:
    """Returns the file of every module outside tests, by dotted name."""
    files = list(REPOSITORY.glob("*.py"))
    for package in (*DEPENDENCIES, *TOOLS):
        files += (REPOSITORY / package).rglob("*.py")
    names = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files]
    return dict(zip((name.removesuffix(".__init__") for name in names), files, strict=True))


def import_graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Returns the modules among the files that each of them imports, also inside functions."""
    graph = {}
    for name, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # `from package import module` names a module, `from module import name` does not
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= inner & files.keys() or {str(node.module)}
        graph[name] = found & files.keys() - {name}
    return graph


GRAPH = import_graph(sources())
ARROWS = [(name, other) for name, others in GRAPH.items() for other in sorted(others)]


def package_of(module: str) -> str:
    return module.partition(".")[0]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Returns the modules of an import cycle, the first one again at the end; empty if none."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_a_cycle_would_be_found():
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_the_graph_holds_known_imports():
    assert {"geometry.quaternion"} <= GRAPH["geometry.camera"]
    assert "pipeline.remeshing.stage" in GRAPH["remesh"]
    assert len(GRAPH) > 100


@pytest.mark.parametrize("package", DEPENDENCIES)
def test_packages_import_in_one_direction(package):
    allowed = DEPENDENCIES[package] | {package}
    assert [
        f"{name} imports {other}"
        for name, other in ARROWS
        if package_of(name) == package and package_of(other) not in allowed
    ] == []


def test_no_module_imports_itself_over_others():
    assert cycle(GRAPH) == []


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage):
    room = f"pipeline.{stage}."
    assert any(name.startswith(room) for name in GRAPH)
    assert [
        f"{name} imports {other}"
        for name, other in ARROWS
        if name.startswith(room) and package_of(other) == "pipeline"
        if not other.startswith((room, STAGE_ARROWS.get(stage, room)))
    ] == []


def test_no_script_imports_another():
    scripts = {name for name in GRAPH if "." not in name} - DEPENDENCIES.keys() - {*TOOLS}
    assert len(scripts) == 6
    assert [(a, b) for a, b in ARROWS if a in scripts and b in scripts] == []


def test_no_folder_is_crowded():
    files = [path for path in sources().values() if path.name != "__init__.py"]
    folders = Counter(str(path.parent.relative_to(REPOSITORY)) for path in files)
    assert {f: count for f, count in folders.items() if count > LARGEST_FOLDER} == {}
