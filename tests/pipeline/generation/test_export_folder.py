"""An export's folder holds meshes of one model and seed, and says of which."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.generation import export_folder
from utils.cli import UserError
from utils.files import read_json

RECORD: dict[str, Any] = {"checkpoint_sha256": "ab", "seed": 1, "truncation_sigma": 1.0}
RECORD |= {"filter_class": None, "environment": {"commit": "c"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three exported meshes and two files of somebody else."""
    folder = tmp_path / "output/toy"
    export_folder.begin(folder, RECORD)
    write_meshes(folder, 3)
    for name in ("notes.txt", "mesh_0_painted.obj"):
        (folder / name).touch()
    (folder / "mesh_9.obj").mkdir()  # somebody's folder
    return folder


def write_meshes(folder: Path, count: int) -> None:
    for i in range(count):
        for suffix in ("obj", "mtl", "png", "glb"):
            (folder / f"mesh_{i}.{suffix}").touch()
    for name in ("index.html", "turntable.gif"):
        (folder / name).touch()


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 5), ("checkpoint_sha256", "cd"), ("truncation_sigma", 0.5), ("filter_class", "car")],
)
def test_meshes_of_another_export_are_kept_unless_they_may_be_replaced(
    folder: Path, key: str, value: object
) -> None:
    before = {path.name for path in folder.iterdir()}
    other = RECORD | {key: value}
    with pytest.raises(UserError, match=rf"\({key} {RECORD[key]}, now {value}\).*--overwrite"):
        export_folder.check(folder, other, overwrite=False)
    assert {path.name for path in folder.iterdir()} == before
    export_folder.check(folder, other, overwrite=True)
    export_folder.begin(folder, other)
    kept = {"notes.txt", "mesh_0_painted.obj", "mesh_9.obj", "provenance.json"}
    assert {path.name for path in folder.iterdir()} == kept
    assert read_json(folder / "provenance.json") == other


def test_the_same_export_on_another_machine_replaces_its_meshes_one_by_one(folder: Path) -> None:
    record = RECORD | {"environment": {"commit": "d"}}
    before = {path.name for path in folder.iterdir()}
    export_folder.check(folder, record, overwrite=False)
    export_folder.begin(folder, record)
    assert {path.name for path in folder.iterdir()} == before
    export_folder.finish(folder, how_many=2)
    gone = {f"mesh_2.{suffix}" for suffix in ("obj", "mtl", "png", "glb")}
    assert {path.name for path in folder.iterdir()} == before - gone


def test_meshes_that_do_not_tell_their_origin_are_not_mixed_with_others(folder: Path) -> None:
    (folder / "provenance.json").unlink()
    with pytest.raises(UserError, match=r"unknown origin.*--overwrite"):
        export_folder.check(folder, RECORD, overwrite=False)
    export_folder.begin(folder, RECORD)
    assert not (folder / "mesh_0.obj").exists()


def test_a_new_folder_and_one_of_somebody_else_are_free(tmp_path: Path) -> None:
    export_folder.check(tmp_path / "new", RECORD, overwrite=False)
    (tmp_path / "notes.txt").touch()
    export_folder.check(tmp_path, RECORD, overwrite=False)
