"""No constant of the poses can be changed by a factor of four without a test that notices.

For each constant there is a small case with a recorded result that depends on it. The results were
worked out by hand where a comment says how, and else recorded from cases that other tests judge.
"""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import pipeline.poses
from tests.pipeline.poses.constants import choosing, evidence, search, shapes
from tests.pipeline.poses.constants.case import Case, Quantity

CASES = [*choosing.CASES, *evidence.CASES, *search.CASES, *shapes.CASES]

# Constants that results do not depend on, or that are judged elsewhere
EXEMPT = {
    "candidates._CHUNK": "images at a time",
    "part_discovery._CHUNK": "images at a time",
    "photographs.IMAGES_PER_BATCH": "images at a time",
    "photographs.ON_GPU": "images at a time",
    "view_prior.GROUP": "poses at a time",
    "part_discovery.SAVE_INTERVAL": "steps between saves",
    "contour_search.VIEW_RADIUS": "drawn views are scaled to the masks",
    "numba_contour.LEAST_DAMPING": "keeps equations solvable that say nothing",
    "numba_contour.STEP": "numbers in a step",
    "refinement.LEAST_ERROR": "keeps a quotient finite",
    "calibration._CHUNK": "images at a time",
    "learning.CHUNK": "images at a time",
    "calibration.STEPS": "how finely temperatures are compared",
    "step2.UV_SIZE": "texels of an exported picture",
    "fitting.NUM_VIEWS": "counts the views of geometry.quaternion",
    "clips._ROUNDS": "of an estimate that has converged; see test_clips",
    "clips._FIRST_CUTS": "where that begins",
    **{
        f"part_discovery.{name}": "of the training; see test_part_discovery"
        for name in ("BATCH", "LEARNING_RATE", "BASIS_RATE", "DECAY", "COMPONENTS", "SIZE")
    },
}


def evaluate(quantity: Quantity, request: pytest.FixtureRequest) -> float:
    """Calls a quantity with the fixtures that it names."""
    code = quantity.__code__
    wanted = code.co_varnames[: code.co_argcount]
    return float(quantity(**{name: request.getfixturevalue(name) for name in wanted}))


def names(case: Case) -> str:
    return f"{case[0].__name__.rsplit('.')[-1]}.{case[1]}"


@pytest.mark.parametrize("case", CASES, ids=names)
def test_a_constant_that_changes_is_noticed(
    case: Case,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, name, quantity, recorded = case
    assert evaluate(quantity, request) == pytest.approx(recorded, rel=0.01)
    value = getattr(module, name)
    for factor in (4, 1 / 4):
        changed = value * factor
        monkeypatch.setattr(
            module, name, max(1, round(changed)) if isinstance(value, int) else changed
        )
        try:
            found = evaluate(quantity, request)
        except (ValueError, RuntimeError):
            continue  # noticed as well
        assert found != pytest.approx(recorded, rel=0.03), f"{name} times {factor} changes nothing"


def test_every_constant_has_a_case() -> None:
    known = {names(case) for case in CASES} | EXEMPT.keys()
    found = set()
    for info in pkgutil.walk_packages(pipeline.poses.__path__, "pipeline.poses."):
        module = importlib.import_module(info.name)
        short = info.name.rsplit(".")[-1]
        if info.ispkg or short in ("contact_sheet", "step1"):
            continue
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, int | float) and _defined_in(module, name):
                found.add(f"{short}.{name}")
    assert found - known == set()
    assert known - found == set()


def _defined_in(module: ModuleType, name: str) -> bool:
    """Tells whether a module assigns a name, rather than importing it."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return any(isinstance(e, ast.Name) and e.id == name for e in flat)
