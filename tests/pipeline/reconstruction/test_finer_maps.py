"""Displacement maps of 64 x 64 on the sphere of 63 rings, from templates to pseudo-ground-truth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import run_reconstruction
from data.cache import pseudo_files
from geometry.mesh_files import load_mesh
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.model import make_data, make_network, make_scene, predict
from pipeline.reconstruction.model_file import load_model
from pipeline.reconstruction.training import Update
from tests.pipeline.reconstruction.meshes.test_own_photographs import picture, reconstruct
from tests.pipeline.reconstruction.test_shape_pins import with_shapes
from tests.pipeline.reconstruction.toy import FLOW, RUN, config, run, state
from tests.runs import assert_equal, die_at

CPU = torch.device("cpu")
FINE = ("--mesh_resolution", "64")
ALL = (*FINE, "--shape_head", "both", "--neighbor_weight", "1", "--update_template_every", "2")


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("head", ["linear", "both"])
def test_shapes_begin_at_the_mean_of_what_was_fitted(head: str) -> None:
    """Spheres of radius 0.9 (their chords are 0.6 % nearer), moved up by 0.1 on average."""
    modes = torch.zeros(1, 2, 962, 3)
    modes[0, 0, :, 2], modes[0, 1, :, 1] = 0.1, 0.2
    with_shapes("toy", modes, torch.tensor([[1.0, 1], [1, -1], [1, 1], [1, -1]]))
    options = config(*FINE, "--shape_head", head)
    data = make_data(options)
    scene = make_scene(data.vocabulary, options.model, CPU, data.modes)
    labels = data.labels.select(torch.arange(2))
    # What meshes are pinned to has as many vertices, and modes move all of them alike
    sphere, up = SphereMesh(63).vertices, torch.tensor([0, 0, 0.1])
    assert (scene.templates - 0.9 * sphere).norm(dim=-1).max() < 0.006
    moved = scene.shapes(labels) - scene.templates
    expected = up + torch.tensor([[[0, 0.2, 0]], [[0, -0.2, 0]]])
    torch.testing.assert_close(moved, expected.expand(-1, 3970, -1), atol=1e-6, rtol=0)
    image = torch.stack([data[i].image for i in range(2)])
    vertices = predict(make_network(options, data, CPU).eval(), scene, image, labels).vertices
    assert (vertices - scene.templates - up).norm(dim=-1).mean() < 0.002


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_a_killed_run_ends_as_an_uninterrupted_one_bitwise(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--iters", "5", "--checkpoint_freq", "2", *ALL)
    run(*options)
    whole = state()
    RUN.rename("first")
    die_at(3, Update, lambda: run(*options), monkeypatch)
    # The checkpoint brings its own resolution
    run(*options, "--mesh_resolution", "32")
    assert_equal(whole, state())


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_models_are_measured_and_exported_with_their_own_maps() -> None:
    run("--iters", "1", *FINE, *FLOW)
    assert load_model(RUN / "model.pth", CPU).options.mesh_resolution == 64
    run("--evaluate")
    run("--generate_pseudogt", "--pseudogt_resolution", "128")
    item = pseudo_files.load_pseudo_item("toy", 128, "singletpl", 3, mesh_resolution=64)
    assert item.mesh.shape == (3, 64, 64)
    run("--export_meshes", "--how_many", "1", "--pseudogt_resolution", "128")
    [path] = RUN.parent.parent.glob("output/toy_singletpl_meshes/*/mesh.obj")
    exported = load_mesh(path, up="y", front="z")
    assert (len(exported.vertices), len(exported.faces)) == (3970, 7936)
    # A photograph, which is refined too
    colors, mask = picture()
    Image.fromarray(np.dstack([colors, mask])).save("one.png")
    reconstruct("--photo", "one.png", "--refine_steps", "1", "--pseudogt_resolution", "64")
    alone = load_mesh(Path("output/toy_singletpl_photographs/one/mesh.obj"), up="y", front="z")
    assert len(alone.faces) == 7936


def test_other_sizes_are_refused() -> None:
    parser = run_reconstruction.build_parser()
    with pytest.raises(SystemExit):
        parser.parse_args(["--name", "toy", "--mesh_resolution", "48"])
