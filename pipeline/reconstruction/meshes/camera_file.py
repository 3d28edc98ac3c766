"""Cameras of photographed objects for other programs: from the vertices of exported files to pixels."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data.crops import Box
from geometry import quaternion
from geometry.camera import Pose
from geometry.mesh_files import to_y_up

FORMULA = (
    "(x, y, z) = matrix @ vertex + offset, with the vertices of mesh.obj and mesh.glb; "
    "f = (distance - z / 2) / (distance + z / 2); pixel = center + f * (x, y). x points right, y down, "
    "z away from the viewer, all in pixels of the photograph turned upright as its EXIF data says; the "
    "center of the upper left pixel is (0.5, 0.5)"
)


def camera_record(pose: Pose, box: Box, width: int, height: int) -> dict[str, Any]:
    """Describes the camera of a photograph by plain numbers; FORMULA says how to use them.

    Args:
        pose: members (...), without batch.
        box: crop that the pose refers to, in pixels of the photograph.
        width: of the photograph in pixels.
        height: likewise.
    """
    # Half the side of the crop is a unit of the screen
    unit = box.side / 2
    rotation = quaternion.to_matrix(pose.rotation.double().cpu())
    # to_y_up turns rows; here the axes of the object become those of its files
    matrix = unit * float(pose.scale) * to_y_up(rotation)
    angles = (float(angle) for angle in quaternion.to_view(pose.rotation.double().cpu()))
    return {
        "projection": FORMULA,
        "width": width,
        "height": height,
        "matrix": matrix.tolist(),
        "offset": [unit * float(t) for t in pose.translation] + [0.0],
        "distance": unit * (1 + math.exp(float(pose.z0))),
        "center": [box.x + unit, box.y + unit],
        "azimuth, elevation, roll": [round(angle, 3) for angle in angles],
        "crop": box._asdict(),
        "pose": {name: member.tolist() for name, member in pose._asdict().items()},
    }


def to_pixels(record: Mapping[str, Any], vertices: Tensor) -> Tensor:
    """Projects vertices (V, 3) of an exported file to pixels (V, 2), by the FORMULA of its camera."""
    numbers = (vertices.new_tensor(record[key]) for key in ("matrix", "offset", "center"))
    matrix, offset, center = numbers
    points = vertices @ matrix.T + offset
    depth, distance = points[:, 2:], record["distance"]
    return center + (distance - depth / 2) / (distance + depth / 2) * points[:, :2]


def viewer_orbit(record: Mapping[str, Any]) -> str:
    """Returns where the camera stands, as model-viewer's `camera-orbit` wants it."""
    # The last row of the matrix points away from the viewer
    x, y, z = (-torch.tensor(record["matrix"][2])).tolist()
    theta = math.degrees(math.atan2(x, z))
    phi = math.degrees(math.acos(max(-1.0, min(1.0, y / math.hypot(x, y, z)))))
    return f"{theta:.1f}deg {phi:.1f}deg auto"
