"""Meshes that a trained GAN exports, and what they are drawn from."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy import stats

from data.cache import pseudo_files
from geometry.sphere_mesh import SphereMesh
from pipeline.generation import sampling
from tests.pipeline.generation.toy import COUNT, run
from utils.cli import UserError
from utils.files import read_json


def test_an_applied_checkpoint_brings_its_own_architecture(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "1", "--width", "0.1", "--texture_resolution", "256")
    with Image.open(toy / "output/toy_singletpl/mesh_0.png") as texture:
        assert texture.size == (128, 128)


@pytest.mark.slow
def test_meshes_of_a_texture_model_are_those_of_the_pseudo_ground_truth(toy: Path) -> None:
    run("--iters", "2", "--texture_only")
    run("--export_sample", "--how_many", "1", "--texture_only")
    row = sampling.sample_rows(range(COUNT), 1, seed=1)[0]
    item = pseudo_files.load_pseudo_item("toy", 128, "singletpl", row)
    expected = SphereMesh().deform(torch.from_numpy(item.mesh.astype(np.float32))[None])[0]
    mesh = trimesh.load_mesh(toy / "output/toy_singletpl/mesh_0.obj", process=False)
    assert mesh.bounds[1] - mesh.bounds[0] == pytest.approx(
        (expected.amax(0) - expected.amin(0))[[0, 2, 1]].numpy(), abs=1e-4
    )


@pytest.mark.slow
def test_export_writes_exactly_n_for_any_batch_size(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "7")
    folder = toy / "output/toy_singletpl"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(first) == sorted(
        [f"mesh_{i}.{suffix}" for i in range(7) for suffix in ("obj", "mtl", "png", "glb")]
        + ["index.html", "turntable.gif", "provenance.json"]
    )
    with Image.open(toy / "output/toy_singletpl.png") as picture:
        assert picture.size == (7 * 256, 256)
        covered = np.asarray(picture.convert("L")).reshape(256, 7, 256).swapaxes(0, 1) < 250
    # Each mesh fills its own tile, and none is cut off
    for mask in covered:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(256 / 1.1, abs=4)
    run("--export_sample", "--how_many", "7", "--batch_size", "2")
    for path in folder.iterdir():
        if path.suffix == ".obj":
            a = np.array(
                [
                    line.split()[1:]
                    for line in first[path.name].decode().splitlines()
                    if line[:2] == "v "
                ],
                float,
            )
            b = np.array(
                [line.split()[1:] for line in path.read_text().splitlines() if line[:2] == "v "],
                float,
            )
            np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.slow
def test_saved_results_are_the_export_under_another_name(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "2")
    run("--save_results", "--batch_size", "2", "--weights", "toy_singletpl")
    for name in ("mesh_0.obj", "mesh_1.png", "mesh_1.mtl"):
        there, here = (toy / f"{folder}/toy_singletpl/{name}" for folder in ("output", "results"))
        assert there.read_bytes() == here.read_bytes()
    assert not (toy / "results/toy_singletpl/mesh_2.obj").exists()
    with Image.open(toy / "results/toy_singletpl.png") as picture:
        assert picture.size == (2 * 256, 256)


@pytest.mark.slow
def test_an_export_says_what_it_was_made_from_and_is_not_mixed_with_another(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "3")
    folder = toy / "output/toy_singletpl"
    record = read_json(folder / "provenance.json")
    path = toy / record["checkpoint"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["checkpoint_sha256"]
    assert (record["run"], record["step"], record["seed"]) == ("toy_singletpl", 1, 1)
    assert record["options"]["texture_resolution"] == 128
    assert record["environment"]["torch"] == torch.__version__
    mesh = (folder / "mesh_0.obj").read_bytes()
    other = ("--export_sample", "--how_many", "2", "--seed", "5")
    with pytest.raises(UserError, match=r"seed 1, now 5"):
        run(*other)
    assert (folder / "mesh_0.obj").read_bytes() == mesh
    run(*other, "--overwrite")
    assert (folder / "mesh_0.obj").read_bytes() != mesh
    assert not (folder / "mesh_2.glb").exists()
    run("--iters", "2")
    with pytest.raises(UserError, match=r"checkpoint_sha256"):
        run(*other)


@pytest.mark.slow
def test_exports_of_runs_with_dots_in_their_names_keep_apart(toy: Path) -> None:
    names = ["w0.1_singletpl", "w0.5_singletpl"]
    run("--name", names[0], "--iters", "1")
    shutil.copytree(toy / "checkpoints_gan" / names[0], toy / "checkpoints_gan" / names[1])
    for name in names:
        run("--name", name, "--export_sample", "--how_many", "1")
        assert f"<title>{name}</title>" in (toy / "output" / name / "index.html").read_text()
    written = sorted(path.name for path in (toy / "output").iterdir())
    assert written == [names[0], f"{names[0]}.png", names[1], f"{names[1]}.png"]
    # A run that is named like the picture of another one is told before any mesh is made
    (toy / "output" / f"{names[0]}.png").unlink()
    (toy / "output" / f"{names[0]}.png").mkdir()
    with pytest.raises(UserError, match=r"^output/w0\.1_singletpl\.png is a folder, where"):
        run("--name", names[0], "--export_sample", "--how_many", "1")


def test_exported_meshes_are_closed_and_outward(toy: Path) -> None:
    run("--iters", "1")
    run("--export_sample", "--how_many", "1")
    mesh = trimesh.load_mesh(toy / "output/toy_singletpl/mesh_0.obj", process=False)
    positions = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    assert positions.is_watertight
    assert positions.volume > 0


def test_latent_codes_follow_the_truncated_normal_and_their_number() -> None:
    codes = sampling.latent_codes(range(400), 16, sigma=1.0, seed=0)
    assert codes.abs().max() <= 1
    assert stats.kstest(codes.flatten(), stats.truncnorm(-1, 1).cdf).pvalue > 0.01
    torch.testing.assert_close(sampling.latent_codes([7, 9], 16, 1.0, 0), codes[[7, 9]])


def test_rows_are_drawn_without_replacement_before_they_repeat() -> None:
    rows = sampling.sample_rows(range(10, 15), 12, seed=1)
    assert len(rows) == 12
    assert sorted(rows[:5]) == sorted(rows[5:10]) == list(range(10, 15))
