"""Keypoint transfer: pairs, PCK and positions in closed form; true meshes and cameras are perfect."""

import numpy as np
import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from rendering.keypoint_transfer import (
    AnnotatedMeshes,
    TransferOptions,
    describe,
    draw_pairs,
    measure_transfer,
    pck,
    shows_pairs,
    transfer,
)

MESH = SphereMesh()
VERTICES = torch.tensor([481, 236, 247, 7, 104, 376, 600, 850])  # the keypoints


def views(count: int, noise: float = 0.0) -> AnnotatedMeshes:
    """Returns an ellipsoid from random directions, with vertices of it as keypoints."""
    generator = torch.Generator().manual_seed(3)
    shape = MESH.vertices * torch.tensor([0.5, 0.9, 0.6])
    rotation = quaternion.normalize(torch.randn(count, 4, generator=generator))
    pose = Pose(
        torch.full((count, 1), 0.8),
        0.1 * torch.randn(count, 2, generator=generator),
        rotation,
        torch.full((count, 1), 2.0),
    )
    screen = project(shape.expand(count, -1, -1), pose)
    # A keypoint is visible on the near side of a convex body
    normals = quaternion.rotate(
        rotation, (shape / torch.tensor([0.25, 0.81, 0.36]))[VERTICES].expand(count, -1, -1)
    )
    visible = normals[..., 2] < -0.3 * normals.norm(dim=-1)
    position = screen[:, VERTICES, :2]
    position = position + noise * torch.randn(position.shape, generator=generator)
    return AnnotatedMeshes(
        screen, position, visible, torch.full((count,), 1.8), torch.zeros(count).long()
    )


def options(mode: str, *alphas: float, pairs: int = 300) -> TransferOptions:
    return TransferOptions(mode, pairs, alphas, 0)


@pytest.mark.parametrize(("mode", "alpha"), [("cam", 1e-5), ("uv", 0.01)])
def test_true_cameras_of_a_rigid_shape_transfer_everything(mode: str, alpha: float):
    figures = measure_transfer(views(12), MESH, options(mode, alpha))
    assert figures[f"pck_{alpha:g}"] == 1
    assert figures[f"pck_position_{alpha:g}"] < 0.1


def test_other_cameras_do_worse_than_the_position():
    """Each image has the mesh of another one: keypoints go astray."""
    images = views(12)
    wrong = images._replace(screen=images.screen.roll(5, dims=0))
    figures = measure_transfer(wrong, MESH, options("cam", 0.1))
    assert figures["pck_0.1"] < 0.6


def test_the_position_is_judged_as_by_a_loop():
    images = views(7, noise=0.05)
    figures = measure_transfer(images, MESH, options("cam", 0.1, pairs=50))
    hits, counts = np.zeros(8), np.zeros(8)
    for a, b in draw_pairs(images.group, 50, 0).tolist():
        for s, t in ((a, b), (b, a)):
            for k in range(8):
                if images.visible[s, k] and images.visible[t, k]:
                    x, y = (images.position[s, k] - images.position[t, k]).tolist()
                    counts[k] += 1
                    hits[k] += np.hypot(x, y) / 1.8 < 0.1
    seen = counts > 0
    assert figures["pck_position_0.1"] == pytest.approx((hits[seen] / counts[seen]).mean())


def test_pck_is_the_mean_over_keypoints_of_the_visible_ones():
    error = torch.tensor([[0.09, 0.2, 0.0], [0.11, 0.0, 0.0], [0.0, 0.0, 0.0]])
    visible = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 0]]).bool()
    assert pck(error, visible, 0.1) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert pck(error, visible, 0.12) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(pck(error, torch.zeros(3, 3).bool(), 0.1))


