"""True poses, keypoints and shapes of a collection, where it has them: for evaluation, not for training.

The one exception are the annotated cameras that --pose_source sfm asks for.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.cache.storage import check_numbers, load_arrays
from data.collection import ground_truth_path, image_stem, shapes_path
from data.crops import from_pixels, square_box
from data.detections import Detections
from geometry import quaternion
from utils.cli import UserError

_REMEDY = "Copy it from its source again, or remove it: it serves evaluation only."


class GroundTruth(NamedTuple):
    """True cameras of the N detections, in the coordinates of their crops.

    Rows without ground truth have known = False and arbitrary values.

    Attributes:
        rotation: (N, 4) unit quaternions, object space to camera frame, as in `Pose`.
        known: (N,) bool.
        scale: (N, 1) screen units per object unit.
        translation: (N, 2) screen units, x right and y down, as in `Pose`.
        camera_distance: (N,) object units, inf = orthographic.
        shape_id: (N,) int64 id of the true shape, -1 = unknown.
    """

    rotation: Tensor
    known: Tensor
    scale: Tensor
    translation: Tensor
    camera_distance: Tensor
    shape_id: Tensor


class Keypoints(NamedTuple):
    """Annotated keypoints of the N detections, in the coordinates of their crops.

    Attributes:
        names: of the K keypoints.
        position: (N, K, 2) screen space, x right and y up.
        visible: (N, K) bool; False where a keypoint is hidden or not annotated.
        extent: (N,) larger side of the object's bounding box in screen units.
    """

    names: list[str]
    position: Tensor
    visible: Tensor
    extent: Tensor


class TrueShapes(NamedTuple):
    """True meshes of a collection, in object space.

    Attributes:
        shape_id: (S,) int64.
        vertices: (S, V, 3).
        faces: (F, 3) int64.
    """

    shape_id: Tensor
    vertices: Tensor
    faces: Tensor

    def vertices_of(self, shape_id: int) -> Tensor:
        """Returns the vertices (V, 3) of one shape; KeyError if there is none of that id."""
        found = torch.nonzero(self.shape_id == shape_id)[:, 0]
        if len(found) != 1:
            raise KeyError(shape_id)
        return self.vertices[found[0]]


def load_ground_truth(detections: Detections) -> GroundTruth | None:
    """Reads ground_truth.npz of a collection, matched by the names of the images.

    Args:
        detections: the objects whose poses are wanted.

    Returns:
        The true cameras, or None if the collection has no such file.

    Raises:
        UserError: if the file is damaged or names none of the images.
    """
    path = ground_truth_path(detections.dataset)
    if not path.exists():
        return None
    names = (
        "name", "rotation", "scale_px", "translation_px", "camera_distance", "shape_id",
    )  # fmt: skip
    arrays = load_arrays(path, names, _REMEDY)
    _check_cameras(path, arrays)
    rows, known = _rows_of(path, arrays["name"], detections)
    rotation, scale, translation, distance = (
        torch.from_numpy(arrays[name][rows]).float()
        for name in ("rotation", "scale_px", "translation_px", "camera_distance")
    )
    # From pixels of the photograph to the screen of the crop
    boxes = torch.tensor([square_box(item.bbox) for item in detections.items], dtype=torch.float32)
    corner, side = boxes[:, :2], boxes[:, 2:]
    return GroundTruth(
        rotation=quaternion.normalize(rotation),
        known=known,
        scale=scale[:, None] * 2 / side,
        translation=(translation - corner) / side * 2 - 1,
        camera_distance=distance,
        shape_id=torch.from_numpy(arrays["shape_id"][rows]).long().where(known, torch.tensor(-1)),
    )


def load_keypoints(detections: Detections) -> Keypoints | None:
    """Reads the keypoints in ground_truth.npz of a collection; None if it has none.

    Raises:
        UserError: if the file is damaged or names none of the images.
    """
    path = ground_truth_path(detections.dataset)
    if not path.exists():
        return None
    arrays = load_arrays(path, ("name",), _REMEDY, optional=("keypoints", "keypoint_names"))
    if "keypoints" not in arrays:
        return None
    numbers = {"keypoints": arrays["keypoints"], "name": np.zeros(arrays["name"].shape)}
    check_numbers(path, numbers, {"name": ("N",), "keypoints": ("N", "K", 3)}, _REMEDY)
    rows, known = _rows_of(path, arrays["name"], detections)
    # Pixels of the photographs become screen coordinates of the crops
    pixels = torch.from_numpy(arrays["keypoints"][rows]).float()
    boxes = [square_box(item.bbox) for item in detections.items]
    position = [from_pixels(p, box) for p, box in zip(pixels[..., :2], boxes, strict=True)]
    sides = [
        max(x2 - x1 + 1, y2 - y1 + 1) for x1, y1, x2, y2 in (item.bbox for item in detections.items)
    ]
    extent = [2 * side / box.side for side, box in zip(sides, boxes, strict=True)]
    # Annotations of some benchmarks do not name their keypoints
    count = pixels.shape[1]
    names = arrays.get("keypoint_names", np.arange(1, count + 1)).astype(str).tolist()
    if len(names) != count:
        raise UserError(f"{path}: {len(names)} names for {count} keypoints. {_REMEDY}")
    visible = (pixels[..., 2] > 0) & known[:, None]
    return Keypoints(names, torch.stack(position), visible, torch.tensor(extent))


def _rows_of(path: Path, names: np.ndarray, detections: Detections) -> tuple[np.ndarray, Tensor]:
    """Matches detections with the images that a file names, in whatever order these are stored.

    Returns:
        The row (N,) of each detection in the file, 0 where it has none, and whether it has one (N,).
    """
    row_of = {str(name): row for row, name in enumerate(names)}
    stems = [image_stem(item.image_path, detections.dataset) for item in detections.items]
    known = torch.tensor([stem in row_of for stem in stems])
    if not known.any():
        raise UserError(f"{path}: names none of the {len(stems)} images of {detections.dataset}.")
    return np.array([row_of.get(stem, 0) for stem in stems]), known


def _check_cameras(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuses cameras that are not finite numbers; a distance may be infinite."""
    # An infinite distance means an orthographic camera, but the check accepts finite numbers only
    distance = arrays["camera_distance"].copy()
    if distance.dtype.kind == "f":
        distance[distance == np.inf] = 1
    numbers = {**arrays, "camera_distance": distance, "name": np.zeros(arrays["name"].shape)}
    shapes = dict.fromkeys(("name", "shape_id", "scale_px", "camera_distance"), ("N",))
    check_numbers(
        path, numbers, shapes | {"rotation": ("N", 4), "translation_px": ("N", 2)}, _REMEDY
    )


