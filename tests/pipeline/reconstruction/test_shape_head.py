"""The linear head of shapes: where it begins, what it learns, and which files have it."""

import pytest
import torch

from data.cache import template_files
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import average_poles, symmetric_extension
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.config import EARLIER_MODEL
from pipeline.reconstruction.model import make_data, make_network, make_scene, mean_shapes, predict
from pipeline.reconstruction.model_file import load_model
from tests.pipeline.reconstruction.test_shape_pins import with_shapes
from tests.pipeline.reconstruction.toy import RUN, config, run, state

CPU = torch.device("cpu")


@pytest.mark.parametrize("category", ["bird", "car", "horse"])
def test_maps_of_templates_deform_the_sphere_into_them(category: str) -> None:
    sphere = SphereMesh()
    templates = template_files.load_templates(category, "singletpl")
    maps = sphere.half_displacement_map(templates)
    again = sphere.deform(symmetric_extension(average_poles(maps)))
    assert (again - templates).norm(dim=-1).mean() < 0.004


def test_maps_of_ellipsoids_are_found_almost_exactly() -> None:
    sphere = SphereMesh()
    mesh = sphere.vertices[None] * torch.tensor([0.5, 1.2, 0.8])
    maps = sphere.half_displacement_map(mesh)
    again = sphere.deform(symmetric_extension(average_poles(maps)))
    torch.testing.assert_close(again, mesh, rtol=0, atol=0.01)
    assert maps.abs().max() < 0.51


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("head", ["linear", "both"])
def test_shapes_begin_at_the_mean_of_what_was_fitted(head: str) -> None:
    """Spheres of radius 0.9, moved up by 0.1 on average."""
    modes = torch.zeros(1, 2, 962, 3)
    modes[0, 0, :, 2], modes[0, 1, :, 1] = 0.1, 0.2
    with_shapes("toy", modes, torch.tensor([[1.0, 1], [1, -1], [1, 1], [1, -1]]))
    options = config("--shape_head", head)
    data = make_data(options)
    expected = data.templates + torch.tensor([0, 0, 0.1])
    torch.testing.assert_close(mean_shapes(data), expected)
    network, scene = (
        make_network(options, data, CPU).eval(),
        make_scene(data.vocabulary, options.model, CPU),
    )
    image = torch.stack([data[i].image for i in range(2)])
    vertices = predict(network, scene, image, data.labels.select(torch.arange(2))).vertices
    assert (vertices - expected).norm(dim=-1).mean() < 0.004


def test_every_category_has_a_mean_and_shares_the_deviations() -> None:
    network = ReconstructionNetwork(2, width=0.05, image_resolution=64, shape_head="linear").eval()
    torch.nn.init.ones_(network.mean_mesh.data[1])
    torch.nn.init.normal_(network.fc_mesh.weight, std=0.01)
    image, selection = torch.rand(1, 4, 64, 64).expand(2, -1, -1, -1), torch.ones(2, 1, 1)
    _, same, _ = network(image, torch.tensor([0, 0]), selection)
    _, other, _ = network(image, torch.tensor([0, 1]), selection)
    torch.testing.assert_close(other[1], same[1] + 1)
    assert other.flatten(2).std(2).min() > 0


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_linear_heads_learn_shapes_in_few_steps() -> None:
    """Disks whose size does not depend on the template: overlap grows faster than by convolutions."""
    overlap = {}
    for head in ("convolution", "linear"):
        name = ("--name", f"{head}_singletpl", "--shape_head", head)
        run(*name, "--iters", "40", "--lr", "0.001", "--semi_fraction", "0", "--batch_size", "4")
        overlap[head] = state(f"{head}_singletpl")["losses"]["iou"]
    assert overlap["linear"] > overlap["convolution"]


@pytest.mark.usefixtures("toy")
def test_files_keep_their_head() -> None:
    run("--iters", "1", "--shape_head", "linear")
    assert load_model(RUN / "model.pth", CPU).options.shape_head == "linear"
    # The option of the command gives way to that of the checkpoint
    run("--iters", "2")
    run("--evaluate")
    assert "mean_mesh" in state()["generator"]


def test_both_heads_add_up() -> None:
    heads = ("convolution", "linear", "both")
    networks = {
        head: ReconstructionNetwork(width=0.05, image_resolution=64, shape_head=head).eval()
        for head in heads
    }
    both = networks["both"]
    for weight in (both.conv_mesh.weight, both.fc_mesh.weight, both.mean_mesh):
        torch.nn.init.normal_(weight, std=0.01)
    image = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = {}
    for head, network in networks.items():
        own = {name: x for name, x in both.state_dict().items() if name in network.state_dict()}
        network.load_state_dict(own)
        maps[head] = network(image, torch.zeros(2, dtype=torch.int64), torch.ones(1, 1, 1))[1]
    torch.testing.assert_close(maps["both"], maps["convolution"] + maps["linear"])
    assert maps["convolution"].std() > 0


def test_new_runs_are_linear_and_published_networks_are_convolutions() -> None:
    assert config().model.shape_head == "linear"
    assert EARLIER_MODEL["shape_head"] == "convolution"
    assert ReconstructionNetwork(width=0.05, image_resolution=64).shape_head == "convolution"


def test_unknown_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="shape_head"):
        ReconstructionNetwork(shape_head="cubic")
