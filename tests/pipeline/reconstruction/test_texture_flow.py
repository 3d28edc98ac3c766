"""Texture flow: what it fetches, where it begins, and its terms, against closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data.cache import pseudo_files
from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import half_map, mirror_map, symmetric_extension
from models.perceptual import gradient_distance
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.companions.textures import choose_distance
from pipeline.reconstruction.dataset import Labels
from pipeline.reconstruction.texture_flow import (
    barrier,
    cycle_term,
    flow_start,
    flow_texture,
    mask_term,
    mirror_flow,
)
from rendering.inverse import surface_map, visibility
from tests.pipeline.reconstruction.toy import FLOW, run, state
from utils.cli import UserError

MESH = SphereMesh()
SIZE = 64


def pixel_centers(size: int) -> Tensor:
    """Returns the positions (1, 2, size, size) of the pixels of an image."""
    x = (torch.arange(size) + 0.5) * 2 / size - 1
    return torch.stack(torch.meshgrid(x, -x, indexing="xy"))[None]


def photograph(count: int = 1, size: int = SIZE) -> Tensor:
    """Returns noise inside of disks, as crops (B, 4, h, h)."""
    colors = 2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) - 1
    mask = (pixel_centers(size).norm(dim=1, keepdim=True) < 0.8).float().expand(count, -1, -1, -1)
    return torch.cat([colors * mask, mask], dim=1)


def side_view(degrees: float) -> Tensor:
    """Returns an ellipsoid on the screen (1, V, 3), seen from that azimuth."""
    rotation = quaternion.from_view(*(torch.tensor([x]) for x in (degrees, 20.0, 5.0)))
    pose = Pose(
        torch.full((1, 1), 0.8), torch.full((1, 2), 0.05), rotation, torch.full((1, 1), 2.0)
    )
    return project(MESH.vertices[None] * torch.tensor([0.5, 0.9, 0.6]), pose)


def true_flow(screen: Tensor, resolution: int, size: int = SIZE) -> Tensor:
    """Returns where each texel, or its mirror image, is seen; hidden ones anywhere."""
    position = surface_map(screen[..., :2], MESH, resolution)
    seen = visibility(MESH, screen, resolution, size) > 0
    return symmetric_extension(half_map(torch.where(seen, position, mirror_map(position))))


def test_each_position_fetches_the_pixel_that_is_there():
    image = photograph()
    found = flow_texture(image, pixel_centers(SIZE))
    torch.testing.assert_close(found, image[:, :3], atol=1e-5, rtol=0)
    # One pixel to the right, in the third row from above
    moved = torch.tensor([(10 + 0.5) * 2 / SIZE - 1, 1 - (20 + 0.5) * 2 / SIZE])[
        None, :, None, None
    ]
    torch.testing.assert_close(flow_texture(image, moved)[0, :, 0, 0], image[0, :3, 20, 10])


def test_the_background_does_not_bleed_in():
    """Where a lookup mixes object and background, its color is that of the object."""
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 20:40, 20:40] = 1
    color = torch.tensor([0.9, -0.3, 0.5])[None, :, None, None]
    image = torch.cat([color * mask, mask], dim=1)
    edge = torch.tensor([20 * 2 / SIZE - 1, 0.0])[None, :, None, None]
    assert image[0, 3, 32, 19:21].tolist() == [0, 1]
    torch.testing.assert_close(flow_texture(image, edge), color)


def test_colors_have_the_slopes_of_finite_differences():
    image = torch.nn.functional.avg_pool2d(photograph(), 5, 1, 2).double()
    flow = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(2)).double() - 0.5
    torch.autograd.gradcheck(lambda x: flow_texture(image, x), flow.requires_grad_())


def test_mirror_images_of_photographs_have_the_same_texture():
    image = photograph(2)
    flow = 1.6 * torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(3)) - 0.8
    flip = torch.tensor([True, False])
    seen = torch.where(flip[:, None, None, None], image.flip(-1), image)
    expected = flow_texture(image, flow)
    torch.testing.assert_close(flow_texture(seen, mirror_flow(flow, flip)), expected)
    assert torch.equal(mirror_flow(flow, flip)[1], flow[1])


def test_the_barrier_is_a_sigmoid_of_the_distance():
    """A straight outline: distances are counted in pixels."""
    mask = torch.zeros(1, 1, 50, 50)
    mask[..., 20:] = 1
    row = barrier(mask)[0, 0, 25]
    assert row[19].item() == pytest.approx(1 / (1 + math.exp(-1)))
    assert row[20].item() == pytest.approx(1 / (1 + math.exp(1)))
    assert row[14].item() == pytest.approx(1 / (1 + math.exp(-6)))
    assert (row.diff()[:30] <= 0).all()


def test_positions_outside_the_mask_are_pulled_in():
    image = photograph()
    flow = torch.tensor([[0.85, 0.0], [0.0, -0.87]]).T[None, :, None].requires_grad_()
    mask_term(flow, image[:, 3:]).backward()
    assert flow.grad is not None
    assert flow.grad[0, 0, 0, 0] > 0
    assert flow.grad[0, 1, 0, 1] < 0
    assert mask_term(torch.zeros(1, 2, 4, 4), image[:, 3:]) < 1e-3


@pytest.mark.parametrize("degrees", [0.0, 40.0, 90.0, 200.0, 290.0])
def test_the_true_flow_closes_the_cycle(degrees: float):
    screen = side_view(degrees)
    flow = true_flow(screen, 64)
    assert cycle_term(flow, screen, MESH, SIZE) == 0
    # All texels a tenth to the right: each counts alike
    moved = flow + torch.tensor([0.1, 0.0])[None, :, None, None]
    assert cycle_term(moved, screen, MESH, SIZE).item() <= 0.01 + 1e-6
    if degrees in (90.0, 290.0):
        return
    assert cycle_term(true_flow(side_view(degrees + 60), 64), screen, MESH, SIZE) > 0.02


def test_a_texel_that_is_seen_on_one_side_only_has_one_place():
    """Seen exactly from a side, no mirror image is there to be taken instead."""
    screen = side_view(0.0)
    seen = visibility(MESH, screen, 64, SIZE) > 0
    flow = true_flow(screen, 64)
    moved = flow + torch.tensor([0.1, 0.0])[None, :, None, None]
    once = half_map(seen ^ mirror_map(seen))
    assert once.float().mean() > 0.5
    only = torch.where(symmetric_extension(once), moved, flow)
    weight = half_map(
        visibility(MESH, screen, 64, SIZE) + mirror_map(visibility(MESH, screen, 64, SIZE))
    )
    expected = 0.01 * (weight * once).sum() / weight.sum()
    torch.testing.assert_close(cycle_term(only, screen, MESH, SIZE), expected)


def test_cycles_have_the_slopes_of_finite_differences():
    screen = side_view(30.0)
    generator = torch.Generator().manual_seed(4)
    flow = symmetric_extension(torch.rand(1, 2, 64, 32, generator=generator)).double() - 0.5
    flow.requires_grad_()
    cycle_term(flow, screen.double().requires_grad_(), MESH.double(), 32).backward()
    MESH.float()
    assert flow.grad is not None
    where = torch.nonzero(flow.grad.abs() > flow.grad.abs().max() / 2)[:5]
    assert len(where) == 5
    for place in where.tolist():
        step = torch.zeros_like(flow)
        step[tuple(place)] = 1e-5
        ends = [cycle_term(flow.detach() + s * step, screen, MESH, 32) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close(
            slope.item(), flow.grad[tuple(place)].item(), rtol=1e-3, atol=1e-9
        )


def test_flow_begins_where_texels_are_seen_on_average():
    """Two poses without turns: the second one is higher by .2."""
    count = 2
    pose = Pose(
        torch.full((count, 1), 0.5),
        torch.tensor([[0.3, 0.0], [0.1, -0.2]]),
        quaternion.from_view(torch.zeros(count), torch.zeros(count), torch.zeros(count)),
        torch.full((count, 1), 30.0),
    )
    zeros = torch.zeros(count).long()
    labels = Labels(pose, zeros, zeros, zeros > 0, torch.zeros(count, 0))
    start = flow_start(MESH, MESH.vertices[None], labels, 1, 64).tanh()
    assert start.shape == (1, 2, 64, 32)
    assert not start[:, 0].any()
    heights = project(MESH.vertices.expand(2, -1, -1), pose)[..., 1].mean(0)
    north, south = heights[MESH.poles].tolist()
    assert start[0, 1, 0].mean().item() == pytest.approx(north, abs=0.01)
    assert start[0, 1, -1].mean().item() == pytest.approx(south, abs=0.01)


def test_networks_begin_there_and_predict_symmetric_positions():
    torch.manual_seed(0)
    network = ReconstructionNetwork(
        2, texture_resolution=64, image_resolution=64, width=1 / 32, texture_model="flow"
    )
    network.flow_start.copy_(torch.randn(2, 2, 64, 32))
    selection = torch.ones(4, 1, 1)
    category = torch.tensor([0, 1, 0, 1])
    flow, _, _ = network(torch.randn(4, 4, 64, 64), category, selection)
    assert torch.equal(half_map(flow), network.flow_start[category].tanh())
    torch.nn.init.normal_(network.conv_tex.weight)
    flow, _, _ = network(torch.randn(4, 4, 64, 64), category, selection)
    assert torch.equal(flow, mirror_map(flow))
    assert not torch.equal(half_map(flow), network.flow_start[category].tanh())
    with pytest.raises(ValueError, match="texture_model"):
        ReconstructionNetwork(texture_model="optical")


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_all_that_uses_textures_works_with_flow():
    """A disk of one color: so is its exported texture."""
    run("--iters", "1", "--texture_model", "flow")
    run("--generate_pseudogt", "--pseudogt_resolution", "32")
    assert len(pseudo_files.pseudo_item_paths("toy", 32, "singletpl")) == 4
    run("--export_meshes", "--pseudogt_resolution", "32")
    run("--photo", "datasets/toy/images/1.png", "--mask", str(save_mask()), "--refine_steps", "1",
        "--pseudogt_resolution", "32")  # fmt: skip
    with Image.open("datasets/toy/images/1.png") as picture:
        color = np.asarray(picture.convert("RGB"))[24, 24] / 255
    for folder in ("toy_singletpl_meshes", "toy_singletpl_photographs"):
        with Image.open(Path("output") / folder / "1/mesh.png") as texture:
            found = np.asarray(texture.convert("RGB")) / 255
        np.testing.assert_allclose(found.mean((0, 1)), color, atol=0.05)


def save_mask() -> Path:
    """Writes the mask of the photograph of a disk."""
    y, x = np.mgrid[:48, :48] - 23.5
    path = Path("mask.png")
    Image.fromarray((np.hypot(x, y) < 15).astype(np.uint8) * 255).save(path)
    return path


@pytest.mark.usefixtures("toy")
def test_terms_appear_with_their_weights(caplog: pytest.LogCaptureFixture):
    run("--iters", "1", *FLOW)
    losses = state()["losses"]
    assert {"flow_dt", "flow_cycle", "perceptual"} <= losses.keys()
    run("--iters", "1", "--name", "rgb_singletpl", "--perceptual_weight", "2", *FLOW[-2:])
    colors = state("rgb_singletpl")["losses"]
    assert "perceptual" in colors
    assert not {"flow_dt", "flow_cycle"} & colors.keys()
    run("--iters", "1", "--name", "off_singletpl", "--texture_model", "flow",
        "--flow_dt_weight", "0", "--flow_cycle_weight", "0")  # fmt: skip
    assert not {"flow_dt", "flow_cycle", "perceptual"} & state("off_singletpl")["losses"].keys()


def test_a_network_of_features_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "pipeline.reconstruction.companions.textures.default_features", lambda: None
    )
    assert choose_distance("auto", torch.device("cpu")) is gradient_distance
    monkeypatch.setattr("models.features._installed", lambda _: False)
    with pytest.raises(UserError, match="needs the package timm"):
        choose_distance("tf_efficientnet_lite0", torch.device("cpu"))


@pytest.mark.usefixtures("toy")
def test_mistakes_leave_no_run_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("models.features._installed", lambda _: False)
    with pytest.raises(UserError, match="needs the package timm"):
        run("--perceptual_weight", "1", "--perceptual_features", "resnet18")
    with pytest.raises(UserError, match="--perceptual_weight 1: colors are compared"):
        run("--perceptual_weight", "1", "--prediction_type", "semantics")
    with pytest.raises(SystemExit):
        run("--texture_model", "flow", "--prediction_type", "none")
    assert "--texture_model flow needs --prediction_type" in capsys.readouterr().err
    assert not Path("checkpoints_recon").exists()
