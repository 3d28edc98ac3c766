"""Keypoint transfer by chosen poses: perfect for true poses of a rigid body, and told where it cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import pose_optimization_step2
from data.cache import pose_files
from data.crops import square_box
from data.detections import load_detections
from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world
from utils.cli import UserError
from utils.files import read_json

COUNT = 8
KEYPOINTS = torch.tensor([481, 236, 247, 7, 104, 376])
COMMAND = ["--dataset", "toy", "--mode", "singletpl", "--evaluate_keypoints", "--gpu_ids", "cpu"]


def save_poses(pose: Pose) -> None:
    ones = torch.ones(len(pose.scale), 1)
    poses = pose_files.EstimatedPoses(torch.arange(len(ones)), pose, ones, ones, ones, ones)
    pose_files.save_estimated_poses("toy", "singletpl", poses, pose_world.origin())


@pytest.fixture
def pose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pose:
    """Returns the true poses of a prepared collection in its crops; keypoints are vertices of the body."""
    monkeypatch.chdir(tmp_path)
    pose = pose_world.poses([45.0 * i for i in range(COUNT)], [10.0] * COUNT)
    pose_world.write_dataset(pose)
    screen = project(pose_world.body().expand(COUNT, -1, -1), pose)
    points = screen[:, KEYPOINTS]
    pixels = pose_world.SIZE * (points[..., :2] * torch.tensor([1.0, -1]) + 1) / 2
    path = Path("datasets/toy/ground_truth.npz")
    keypoints = torch.cat([pixels, visible(screen, points, pixels)[..., None]], dim=-1)
    np.savez(path, **np.load(path), keypoints=keypoints.numpy())
    # From the screen of the photograph to that of the crop
    boxes = torch.tensor([square_box(item.bbox) for item in load_detections("toy").items]).float()
    side, corner = boxes[:, 2:], boxes[:, :2]
    center = (pose.translation + 1) / 2 * pose_world.SIZE
    return pose._replace(
        scale=pose.scale * pose_world.SIZE / side, translation=(center - corner) / side * 2 - 1
    )


def visible(screen: Tensor, points: Tensor, pixels: Tensor) -> Tensor:
    """Returns which points (N, K) are no deeper than what the depth map shows in their pixels."""
    raster = rasterize(
        screen, SphereMesh().faces, pose_world.SIZE, attributes=screen[..., 2:], soft=False
    )
    assert raster.attributes is not None
    column, row = pixels.long().unbind(-1)
    image = torch.arange(COUNT)[:, None]
    near = points[..., 2] > raster.attributes[image, 0, row, column] - 0.03
    return near & (raster.coverage[image, 0, row, column] > 0)


def figures() -> dict[str, float]:
    pose_optimization_step2.main([*COMMAND, "--number_pairs", "200", "--pck_alpha", "0.05,0.1"])
    return read_json("cache/toy/metrics.json")["keypoints"]["singletpl"]


def test_true_poses_of_a_rigid_body_transfer_what_they_show(pose: Pose):
    save_poses(pose)
    true = figures()
    assert true["images"] == COUNT
    assert true["pck_0.05"] == 1
    turn = quaternion.from_axis_angle(torch.tensor([0.0, 0, 1]), torch.tensor(120.0))
    wrong = quaternion.multiply(pose.rotation, turn.expand(COUNT, 4))
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    save_poses(pose._replace(rotation=wrong[order]))
    assert figures()["pck_0.05"] < 0.7
    assert true["pck_position_0.1"] == figures()["pck_position_0.1"]


def test_it_is_printed_and_needs_keypoints(pose: Pose, capsys: pytest.CaptureFixture):
    save_poses(pose)
    figures()
    assert "PCK.05 1.0000, PCK.1 1.0000 of keypoints transferred by cam" in capsys.readouterr().out
    Path("datasets/toy/ground_truth.npz").unlink()
    with pytest.raises(UserError, match=r"no two photographs of toy.*ground_truth\.npz"):
        figures()
