"""From object space to screen space: the only place where signs and perspective are decided."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion


class Pose(NamedTuple):
    """Weak-perspective camera of a batch of objects.

    Attributes:
        scale: (B, 1) factor on object space.
        translation: (B, 2) in screen units, x right and y down.
        rotation: (B, 4) unit quaternion (w, x, y, z), object space to camera frame.
        z0: (B, 1) raw perspective parameter; the camera distance is 1 + exp(z0).
    """

    scale: Tensor
    translation: Tensor
    rotation: Tensor
    z0: Tensor


def select(pose: Pose, index: Tensor | slice | int | tuple[Tensor, ...]) -> Pose:
    """Returns the poses at an index of the leading axes."""
    return Pose(*(member[index] for member in pose))


def concatenate(poses: Sequence[Pose]) -> Pose:
    """Joins batches of poses along the first axis."""
    return Pose(*(torch.cat(members) for members in zip(*poses, strict=True)))


def mirror(pose: Pose) -> Pose:
    """Returns the pose that shows a symmetric object in the left-right flipped image."""
    flipped = pose.translation * pose.translation.new_tensor([-1.0, 1.0])
    return pose._replace(translation=flipped, rotation=quaternion.mirror(pose.rotation))


def to_device(pose: Pose, device: torch.device) -> Pose:
    """Moves every member to a device."""
    return Pose(*(member.to(device) for member in pose))


def project(vertices: Tensor, pose: Pose, *, orthographic: bool = False) -> Tensor:
    """Places object-space vertices in front of the camera.

    Scales, rotates and translates, flips to screen axes, then applies the perspective factor
    (d + z/2) / (d - z/2) with camera distance d = 1 + exp(z0). Depth itself stays as it is.

    Args:
        vertices: (B, V, 3) object space, z up; further leading axes may stand for B.
        pose: poses with the same leading axes (or such as broadcast).
        orthographic: leaves the perspective factor out.

    Returns:
        (B, V, 3) screen space: x right, y up in [-1, 1], z towards the viewer.

    Raises:
        ValueError: if the last axis of the vertices is not 3.
    """
    if vertices.shape[-1] != 3:
        raise ValueError(f"vertices: expected shape (B, V, 3), got {tuple(vertices.shape)}.")
    turned = quaternion.rotate(pose.rotation, pose.scale[..., None] * vertices)
    x = turned[..., 0] + pose.translation[..., :1]
    y = -(turned[..., 1] + pose.translation[..., 1:])
    z = -turned[..., 2]
    if not orthographic:
        distance = 1 + pose.z0.exp()
        factor = (distance + z / 2) / (distance - z / 2)
        x, y = x * factor, y * factor
    return torch.stack([x, y, z], dim=-1)
