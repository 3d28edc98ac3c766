"""Tests of points before the camera: signs, the best candidate, and what it passes on."""

import numpy as np
import torch
from torch import Tensor

from data.multiview import cameras
from geometry import quaternion
from models.point_clouds import Cloud
from pipeline.reconstruction.points.projection import explain, to_screen
from rendering.projection.losses import volume_loss

IDENTITY = torch.tensor([[1.0, 0, 0, 0]])


def random_rotations(count: int) -> Tensor:
    return quaternion.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(1)))


def test_points_appear_where_the_pinhole_camera_of_the_paper_shows_them():
    points = torch.tensor([[[0.1, 0.2, 0.3], [-0.4, 0.1, -0.2]]])
    x, y, z = points[0].T
    screen = to_screen(points, IDENTITY)[0]
    # In a picture from -1/2 to 1/2, with y down in the camera frame
    assert torch.allclose(screen[:, 0] / 2, 1.875 * x / (z + 2))
    assert torch.allclose(screen[:, 1] / 2, -1.875 * y / (z + 2))
    assert torch.allclose(screen[:, 2] / 2, -z)


def test_a_point_appears_where_the_true_camera_shows_it():
    # Straight towards a camera above the front: in the middle, and near
    position = np.array([cameras.position(90.0, 40.0, 2.0)])
    toward = torch.tensor([0.0, -np.cos(np.deg2rad(40)), np.sin(np.deg2rad(40))]).float()
    screen = to_screen(0.3 * toward[None, None], cameras.rotations(position).float())[0, 0]
    assert torch.allclose(screen, torch.tensor([0.0, 0.0, 0.6]), atol=1e-6)


def test_the_best_candidate_is_that_of_the_smallest_error_of_all():
    generator = torch.Generator().manual_seed(0)
    clouds = Cloud(
        (torch.rand(2, 60, 3, generator=generator) - 0.5) * 0.8, torch.tensor([0.9, 0.5])
    )
    masks = torch.rand(3, 16, 16, generator=generator)
    owner, candidates = torch.tensor([0, 0, 1]), random_rotations(6).view(3, 2, 4)
    found = explain(clouds, owner, candidates, masks, 16, 1.0)
    for view in range(3):
        errors = []
        for k in range(2):
            screen = to_screen(clouds.points[owner[view]][None], candidates[view, k][None])
            scale = clouds.scale[owner[view]][None]
            index = torch.zeros(1, dtype=torch.int64)
            error, _ = volume_loss(
                screen, masks[view][None], index, size=16, sigma=1.0, scale=scale
            )
            errors.append(float(error) * 16 * 16 / 2)
        assert int(found.best[view]) == int(np.argmin(errors))
        assert abs(float(found.loss[view]) - min(errors)) < 1e-3
        assert torch.equal(found.rotation[view], candidates[view, int(np.argmin(errors))])


def test_the_true_pose_explains_a_mask_best_and_only_it_gets_a_gradient():
    # A rod along x, seen along its length or from the side
    rod = torch.linspace(-0.4, 0.4, 40)[:, None] * torch.tensor([1.0, 0, 0])
    cloud = Cloud(rod[None].requires_grad_(), torch.ones(1))
    end_on = quaternion.from_axis_angle(torch.tensor([0.0, 1, 0]), torch.tensor(90.0))
    candidates = torch.stack([end_on, IDENTITY[0]])[None].requires_grad_()
    mask = torch.zeros(1, 16, 16)
    mask[0, 7:9, 2:14] = 1
    found = explain(cloud, torch.tensor([0]), candidates, mask, 16, 0.7)
    assert found.best.tolist() == [1]
    found.loss.sum().backward()
    assert candidates.grad is not None
    assert (candidates.grad[0, 0] == 0).all()
    assert candidates.grad[0, 1].abs().sum() > 0
    assert not found.rotation.requires_grad
