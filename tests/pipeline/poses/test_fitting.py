"""Fits of poses to silhouettes."""

import itertools

import pytest
import torch
from torch import Tensor

from data.definitions import VIEW_PRIORS
from geometry import camera, quaternion
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import fitting
from pipeline.poses.candidates import Candidates
from pipeline.poses.contour_search import ContourSearch
from pipeline.poses.fitting import Schedule, fit_poses
from rendering.projection.terms import KINDS, make_term
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world


@pytest.fixture
def faces() -> Tensor:
    return SphereMesh().faces


@pytest.mark.parametrize("resolution", [32, 64, 100, 256])
def test_resolution_grows_twice_and_ends_at_the_one_asked_for(resolution: int) -> None:
    sizes = fitting.resolution_ladder(resolution)
    assert sizes[2] == resolution
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], abs=1)
    assert sizes[0] == pytest.approx(resolution / 2, abs=1)


@pytest.mark.parametrize("steps", [2, 40, 100])
def test_sharpness_grows_tenfold_by_equal_factors(steps: int) -> None:
    schedule = Schedule(steps, decay_after=steps, prune=False)
    values = [schedule.sharpness(step) for step in range(steps)]
    factors = [b / a for a, b in itertools.pairwise(values)]
    assert factors == pytest.approx([factors[0]] * (steps - 1))
    assert values[-1] / values[0] == pytest.approx(10)


def test_a_schedule_of_one_step_is_defined() -> None:
    schedule = Schedule(1, 0, prune=True)
    assert 0 < schedule.sharpness(0) < torch.inf
    assert schedule.milestones == (0, 0)


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


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_moves_a_pose_onto_its_mask(faces: Tensor, kind: str) -> None:
    truth = pose_world.poses([70.0], [10.0])
    targets, _ = pose_world.draw(truth, 64)
    template = pose_world.body()[None]
    shift = torch.tensor([[0.15, -0.1]])
    moved = truth._replace(translation=truth.translation + shift, scale=0.85 * truth.scale)
    start = Candidates(moved, torch.zeros(1, dtype=torch.int64)).repeat(1)
    term = make_term(kind, template, faces, 32)
    found = fitting._refine(start, targets, template, term, 20, None, None)
    overlaps = [
        fitting.silhouette_iou(vector, template, faces, targets, 7e4)
        for vector in (camera.to_vector(moved), found[0])
    ]
    assert overlaps[0] < 0.7
    assert overlaps[1] > 0.8


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
