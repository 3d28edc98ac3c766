"""Displacement maps of 64 x 64: trained, resumed, exported with 63 rings, and refused where sizes differ."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import textured_mesh_gan as tmg
from data.cache import pseudo_files
from geometry.uv_maps import half_map, symmetric_extension
from pipeline.generation import training
from pipeline.generation.model_file import load_model
from tests.pipeline.generation.toy import COUNT, run, save_statistics, weights
from tests.runs import assert_equal, die_at
from utils.cli import UserError

MODEL = Path("checkpoints_gan/toy_singletpl/model.pth")
FINE = ("--mesh_resolution", "64")


@pytest.fixture
def fine(toy: Path) -> Path:
    """The five spheres with maps of 64 x 64: wavy from texel to texel, number i by 0.01 i."""
    waves = np.resize([1.0, -1.0], 32)
    for i in range(COUNT):
        item = pseudo_files.load_pseudo_item("toy", 128, "singletpl", i)
        mesh = symmetric_extension(torch.zeros(3, 64, 32) + 0.01 * i * torch.from_numpy(waves))
        item = item._replace(mesh=mesh.numpy())
        pseudo_files.save_pseudo_item("toy", 128, "singletpl", i, item)
    return toy


@pytest.mark.usefixtures("fine")
def test_means_and_modes_have_every_texel() -> None:
    run("--model", "linear", *FINE)
    generator = load_model(MODEL, torch.device("cpu")).generator
    _, displacement = generator(torch.zeros(1, generator.latent_dim))
    expected = symmetric_extension(0.02 * torch.tensor([1.0, -1]).repeat(64, 16))[1:-1]
    torch.testing.assert_close(displacement[0, :, 1:-1], expected.expand(3, -1, -1))
    assert half_map(displacement).shape == (1, 3, 64, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["--model", "linear"], ["--iters", "2", "--start_from", "linear"]]
)
def test_models_need_no_option_afterwards(fine: Path, options: list[str]) -> None:
    save_statistics()
    run(*options, *FINE)
    run("--evaluate", "--proxy_distance")
    run("--export_sample", "--how_many", "2", "--export_morphs", "--swap", "--part_colors")
    mesh = trimesh.load(
        fine / "output/toy_singletpl/mesh_1.obj", process=False, maintain_order=True
    )
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) == 7936
    # The same in Python, from the model file alone
    shutil.rmtree("cache")
    sample = tmg.load_generator(MODEL).sample(2)[1]
    assert sample.vertices.shape == (3970, 3)
    x, y, z = sample.vertices.T
    corners = np.stack([x, z, -y], -1)[sample.faces]
    np.testing.assert_allclose(mesh.vertices[mesh.faces], corners, atol=2e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("fine")
def test_killed_training_ends_as_uninterrupted_bitwise(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--iters", "5", "--checkpoint_freq", "2", *FINE)
    run(*options)
    uninterrupted = weights()
    assert "blk4_mesh.conv1.weight_orig" in uninterrupted["generator"]
    Path("checkpoints_gan/toy_singletpl").rename("first")
    die_at(3, training.Update, lambda: run(*options), monkeypatch)
    run(*options, "--mesh_resolution", "32")  # gives way to that of the checkpoint
    assert_equal(uninterrupted, weights())


@pytest.mark.usefixtures("fine")
def test_maps_of_another_size_are_refused_in_one_line() -> None:
    message = (
        r"^cache/toy/pseudogt_128x128_singletpl/ has displacement maps of 64 x 64, expected 32 x 32: train with "
        r"--mesh_resolution 64, or export .* --dataset toy --mode singletpl --mesh_resolution 32[^\n]*$"
    )
    for options in ["--model", "linear"], ["--iters", "1"]:
        with pytest.raises(UserError, match=message):
            run(*options)
    # A single item of another size is damaged
    item = pseudo_files.load_pseudo_item("toy", 128, "singletpl", 2, mesh_resolution=64)
    item = item._replace(mesh=item.mesh[:, ::2, ::2])
    pseudo_files.save_pseudo_item("toy", 128, "singletpl", 2, item)
    with pytest.raises(
        UserError, match=r"2\.npz: mesh is float32 \(3, 32, 32\), expected .*\(3, 64, 64\)"
    ):
        run("--model", "linear", *FINE)


@pytest.mark.usefixtures("toy")
def test_a_file_whose_options_contradict_its_maps_is_refused() -> None:
    run("--model", "linear")
    state = torch.load(MODEL, weights_only=True)
    for size in (64, 48):
        state["args"]["mesh_resolution"] = size
        torch.save(state, MODEL)
        with pytest.raises(UserError, match=rf"model\.pth .*maps of 32, options of {size}"):
            load_model(MODEL, torch.device("cpu"))


@pytest.mark.usefixtures("toy")
def test_models_from_before_there_was_a_choice_have_maps_of_32() -> None:
    run("--model", "linear")
    state = torch.load(MODEL, weights_only=True)
    del state["args"]["mesh_resolution"]
    torch.save(state, MODEL)
    assert load_model(MODEL, torch.device("cpu")).options.mesh_resolution == 32
    run("--export_sample", "--how_many", "1", *FINE)
    mesh = trimesh.load("output/toy_singletpl/mesh_0.obj", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) == 1920
