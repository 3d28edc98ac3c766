"""Rotations as unit quaternions (w, x, y, z), Hamilton convention, along the last axis.

The rotation of a pose takes object space (x lateral, front -y, z up) to the camera frame (x right, y
down, z away from the viewer); `geometry.camera` turns that frame into screen space.
"""

import math

import torch
from torch import Tensor

AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
ELEVATIONS = (-45.0, -22.5, 0.0, 22.5, 45.0)


def multiply(p: Tensor, q: Tensor) -> Tensor:
    """Returns the product (..., 4) that rotates first by q, then by p."""
    pw, px, py, pz = p.unbind(-1)
    qw, qx, qy, qz = q.unbind(-1)
    return torch.stack(
        [
            pw * qw - px * qx - py * qy - pz * qz,
            pw * qx + px * qw + py * qz - pz * qy,
            pw * qy - px * qz + py * qw + pz * qx,
            pw * qz + px * qy - py * qx + pz * qw,
        ],
        dim=-1,
    )


def rotate(rotation: Tensor, vectors: Tensor) -> Tensor:
    """Rotates vectors (..., V, 3) by unit quaternions (..., 4)."""
    return vectors @ to_matrix(rotation).transpose(-1, -2)


def conjugate(q: Tensor) -> Tensor:
    """Returns the inverse rotation of unit quaternions (..., 4)."""
    return q * q.new_tensor([1.0, -1.0, -1.0, -1.0])


def normalize(q: Tensor) -> Tensor:
    """Returns quaternions (..., 4) of unit length."""
    return torch.nn.functional.normalize(q, dim=-1)


def to_matrix(q: Tensor) -> Tensor:
    """Returns rotation matrices (..., 3, 3), applied to column vectors, of unit quaternions."""
    w, x, y, z = q.unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def from_matrix(matrix: Tensor) -> Tensor:
    """Returns the unit quaternions (..., 4), w >= 0, of rotation matrices (..., 3, 3)."""
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    # Row k is the quaternion times 4 q_k; the row of the largest component is the accurate one
    outer = torch.stack(
        [
            1 + m[0][0] + m[1][1] + m[2][2],
            m[2][1] - m[1][2],
            m[0][2] - m[2][0],
            m[1][0] - m[0][1],
            m[2][1] - m[1][2],
            1 + m[0][0] - m[1][1] - m[2][2],
            m[1][0] + m[0][1],
            m[0][2] + m[2][0],
            m[0][2] - m[2][0],
            m[1][0] + m[0][1],
            1 - m[0][0] + m[1][1] - m[2][2],
            m[2][1] + m[1][2],
            m[1][0] - m[0][1],
            m[0][2] + m[2][0],
            m[2][1] + m[1][2],
            1 - m[0][0] - m[1][1] + m[2][2],
        ],
        dim=-1,
    ).unflatten(-1, (4, 4))
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    index = best[..., None, None].expand(*best.shape, 1, 4)
    q = normalize(outer.gather(-2, index).squeeze(-2))
    return torch.where(q[..., :1] < 0, -q, q)


def from_axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Returns the rotations (..., 4) by `angle` (...) degrees about the directions `axis` (..., 3)."""
    # (cos(a / 2), sin(a / 2) axis)
    half = torch.deg2rad(angle)[..., None] / 2
    direction = torch.nn.functional.normalize(axis, dim=-1)
    return torch.cat([half.cos(), half.sin() * direction], dim=-1)


def from_view(azimuth: Tensor, elevation: Tensor, roll: Tensor) -> Tensor:
    """Returns the rotation under which an object is seen from a direction.

    Args:
        azimuth: (...) degrees; 0: the front of the object points right in the image, 90: towards
            the viewer, 180: left, 270: away.
        elevation: (...) degrees, 0 = level, positive = seen from above.
        roll: (...) degrees, positive = the picture turns counter-clockwise.

    Returns:
        (..., 4) rotation from object space to the camera frame.
    """
    # Turn about the vertical, tilt, then roll in the image plane
    azimuth, elevation, roll = torch.broadcast_tensors(azimuth, elevation, roll)
    y_axis, z_axis = azimuth.new_tensor([0.0, 1.0, 0.0]), azimuth.new_tensor([0.0, 0.0, 1.0])
    spin = from_axis_angle(z_axis, -azimuth)
    tilt = from_axis_angle(y_axis, -90 - elevation)
    return multiply(from_axis_angle(z_axis, 90 - roll), multiply(tilt, spin))


def to_view(rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns azimuth [0, 360), elevation [-90, 90] and roll [-180, 180) in degrees; see `from_view`."""
    # The viewing direction determines azimuth and elevation, the remaining turn is the roll
    matrix = to_matrix(rotation)
    away = matrix[..., 2, :]  # viewing direction in object space
    azimuth = torch.rad2deg(torch.atan2(away[..., 1], away[..., 0])) % 360
    elevation = torch.rad2deg(torch.asin((-away[..., 2]).clamp(-1, 1)))
    upright = from_view(azimuth, elevation, torch.zeros_like(azimuth))
    turn = matrix @ to_matrix(upright).transpose(-1, -2)
    clockwise = torch.rad2deg(torch.atan2(turn[..., 1, 0], turn[..., 0, 0]))
    return azimuth, elevation, (180 - clockwise) % 360 - 180


def angle_between(p: Tensor, q: Tensor) -> Tensor:
    """Returns the angle (...) in degrees, [0, 180], between two rotations (..., 4)."""
    # q and -q are the same rotation. The chord is accurate for small angles, unlike acos
    chord = torch.minimum((p - q).norm(dim=-1), (p + q).norm(dim=-1))
    return torch.rad2deg(4 * torch.asin((chord / 2).clamp(max=math.sqrt(0.5))))


def squared_distance(p: Tensor, q: Tensor) -> Tensor:
    """Returns 1 - <p, q>^2 = sin^2(angle / 2) (...) of two rotations (..., 4)."""
    return 1 - (p * q).sum(-1) ** 2


def mirror(q: Tensor) -> Tensor:
    """Returns the rotation that shows an object mirrored in x = 0 in the left-right flipped image."""
    return q * q.new_tensor([1.0, 1.0, -1.0, -1.0])


def complementary(q: Tensor) -> Tensor:
    """Returns the rotation with the same orthographic silhouette and the opposite depth.

    It exists because objects are symmetric about x = 0: an orthographic silhouette looks the same from
    the opposite side, up to a mirror image that the symmetry of the object undoes.
    """
    w, x, y, z = q.unbind(-1)
    return torch.stack([y, -z, w, -x], dim=-1)


def complementary_score(q: Tensor) -> Tensor:
    """Returns the squared cosine (...) of half the angle to the complementary rotation.

    1 in side views, where both are the same, and 0 in views from the front or back.
    """
    return (q * complementary(q)).sum(-1) ** 2


def initial_views() -> Tensor:
    """Returns the (40, 4) views of the regular grid: 8 azimuths, each from 5 elevations."""
    # Azimuth varies slowest: views 5 i to 5 i + 4 share an azimuth
    azimuth, elevation = torch.meshgrid(
        torch.tensor(AZIMUTHS), torch.tensor(ELEVATIONS), indexing="ij"
    )
    return from_view(azimuth.flatten(), elevation.flatten(), torch.zeros(azimuth.numel()))
