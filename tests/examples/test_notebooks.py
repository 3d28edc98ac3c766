"""The notebooks run from top to bottom, in a folder of their own, and hold no outputs."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "examples"
# In this order: the last one begins with what the one before has made
NOTEBOOKS = ("fit_a_sphere_to_a_mask", "photographs_to_meshes", "sampling_and_walking")
WRITTEN = ("output/example_car.glb", "output/example_generated.glb")


def code_of(name: str) -> list[str]:
    """Returns the code of a notebook, cell by cell."""
    content = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code"]


def test_all_notebooks_are_known():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*NOTEBOOKS}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_hold_no_outputs(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_notebooks_run(tmp_path):
    (tmp_path / "cache").mkdir()
    shipped = REPOSITORY / "cache/remeshed_templates"
    (tmp_path / "cache/remeshed_templates").symlink_to(shipped)
    for name in NOTEBOOKS:
        # One process for each, as a kernel is, and the value of a last line is shown
        program = "\n\n".join(code_of(name))
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
    assert all((tmp_path / path).is_file() for path in WRITTEN)
