"""Annotated cameras: the template takes the place of the annotated object, and a run learns with them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache import pose_files, pseudo_files
from data.crops import square_box
from data.detections import load_detections
from geometry import camera, quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.cameras import sources
from pipeline.reconstruction.model_file import load_trained
from pipeline.reconstruction.pose_corrections import START_Z0
from tests.pipeline.reconstruction.toy import config, run
from utils.cli import UserError
from utils.seeding import torch_generator

CPU = torch.device("cpu")
PROPORTIONS = torch.tensor([0.4, 1.0, 0.5])


def views(count: int) -> Pose:
    """Orthographic poses in which a lengthy template fills its crops."""
    rotation = quaternion.normalize(torch.randn(count, 4, generator=torch_generator(1)))
    zeros = torch.zeros(count, 1)
    pose = Pose(zeros + 1, torch.zeros(count, 2), rotation, zeros + sources.ORTHOGRAPHIC_Z0)
    return camera.framed((PROPORTIONS * SphereMesh().vertices).expand(count, -1, -1), pose)


def test_the_template_takes_size_and_place_of_the_annotated_object() -> None:
    """The annotated object is the template, 1.7 times as large, with its origin elsewhere in the mirror plane."""
    factor, offset = 1.7, torch.tensor([0.0, 0.3, -0.2])
    template, pose = PROPORTIONS * SphereMesh().vertices, views(12)
    described = factor * template + offset
    # s R x + t = s / f R (f x + o) + t - s / f R o
    scale = pose.scale / factor
    moved = quaternion.rotate(pose.rotation, offset.expand(12, 1, 3))[:, 0, :2]
    annotated = pose._replace(scale=scale, translation=pose.translation - scale * moved)
    seen = project(described, annotated)
    torch.testing.assert_close(seen[..., :2], project(template, pose)[..., :2], atol=2e-3, rtol=0)
    found = sources.placed(annotated, template)
    torch.testing.assert_close(found.scale, pose.scale, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.translation, pose.translation, atol=2e-3, rtol=0)
    assert torch.equal(found.rotation, pose.rotation)


def test_predicted_poses_begin_as_side_views_that_fill_the_crops() -> None:
    """The crop is 1.1 times as large as the object: 20/11 of the screen's 2 units are covered."""
    template = PROPORTIONS * SphereMesh().vertices
    pose = sources._side_views(2, template)
    screen = project(template, pose)[0, :, :2]
    low, high = screen.amin(0), screen.amax(0)
    torch.testing.assert_close(low + high, torch.zeros(2), atol=1e-4, rtol=0)
    assert float((high - low).max()) == pytest.approx(2 / camera.MARGIN, abs=1e-4)
    front = project(torch.tensor([[[0.0, -1, 0]]]), camera.select(pose, slice(1)))[0, 0]
    assert front[0] < -0.5  # the front points left
    assert abs(front[1]) < 1e-5


def annotate(distance: float, rotation: torch.Tensor) -> None:
    """Writes cameras of four of the five photographs of the toy birds, radius 1 in the middle."""
    detections = load_detections("toy")
    boxes = [square_box(item.bbox) for item in detections.items[:4]]
    centers = [[box.x + box.side / 2, box.y + box.side / 2] for box in boxes]
    columns = {
        "name": np.array([str(i) for i in range(4)]),
        "rotation": rotation.numpy(),
        "scale_px": np.array([box.side / 2.2 for box in boxes], np.float32),
        "translation_px": np.array(centers, np.float32),
        "camera_distance": np.full(4, distance, np.float32),
        "shape_id": np.full(4, -1),
    }
    np.savez("datasets/toy/ground_truth.npz", **columns)


@pytest.fixture
def rotation(toy: Path) -> torch.Tensor:
    """Annotated rotations of a collection that step 2 has not seen."""
    pose_files.poses_path("toy", "singletpl").unlink()
    rotation = quaternion.normalize(torch.randn(4, 4, generator=torch_generator(2)))
    annotate(np.inf, rotation)
    return rotation


def test_a_run_learns_with_annotated_cameras(rotation: torch.Tensor) -> None:
    run("--iters", "1", "--pose_source", "sfm")
    # The checkpoint knows where its poses come from
    data = load_trained(config("--evaluate"), CPU)[1]
    assert [data.source(i)[1] for i in range(len(data))] == [0, 1, 2, 3]
    torch.testing.assert_close(data.labels.pose.rotation, rotation)
    assert not data.labels.pinned.any()
    # The template has a radius of .9, the object 1: the template appears as large as that
    radius = data.labels.pose.scale * 0.9
    torch.testing.assert_close(radius, torch.full((4, 1), 1 / camera.MARGIN), atol=1e-3, rtol=0)
    run("--generate_pseudogt", "--pseudogt_resolution", "64")
    torch.testing.assert_close(pseudo_files.load_metadata("toy", "singletpl").rotation, rotation)


def test_perspective_of_annotated_cameras_begins_as_published(rotation: torch.Tensor) -> None:
    run("--iters", "2", "--pose_source", "sfm", "--optimize_z0", "--pose_rate", "0.01")
    pose = load_trained(config("--evaluate"), CPU)[1].labels.pose
    assert (pose.z0 - START_Z0).abs().max() <= 0.0201
    torch.testing.assert_close(pose.rotation, rotation)
    run("--iters", "4")  # without the options nothing more is learned
    assert torch.equal(load_trained(config("--evaluate"), CPU)[1].labels.pose.z0, pose.z0)


def test_cameras_for_evaluation_are_not_trained_on(rotation: torch.Tensor) -> None:
    annotate(5.0, rotation)
    with pytest.raises(UserError, match="toy has no annotated weak-perspective cameras"):
        run("--iters", "1", "--pose_source", "sfm")
    Path("datasets/toy/ground_truth.npz").unlink()
    with pytest.raises(UserError, match="toy has no annotated weak-perspective cameras"):
        run("--iters", "1", "--pose_source", "sfm")
    assert not Path("checkpoints_recon").exists()


def test_annotated_cameras_do_not_choose_templates(rotation: torch.Tensor) -> None:
    assert len(rotation) == 4
    templates = SphereMesh().vertices.expand(3, -1, -1)
    with pytest.raises(UserError, match=r"between the 3 templates of a bird.*singletpl"):
        sources.poses_of("sfm", load_detections("toy"), "multitpl", templates)
