"""Where the poses of a collection come from: step 2, its annotations, or the network that learns from it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from data.cache import pose_files
from data.cache.pose_files import EstimatedPoses
from data.collection import ground_truth_path
from data.detections import Detections
from data.ground_truth import load_ground_truth
from geometry import camera, quaternion
from geometry.camera import Pose
from utils.cli import UserError

SOURCES = ("estimated", "sfm", "predicted")
ORTHOGRAPHIC_Z0 = 9.0  # perspective below 1e-4, as weak-perspective cameras have none
PREDICTED_Z0 = 2.0  # where predicted cameras begin, as the searched ones of step 1 do


def poses_of(source: str, detections: Detections, mode: str, templates: Tensor) -> EstimatedPoses:
    """Returns the poses of a collection.

    Args:
        source: one of SOURCES; predicted poses are not known yet, and show the template from its left side.
        detections: of the collection.
        mode: singletpl or multitpl.
        templates: (T, V, 3) of its category.

    Raises:
        UserError: if there are none from this source.
    """
    if source == "estimated":
        origin = pose_files.origin_of(detections, templates)
        return pose_files.load_estimated_poses(detections.dataset, mode, origin)
    if len(templates) > 1:
        option = "--pose_source sfm" if source == "sfm" else "--camera_source predicted"
        raise UserError(
            f"{option}: does not choose between the {len(templates)} templates of a "
            f"{detections.category}. Use --mode singletpl."
        )
    if source == "sfm":
        return annotated_poses(detections, templates[0])
    return _alike(torch.arange(len(detections)), _side_views(len(detections), templates[0]))


def pose_paths(source: str, detections: Sequence[Detections], mode: str) -> list[Path]:
    """Returns the files that poses come from; none where the network predicts them."""
    if source == "predicted":
        return []
    if source == "sfm":
        return [ground_truth_path(each.dataset) for each in detections]
    return [pose_files.poses_path(each.dataset, mode) for each in detections]


def annotated_poses(detections: Detections, template: Tensor) -> EstimatedPoses:
    """Returns the weak-perspective cameras that annotations of CMR bring, of a template (V, 3).

    They stem from structure from motion of keypoints, and refer to the mean keypoints, whose axes are
    those of object space; the template gets the size and the place of the object that they describe.

    Raises:
        UserError: if the collection has no such cameras.
    """
    truth = load_ground_truth(detections)
    # Others, of rendered or measured collections, serve evaluation only
    usable = None if truth is None else truth.known & truth.camera_distance.isinf()
    if truth is None or usable is None or not usable.any():
        raise UserError(
            f"--pose_source sfm: {detections.dataset} has no annotated weak-perspective cameras. They come "
            "with cub, p3d_car and p3d_airplane, if data.prepare finds the annotations of CMR; else use "
            "--pose_source estimated."
        )
    index = usable.nonzero()[:, 0]
    distance = torch.full((len(index), 1), ORTHOGRAPHIC_Z0)
    pose = Pose(truth.scale[index], truth.translation[index], truth.rotation[index], distance)
    return _alike(index, placed(pose, template))


def placed(pose: Pose, template: Tensor) -> Pose:
    """Replaces the object of annotated poses (K, ...) by a template (V, 3).

    One factor f and one offset o in the mirror plane take a point x of the template to f x + o of the
    object, so that the template fits the crops as well as it can: the median of the factors, and the
    least squares of the offset.
    """
    wanted = camera.framed(template.expand(len(pose.scale), -1, -1), pose)
    factor = (wanted.scale / pose.scale).median()
    # s R (f x + o) + t has the scale f s and the translation t + s R o
    columns = quaternion.to_matrix(pose.rotation)[:, :2, 1:] * pose.scale[..., None]
    missing = (wanted.translation - pose.translation).reshape(-1, 1)
    offset = torch.linalg.lstsq(columns.reshape(-1, 2).double(), missing.double()).solution
    shift = (columns @ offset.to(columns))[..., 0]
    return pose._replace(scale=factor * pose.scale, translation=pose.translation + shift)


def _side_views(count: int, template: Tensor) -> Pose:
    """Returns poses (count, ...) that show a template (V, 3) from its left side, in the middle of the crop."""
    level = torch.zeros(count)
    rotation = quaternion.from_view(level + 180, level, level)
    zeros = torch.zeros(count, 1)
    pose = Pose(zeros + 1, torch.zeros(count, 2), rotation, zeros + PREDICTED_Z0)
    return camera.framed(template.expand(count, -1, -1), pose)


def _alike(index: Tensor, pose: Pose) -> EstimatedPoses:
    """Returns poses (K, ...) of some detections, none of which is better known than another."""
    nothing = torch.zeros(len(index), 1)
    return EstimatedPoses(index, pose, nothing + 1, nothing, nothing, nothing + 1)
