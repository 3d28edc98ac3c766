"""Meshes are pinned to the shapes that step 2 fitted to their images."""

from dataclasses import replace

import pytest
import torch

from data.cache import pose_files, template_files
from data.detections import load_detections
from geometry.camera import Pose, project, to_vector
from pipeline.reconstruction.dataset import Batch, common_modes
from pipeline.reconstruction.model import Prediction, make_data, make_scene
from pipeline.reconstruction.training import compute_terms
from tests.pipeline.reconstruction.toy import config


def with_shapes(name: str, modes: torch.Tensor, coefficients: torch.Tensor) -> None:
    """Adds shapes to the stored poses of a dataset of birds."""
    templates = template_files.load_templates("bird", "singletpl")
    origin = pose_files.origin_of(load_detections(name), templates)
    poses = pose_files.load_estimated_poses(name, "singletpl", origin)
    shapes = pose_files.FittedShapes(modes, coefficients, to_vector(poses.pose) + 1, 1 - poses.iou)
    poses = poses._replace(shapes=shapes)
    pose_files.save_estimated_poses(name, "singletpl", poses, origin)


@pytest.mark.usefixtures("toy")
def test_meshes_are_pinned_to_the_shapes_of_their_images() -> None:
    """The predicted mesh is the template; the shape of row k has moved by k along two axes."""
    modes = torch.zeros(1, 2, 962, 3)
    modes[0, 0, :, 1], modes[0, 1, :, 2] = 1, 1
    number = torch.arange(4.0)
    with_shapes("toy", modes, torch.stack([number, number], dim=1))
    options = config()
    data = make_data(options)
    scene = make_scene(data.vocabulary, options.model, torch.device("cpu"), data.modes)
    labels = data.labels.select(torch.tensor([3, 1]))
    moved = scene.shapes(labels) - scene.templates[labels.template]
    expected = torch.tensor([[0.0, 3, 3], [0, 1, 1]])[:, None].expand(-1, 962, -1)
    torch.testing.assert_close(moved, expected)
    # The poses are those that were fitted with the shapes
    assert labels.pose.scale.flatten().tolist() == pytest.approx([1.8, 1.8])
    # Those images are pinned whose shapes fit best, and not whose templates do
    options = replace(config().data, semi_fraction=0.5)
    assert make_data(replace(config(), data=options)).labels.pinned.tolist() == [1, 1, 0, 0]
    # At the first step all are pinned: the mean of 2 k^2 over the images
    vertices = scene.templates[labels.template]
    screen = project(vertices, labels.pose)
    prediction = Prediction(torch.zeros(2, 3, 32, 32), None, None, vertices, screen)
    size = config().model.image_resolution
    flip = torch.zeros(2, dtype=torch.bool)
    batch = Batch(torch.zeros(2, 4, size, size), torch.zeros(2, 0, size, size), flip.long(), flip)
    terms, _ = compute_terms(
        prediction, scene, batch, labels, config().optimizer, 0, lambda _, alpha, mask: alpha.mean()
    )
    assert terms["template"].value.item() == pytest.approx((2 * 9 + 2 * 1) / 2, rel=1e-5)


def test_datasets_with_and_without_shapes_are_joined() -> None:
    templates = [torch.rand(2, 962, 3), torch.rand(1, 962, 3)]
    poses = [shaped(3, 2, None), shaped(2, 1, 4)]
    modes, coefficients = common_modes(poses, templates)
    assert modes.shape == (3, 4, 962, 3)
    assert not modes[:2].any()
    assert not coefficients[:3].any()
    assert poses[1].shapes is not None
    assert torch.equal(modes[2:], poses[1].shapes.modes)
    assert torch.equal(coefficients[3:], poses[1].shapes.coefficients)
    modes, coefficients = common_modes(poses[:1], templates[:1])
    assert modes.shape == (2, 0, 962, 3)
    assert coefficients.shape == (3, 0)


def shaped(count: int, num_templates: int, num_modes: int | None) -> pose_files.EstimatedPoses:
    """Returns random poses, with random shapes of so many modes."""
    score = torch.rand(count, 1)
    pose = Pose(score, torch.rand(count, 2), torch.rand(count, 4), score)
    poses = pose_files.EstimatedPoses(
        torch.arange(count), pose, torch.eye(num_templates)[torch.zeros(count).long()], score, score, score
    )  # fmt: skip
    if num_modes is None:
        return poses
    modes, coefficients = torch.rand(num_templates, num_modes, 962, 3), torch.rand(count, num_modes)
    return poses._replace(
        shapes=pose_files.FittedShapes(modes, coefficients, to_vector(pose), score)
    )