def test_pairs_are_of_different_images_of_one_group_and_a_function_of_the_seed():
    group = torch.tensor([1, 0, 1, 5, 0, 1])
    pairs = draw_pairs(group, 500, 4)
    assert torch.equal(pairs, draw_pairs(group, 500, 4))
    assert not torch.equal(pairs, draw_pairs(group, 500, 5))
    assert (group[pairs[:, 0]] == group[pairs[:, 1]]).all()
    found = {tuple(pair) for pair in pairs.tolist()}
    assert found == {(1, 4), (4, 1)} | {(a, b) for a in (0, 2, 5) for b in (0, 2, 5) if a != b}
    assert draw_pairs(torch.tensor([0, 1]), 5, 0).shape == (0, 2)


def test_hidden_points_go_to_visible_pixels_by_texel_only():
    """Seen from behind, the frontmost point of a sphere is hidden: its camera puts it in the middle."""
    turned = quaternion.from_axis_angle(torch.tensor([0.0, 1, 0]), torch.tensor(180.0))
    screen = torch.stack([MESH.vertices, quaternion.rotate(turned, MESH.vertices)]) / 2
    nothing = torch.zeros(2, 1)
    images = AnnotatedMeshes(
        screen, torch.zeros(2, 1, 2), nothing > 0, torch.ones(2), torch.zeros(2).long()
    )
    ends = torch.tensor([0]), torch.tensor([1])
    by_camera: Tensor = transfer(images, *ends, MESH, "cam")[0, 0]
    by_texel: Tensor = transfer(images, *ends, MESH, "uv")[0, 0]
    assert by_camera.norm() < 0.02
    assert by_texel.norm() == pytest.approx(0.5, abs=0.05)


def test_a_target_outside_of_the_image_gets_no_keypoint():
    images = views(2)
    away = images._replace(screen=images.screen + 10 * torch.tensor([[[0.0]], [[1.0]]]))
    moved = transfer(away, torch.tensor([0]), torch.tensor([1]), MESH, "uv")
    assert torch.isinf(moved).all()


def test_figures_are_printed_as_usual():
    figures = {"pck_0.1": 0.51234, "pck_0.15": 1.0, "pck_position_0.1": 0, "pck_position_0.15": 0.5}
    assert describe(figures, options("cam", 0.1, 0.15)) == [
        "PCK.1 0.5123, PCK.15 1.0000 of keypoints transferred by cam",
        "PCK.1 0.0000, PCK.15 0.5000 of keypoints that stay where they are in the crop",
    ]


def test_pairs_show_something_if_a_keypoint_is_visible_twice():
    group, choice = torch.zeros(3).long(), options("cam", 0.1)
    once = torch.eye(3).bool()
    twice = once.clone()
    twice[1, 0] = True
    assert not shows_pairs(once, group, choice)
    assert shows_pairs(twice, group, choice)
    assert not shows_pairs(twice, torch.arange(3), choice)


def test_true_flow_transfers_everything():
    """Every image shows the same texels, moved, turned and scaled."""
    generator = torch.Generator().manual_seed(5)
    count, texels = 6, 2 * torch.rand(8 * 5, 2, generator=generator) - 1
    angle, shift = (
        6 * torch.rand(count, generator=generator),
        torch.randn(count, 1, 2, generator=generator),
    )
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(count, 2, 2)
    seen = texels @ turn + 0.1 * shift
    chosen = torch.tensor([3, 30, 17, 11])
    images = AnnotatedMeshes(
        views(count).screen,
        seen[:, chosen] + 1e-4,
        torch.ones(count, 4, dtype=torch.bool),
        torch.ones(count),
        torch.zeros(count).long(),
        seen.transpose(1, 2).unflatten(2, (8, 5)),
    )
    figures = measure_transfer(images, MESH, options("flow", 0.001, pairs=40))
    assert figures["pck_0.001"] == 1
    assert figures["pck_position_0.001"] < 0.1
    # Texels that do not correspond lead astray
    seen[::2] = seen[::2].roll(1, dims=1)
    wrong = images._replace(flow=seen.transpose(1, 2).unflatten(2, (8, 5)))
    assert measure_transfer(wrong, MESH, options("flow", 0.001, pairs=40))["pck_0.001"] < 0.7
