"""Cameras of renderings in ShapeNet's layout: where they stand, and what a picture shows from there.

Models of ShapeNet are modeled with y up and look along -z; Blender, which rendered them, turns that to z up
and +y, the axes of camera positions. In object space, fronts look along -y. All cameras look at the
origin, with z up. A point at (x right, y down, z away from it) appears at F x / (D + z), F y / (D + z) in
a picture of side 1.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.preparation.matlab import read_arrays
from geometry import quaternion
from utils.cli import UserError

FOCAL_LENGTH = 1.875  # F, in sides of the picture: a 60 mm lens on a sensor of 32 mm
DISTANCE = 2.0  # D, of the cameras of the paper, in diagonals of an object's bounding box
_REMEDY = "Render it again, or remove all cameras: they serve evaluation only."


def screen_scale(distance: float) -> float:
    """Returns the screen units, of which a picture has 2, per object unit at the distance of the origin."""
    return 2 * FOCAL_LENGTH / distance


def position(azimuth: float, elevation: float, distance: float) -> list[float]:
    """Returns where a camera stands, in Blender's axes; angles in degrees as in `quaternion.from_view`."""
    a, e = np.deg2rad([azimuth, elevation])
    direction = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    return (distance * direction).tolist()


def rotations(positions: NDArray[np.float64]) -> Tensor:
    """Returns the rotations (N, 4), object space to camera frame, of cameras at positions (N, 3)."""
    x, y, z = torch.from_numpy(positions / np.linalg.norm(positions, axis=1, keepdims=True)).T
    azimuth, elevation = torch.atan2(y, x), torch.asin(z.clamp(-1, 1))
    return quaternion.from_view(
        torch.rad2deg(azimuth), torch.rad2deg(elevation), torch.zeros_like(azimuth)
    )


def to_model(vertices: Tensor) -> Tensor:
    """Turns object space (..., 3) by half a turn about z, so that `save_meshes` writes ShapeNet's axes."""
    return vertices * vertices.new_tensor([-1.0, -1.0, 1.0])


def read_positions(paths: Sequence[Path]) -> NDArray[np.float64]:
    """Returns the camera positions (N, 3) of .mat files or .json files, all of one kind: `pos`.

    Raises:
        UserError: if one cannot be read, or holds something else than a position.
    """
    if paths and paths[0].suffix == ".mat":
        found = read_arrays(paths, "pos", _REMEDY)
    else:
        found = [_read_json(path) for path in paths]
    for path, value in zip(paths, found, strict=True):
        if value.size != 3 or not np.isfinite(value).all() or not np.any(value):
            raise UserError(f"{path}: pos is no position of a camera. {_REMEDY}")
    return np.array([value.ravel() for value in found], np.float64).reshape(-1, 3)


def _read_json(path: Path) -> NDArray[np.float64]:
    try:
        return np.array(json.loads(path.read_bytes())["pos"], np.float64)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f'{path}: expected {{"pos": [x, y, z]}}. {_REMEDY}') from None
