"""From object space to screen space: the only place where signs and perspective are decided."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geometry import quaternion

# Positions in a pose vector, the form of a pose in optimizers and compiled loops
QW, QX, QY, QZ, SCALE, TX, TY, Z0 = range(8)
VECTOR_SIZE = 8

MARGIN = 1.1  # side of a crop beside that of its object, as in data.crops


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


def to_vector(pose: Pose) -> Tensor:
    """Joins poses into vectors (..., 8): rotation, scale, translation, z0."""
    return torch.cat([pose.rotation, pose.scale, pose.translation, pose.z0], dim=-1)


def from_vector(vectors: Tensor) -> Pose:
    """Splits the first 8 numbers of vectors (..., 8 + M) into poses; rotations are normalized."""
    rotation, scale, translation, z0 = vectors[..., :VECTOR_SIZE].split((4, 1, 2, 1), dim=-1)
    return Pose(scale, translation, quaternion.normalize(rotation), z0)


def between(start: Pose, end: Pose, share: float) -> Pose:
    """Returns the poses at a share, in [0, 1], of the way from some poses (...) to others (...)."""
    # q and -q are the same rotation: the nearer one
    sign = (start.rotation * end.rotation).sum(-1, keepdim=True).sign()
    end = end._replace(rotation=torch.where(sign < 0, -end.rotation, end.rotation))
    return from_vector(torch.lerp(to_vector(start), to_vector(end), share))


def mirror(pose: Pose) -> Pose:
    """Returns the pose that shows a symmetric object in the left-right flipped image."""
    flipped = pose.translation * pose.translation.new_tensor([-1.0, 1.0])
    return pose._replace(translation=flipped, rotation=quaternion.mirror(pose.rotation))


def similarity(pose: Pose, turn: Tensor, factor: Tensor, shift: Tensor) -> Pose:
    """Returns the pose under which the image appears turned and scaled about its center, then shifted.

    Exact with perspective but for the shift, which is right at the depth of the object's center.

    Args:
        pose: B poses.
        turn: (B,) degrees, counter-clockwise.
        factor: (B, 1) of scale; the camera distance 1 + exp(z0) is scaled too, and stays above 1.
        shift: (B, 2) in screen units, x right and y up.
    """
    # In the camera frame, whose z points away from the viewer, counter-clockwise turns are negative
    axis = pose.rotation.new_tensor([0.0, 0.0, 1.0])
    rotation = quaternion.multiply(quaternion.from_axis_angle(axis, -turn), pose.rotation)
    # The translation is a vector of that frame as well, with y down
    angle = torch.deg2rad(turn)
    cos, sin = angle.cos(), angle.sin()
    x, y = pose.translation.unbind(-1)
    turned = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
    down = shift * shift.new_tensor([1.0, -1.0])
    # Perspective depends on the ratio of depth and distance
    distance = factor * (1 + pose.z0.exp())
    z0 = (distance - 1).clamp(min=1e-3).log()
    return Pose(factor * pose.scale, factor * turned + down, rotation, z0)


def framed(vertices: Tensor, pose: Pose, *, orthographic: bool = False) -> Pose:
    """Scales and shifts poses (B, ...) so that crops fit the meshes (B, V, 3) as those of data.crops do."""
    screen = project(vertices, pose, orthographic=orthographic)[..., :2]
    low, high = screen.amin(1), screen.amax(1)
    factor = 2 / (MARGIN * (high - low).amax(1, keepdim=True))
    level = torch.zeros_like(factor[:, 0])
    return similarity(pose, level, factor, -factor * (low + high) / 2)


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
    # To the camera frame: x right, y down, z away from the viewer
    turned = quaternion.rotate(pose.rotation, pose.scale[..., None] * vertices)
    x, y, z = to_screen(*turned.unbind(-1), *pose.translation.split(1, dim=-1))
    if not orthographic:
        factor = perspective(z, 1 + pose.z0.exp())
        x, y = x * factor, y * factor
    return torch.stack([x, y, z], dim=-1)


def project_pinhole(
    points: Tensor, rotation: Tensor, focal: float = 1.875, distance: float = 2.0
) -> Tensor:
    """Places points in front of a pinhole camera that is turned about the origin.

    With the camera of Insafutdinov and Dosovitskiy 2018, a point of the camera frame is seen at
    x' = f x / (z + d), y' = f y / (z + d) in an image of side 1.

    Args:
        points: (B, N, 3) object space, within [-1/2, 1/2]^3.
        rotation: (B, 4) unit quaternions, object space to camera frame.
        focal: f, in units of the side of the image.
        distance: d of the camera from the origin; larger than the radius of the points.

    Returns:
        (B, N, 3) screen space, on which [-1/2, 1/2]^3 of image and depth are [-1, 1]^3.
    """
    # Camera frame: x right, y down, z away from the viewer
    x, y, z = (2 * quaternion.rotate(rotation, points)).unbind(-1)
    factor = focal / (z / 2 + distance)
    return torch.stack([x * factor, -y * factor, -z], dim=-1)


def to_screen(a: Any, b: Any, c: Any, tx: Any, ty: Any) -> tuple[Any, Any, Any]:
    """Translates a point of the camera frame and flips it to screen axes, without perspective.

    Plain arithmetic, which `project` applies to tensors and the compiled loops to numbers.
    """
    return a + tx, -(b + ty), -c


def perspective(z: Any, distance: Any) -> Any:
    """Returns the factor on x and y of a point at screen depth z, seen from a camera distance."""
    return (distance + z / 2) / (distance - z / 2)
