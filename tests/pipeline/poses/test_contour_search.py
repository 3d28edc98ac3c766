"""Coarse search for poses by outlines."""

import numpy as np
import pytest
import torch

from data.definitions import ViewPrior
from geometry import camera, quaternion
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import numba_contour
from pipeline.poses.contour_search import ContourSearch, outlines, signatures, view_grid
from pipeline.poses.numba_contour import Tilts
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world

PRIOR = ViewPrior(5.0, 15.0, 10.0, 0.0, 0.0)


def parameters(pose: camera.Pose) -> np.ndarray:
    """Returns poses as vectors (N, 8), as the compiled loops take them."""
    exact = camera.Pose(*(member.double() for member in pose))
    return camera.to_vector(exact._replace(rotation=quaternion.normalize(exact.rotation))).numpy()


@pytest.fixture
def tilted() -> camera.Pose:
    """Three poses without any symmetry, near enough for perspective to matter."""
    pose = pose_world.poses([20.0, 130.0, 290.0], [10.0, -20.0, 35.0])
    return pose._replace(translation=pose.translation + 0.1, z0=torch.full((3, 1), 0.7))


@pytest.fixture(scope="module")
def search() -> ContourSearch:
    return ContourSearch(pose_world.body()[None], SphereMesh().faces, PRIOR)


def placed(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vertices = pose_world.body().double().numpy()
    turned, screen = np.zeros((962, 3)), np.zeros((962, 2))
    numba_contour.place(vertices, pose, turned, screen)
    return turned, screen


def test_vertices_are_placed_as_the_camera_does(tilted: camera.Pose) -> None:
    expected = camera.project(pose_world.body().expand(3, -1, -1), tilted)[..., :2]
    found = np.stack([placed(pose)[1] for pose in parameters(tilted)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_derivatives_equal_finite_differences(tilted: camera.Pose) -> None:
    pose, row = parameters(tilted)[1], np.zeros(7)
    turned, screen = placed(pose)
    for i in range(7):
        step, moved = np.zeros(7), pose.copy()
        step[i] = 1e-6
        numba_contour.move(moved, step)
        slope = (placed(moved)[1] - screen) / 1e-6
        for vertex in (3, 400, 900):
            numba_contour.derivative(turned[vertex], pose, 0.6, -0.8, row)
            assert row[i] == pytest.approx(slope[vertex] @ (0.6, -0.8), abs=1e-4)


def test_prior_pulls_elevation_and_roll_to_the_expected_view() -> None:
    rotation = quaternion.from_view(
        torch.tensor(70.0), torch.tensor(30.0), torch.tensor(-20.0)
    ).double()
    pose = np.array([*rotation.tolist(), 0.8, 0.1, 0.0, 3.0])
    tilts, row = Tilts(*np.radians(PRIOR.tilts()).tolist()), np.zeros(7)
    for _ in range(10):
        matrix, vector = np.zeros((7, 7)), np.zeros(7)
        numba_contour.add_prior(pose, tilts, row, matrix, vector)
        numba_contour.move(pose, np.linalg.lstsq(matrix, vector, rcond=None)[0])
    azimuth, elevation, roll = quaternion.to_view(torch.from_numpy(pose[:4]))
    assert azimuth.item() == pytest.approx(70, abs=8)  # nothing is known of it
    assert elevation.item() == pytest.approx(5, abs=0.1)
    assert roll.item() == pytest.approx(0, abs=0.1)
    assert pose[7] == pytest.approx(2)


def test_coverage_equals_that_of_the_rasterizer(tilted: camera.Pose) -> None:
    faces = SphereMesh().faces
    screen = camera.project(pose_world.body()[None], camera.select(tilted, slice(1, 2)))
    expected = rasterize(screen, faces, 64, soft=False).coverage[0, 0].bool().numpy()
    mask, front = np.zeros((64, 64), bool), np.zeros(len(faces), bool)
    numba_contour.cover(screen[0, :, :2].double().numpy(), faces.numpy(), front, mask)
    assert (mask != expected).sum() <= 2


def test_distances_and_samples_of_a_disk() -> None:
    axis = torch.linspace(-1, 1, 257)[:-1] + 1 / 256
    distance = (axis[:, None].square() + axis.square()).sqrt()
    targets = outlines((distance < 0.6).float()[None])
    coarse = (np.arange(128) + 0.5) / 64 - 1
    true = np.hypot(coarse[:, None], coarse) - 0.6
    assert np.abs(targets.fields[0] - true)[np.abs(true) < 0.3].max() < 0.02
    x, y, nx, ny = targets.samples[0].T
    np.testing.assert_allclose(np.hypot(x, y), 0.6, atol=0.02)
    assert (nx * x + ny * y > 0.55).all()


def test_signatures_ignore_place_and_size() -> None:
    pose = pose_world.poses([30.0], [10.0])
    moved = pose._replace(scale=pose.scale * 0.6, translation=pose.translation + 0.2)
    vectors, frames = signatures(torch.cat([pose_world.draw(p, 64)[0] for p in (pose, moved)]))
    assert vectors[0] @ vectors[1] > 0.98
    assert (frames[1, 2] / frames[0, 2]).item() == pytest.approx(0.6, abs=0.02)


def test_the_grid_spans_what_the_prior_allows() -> None:
    azimuth, elevation, roll = quaternion.to_view(view_grid(PRIOR))
    assert len(torch.unique(azimuth.round() % 360)) == 24
    assert (elevation.min().round(), elevation.max().round()) == (-25, 35)
    assert (roll.min().round(), roll.max().round()) == (-20, 20)


@pytest.mark.slow
def test_finds_the_poses_of_rendered_masks(search: ContourSearch) -> None:
    truth = pose_world.poses([15.0, 60.0, 140.0, 200.0, 310.0], [10.0, 0.0, 20.0, -10.0, 5.0])
    rotations = search.find(pose_world.draw(truth, 64)[0]).pose.rotation
    apart = quaternion.angle_between(rotations, truth.rotation[:, None])
    assert apart.amin(dim=1).max() < 8
    assert quaternion.angle_between(rotations[:, 0], rotations[:, 1]).min() > 12


def test_mirrored_masks_give_mirrored_modes(search: ContourSearch) -> None:
    masks, _ = pose_world.draw(pose_world.poses([40.0], [15.0]), 64)
    plain, flipped = (search.find(m).pose.rotation[0, :2] for m in (masks, masks.flip(-1)))
    apart = quaternion.angle_between(quaternion.mirror(plain)[:, None], flipped)
    assert apart.amin(dim=1).max() < 6


def test_an_image_is_searched_on_its_own(
    search: ContourSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, _ = pose_world.draw(pose_world.poses([40.0, 200.0, 330.0], [15.0, 0.0, 5.0]), 64)
    together = search.find(masks)
    monkeypatch.setenv("TMG_THREADS", "2")
    alone = [search.find(mask[None]) for mask in masks]
    expected = camera.concatenate([modes.pose for modes in alone])
    assert all(map(torch.equal, together.pose, expected))


def test_the_fitting_template_is_found() -> None:
    thin = pose_world.body() * torch.tensor([1.0, 1.0, 0.3])
    search = ContourSearch(torch.stack([thin, pose_world.body()]), SphereMesh().faces, PRIOR)
    modes = search.find(pose_world.draw(pose_world.poses([20.0, 170.0], [5.0, 0.0]), 64)[0])
    assert modes.choice[:, 0].tolist() == [1, 1]


def test_an_empty_mask_ends_in_some_pose(search: ContourSearch) -> None:
    assert camera.to_vector(search.find(torch.zeros(1, 64, 64)).pose).isfinite().all()
