"""Fits of poses to silhouettes."""

import pytest
import torch
from torch import Tensor

from data.definitions import VIEW_PRIORS
from geometry import camera, quaternion
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import fitting
from pipeline.poses.contour_search import ContourSearch
from pipeline.poses.fitting import Schedule, fit_poses
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world


@pytest.fixture
def faces() -> Tensor:
    return SphereMesh().faces


def test_resolution_and_sharpness_follow_the_paper() -> None:
    schedule = Schedule(steps=100, decay_after=80, prune=False)
    assert fitting.resolution_ladder(256) == (128, 192, 256)
    assert fitting.resolution_ladder(64) == (32, 48, 64)
    assert schedule.milestones == (30, 60)
    assert schedule.sharpness(0) == pytest.approx(7000)
    assert schedule.sharpness(99) == pytest.approx(70000)
    assert schedule.learning_rate(80) == 0.1
    assert schedule.learning_rate(81) == pytest.approx(0.01)
    assert Schedule(1, 0, False).sharpness(0) == 7000  # a single step divides by nothing


def test_initial_hypotheses_are_the_views_at_nine_tenths_of_the_image() -> None:
    templates = torch.stack([pose_world.body(), 0.5 * pose_world.body()])
    parameters, choice = fitting.initial_hypotheses(templates)
    assert parameters.shape == (80, 8)
    assert choice[:4].tolist() == [0, 1, 0, 1]
    screen = camera.project(templates[choice], camera.from_vector(parameters))
    # The perspective depends a little on the scale
    torch.testing.assert_close(
        screen[..., :2].abs().amax(dim=(1, 2)), torch.full((80,), 0.9), rtol=0.15, atol=0
    )
    torch.testing.assert_close(
        camera.from_vector(parameters).rotation[::2], quaternion.initial_views()
    )


@pytest.mark.slow
def test_recovers_the_pose_of_a_rendered_body(faces: Tensor) -> None:
    truth = pose_world.poses([30.0], [15.0])
    targets, _ = pose_world.draw(truth, 48)
    found = fit_poses(targets, pose_world.body()[None], faces, Schedule(40, 30, prune=False))
    assert found.iou.shape == (1, 40)
    assert found.iou.max() > 0.95
    near = found.pose.rotation[0, found.iou[0] > 0.93]
    both = torch.cat([near, quaternion.complementary(near)])
    assert quaternion.angle_between(both, truth.rotation).min() < 8


def test_outlines_find_the_pose_of_a_rendered_body(faces: Tensor) -> None:
    truth = pose_world.poses([30.0, 110.0], [15.0, 0.0])
    targets, _ = pose_world.draw(truth, 96)
    template = pose_world.body()[None]
    search = ContourSearch(template, faces, VIEW_PRIORS["bird"])
    found = fitting.search_poses(targets, search, template, faces, steps=30)
    assert found.iou.shape == (2, 8 + 2)
    assert found.iou.amax(dim=1).min() > 0.95
    apart = quaternion.angle_between(found.pose.rotation, truth.rotation[:, None])
    assert apart.amin(dim=1).max() < 5


@pytest.mark.slow
def test_an_adapted_shape_fits_a_longer_object(faces: Tensor) -> None:
    truth = pose_world.poses([30.0, 110.0], [15.0, 0.0])
    template = pose_world.body()[None]
    vertices = template * torch.tensor([1.0, 1.3, 1.0])
    screen = camera.project(vertices.expand(2, -1, -1), truth._replace(scale=0.8 * truth.scale))
    targets = rasterize(screen, faces, 96, soft=False).coverage[:, 0]
    search = ContourSearch(template, faces, VIEW_PRIORS["bird"])
    rigid, adapted = (
        fitting.search_poses(targets, search, template, faces, 30, spread).iou.amax(dim=1)
        for spread in (0.0, 0.2)
    )
    assert (adapted > rigid).all()
    assert adapted.min() > 0.99


def test_mirrored_targets_give_mirrored_poses(faces: Tensor) -> None:
    targets, _ = pose_world.draw(pose_world.poses([30.0], [15.0]), 32)
    schedule = Schedule(3, 2, prune=False)
    template = pose_world.body()[None]
    plain = fit_poses(targets, template, faces, schedule)
    flipped = fit_poses(targets.flip(-1), template, faces, schedule)
    mirrored = camera.mirror(camera.select(plain.pose, 0))
    apart = quaternion.angle_between(mirrored.rotation[:, None], flipped.pose.rotation[:1])
    nearest = apart.amin(dim=1)
    # Where symmetry makes the gradient vanish, the optimizer scales rounding errors up
    assert nearest.median() < 0.5
    assert plain.iou.max() == pytest.approx(flipped.iou.max().item(), abs=0.01)


def test_pruning_keeps_the_better_half_of_each_image() -> None:
    iou = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.3, 0.2, 0.8, 0.7])
    assert fitting.better_half(iou, 2).tolist() == [1, 2, 6, 7]


def test_pruning_halves_the_hypotheses_twice(faces: Tensor) -> None:
    targets, _ = pose_world.draw(pose_world.poses([30.0, 80.0], [15.0, 0.0]), 32)
    templates = pose_world.body()[None].repeat(2, 1, 1)
    found = fit_poses(targets, templates, faces, Schedule(4, 3, prune=True))
    assert found.iou.shape == (2, 20)
    assert found.template_weights.sum(dim=-1).eq(1).all()