def load_true_shapes(dataset: str) -> TrueShapes | None:
    """Reads shapes.npz of a collection; None if it has no such file."""
    path = shapes_path(dataset)
    if not path.exists():
        return None
    arrays = load_arrays(path, ("shape_id", "vertices", "faces"), _REMEDY)
    shapes = {"shape_id": ("S",), "vertices": ("S", "V", 3), "faces": ("F", 3)}
    check_numbers(path, arrays, shapes, _REMEDY)
    faces, count = arrays["faces"], arrays["vertices"].shape[1]
    # Indices without a vertex would fail only when the shape is rendered
    if faces.dtype.kind not in "iu" or not np.isin(faces, range(count)).all():
        raise UserError(f"{path}: faces has other numbers than 0-{count - 1}. {_REMEDY}")
    return TrueShapes(
        torch.from_numpy(arrays["shape_id"]).long(),
        torch.from_numpy(arrays["vertices"]).float(),
        torch.from_numpy(arrays["faces"]).long(),
    )


def project_true(vertices: Tensor, truth: GroundTruth, row: int | Tensor) -> Tensor:
    """Places true shapes in the crops of some rows.

    The true perspective acts before scale and translation, unlike that of `geometry.camera`.

    Args:
        vertices: (..., V, 3) object space.
        truth: true cameras.
        row: which of them, (...) or a number.

    Returns:
        (..., V, 3) screen space: x right, y up in [-1, 1], z towards the viewer.
    """
    turned = quaternion.rotate(truth.rotation[row], vertices)
    toward = -turned[..., 2:]
    # Points nearer to the camera appear larger
    factor = 1 / (1 - toward / truth.camera_distance[row][..., None, None])
    scale = truth.scale[row][..., None]
    planar = turned[..., :2] * factor * scale + truth.translation[row][..., None, :]
    return torch.cat([planar[..., :1], -planar[..., 1:], toward * scale], dim=-1)


def rotation_report(
    estimated: Tensor, truth: GroundTruth, rows: Tensor | None = None
) -> dict[str, float | int | None]:
    """Compares rotations with the true ones.

    Args:
        estimated: (K, 4) unit quaternions.
        truth: true cameras of all N detections.
        rows: (K,) rows of the detections that were estimated; default all N.

    Returns:
        `images` compared, `median_degrees`, `share_under_30` (degrees) and `squared_distance`, the
        mean of 1 - <q, r>^2; the figures are None if no compared row has ground truth.
    """
    rows = torch.arange(len(truth.known)) if rows is None else rows.cpu()
    if estimated.shape != (len(rows), 4):
        got = tuple(estimated.shape)
        raise ValueError(f"estimated: expected shape ({len(rows)}, 4), got {got}.")
    known = truth.known[rows]
    if not known.any():
        return dict.fromkeys(("median_degrees", "share_under_30", "squared_distance")) | {
            "images": 0
        }
    # Small angles need double precision
    p = quaternion.normalize(estimated.detach().cpu().double()[known])
    q = quaternion.normalize(truth.rotation[rows][known].double())
    degrees = quaternion.angle_between(p, q)
    return {
        "images": int(known.sum()),
        "median_degrees": float(degrees.quantile(0.5)),
        "share_under_30": float((degrees < 30).double().mean()),
        "squared_distance": float(quaternion.squared_distance(p, q).mean()),
    }
