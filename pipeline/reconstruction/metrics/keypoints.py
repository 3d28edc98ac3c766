"""Transfer of annotated keypoints between photographs, through the estimated meshes."""

from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from data.ground_truth import load_keypoints
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import half_map
from pipeline.reconstruction.metrics.interface import Measured, Metric, Setting, Unavailable
from rendering.keypoint_transfer import (
    AnnotatedMeshes,
    describe,
    draw_pairs,
    measure_transfer,
    shows_pairs,
    transfer,
)
from utils import distributed
from utils.pictures import labeled_rows, part_palette, to_uint8

COLUMNS = 8  # pairs in a picture


class KeypointTransfer(Metric):
    """PCK of keypoints that are transferred between pairs of photographs of a collection."""

    titles: ClassVar = {}  # the names depend on --pck_alpha

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._options = setting.config.evaluation.transfer
        if self._options.kp_mode == "flow" and not setting.config.model.predicts_flow:
            raise Unavailable(
                "--kp_mode flow: the model predicts no texture flow. Train with --texture_model flow, or use cam or uv."
            )
        # Rows of the data, vertices on the screen, and half of each flow if that is what is measured
        self._found: list[tuple[Tensor, Tensor, Tensor]] = []
        # Numbers of keypoints differ between collections: those that one lacks are never visible
        loaded = [load_keypoints(detections) for detections in setting.detections]
        count = max((len(k.names) for k in loaded if k is not None), default=0)
        rows = [setting.data.source(i) for i in range(len(setting.data))]
        self._position = torch.zeros(len(rows), count, 2)
        self._visible = torch.zeros(len(rows), count, dtype=torch.bool)
        self._extent = torch.ones(len(rows))
        for i, (number, row) in enumerate(rows):
            if (keypoints := loaded[number]) is not None:
                present = len(keypoints.names)
                self._position[i, :present] = keypoints.position[row]
                self._visible[i, :present] = keypoints.visible[row]
                self._extent[i] = keypoints.extent[row]
        self._group = torch.tensor([number for number, _ in rows])
        # Of nothing, there is no share
        annotated = torch.nonzero(self._visible.any(dim=1))[:, 0]
        if not shows_pairs(self._visible[annotated], self._group[annotated], self._options):
            names = ", ".join(d.dataset for d in setting.detections)
            raise Unavailable(
                f"--metrics keypoints: no two photographs of {names} show the same keypoint; {len(annotated)} "
                "show any (keypoints in ground_truth.npz of its folder under datasets/)."
            )

    def add(self, batch: Measured) -> None:
        annotated = self._visible[batch.index].any(dim=1)
        screen, flow = batch.prediction.screen, batch.prediction.flow
        if flow is None or self._options.kp_mode != "flow":
            flow = screen.new_zeros(len(screen), 2, 0, 0)
        rows = annotated.to(screen.device)
        found = (screen[rows].cpu(), half_map(flow[rows]).cpu())
        self._found.append((batch.index[annotated], *found))

    def figures(self) -> dict[str, float]:
        sphere = SphereMesh(self._setting.config.model.rings)
        return measure_transfer(self._images()[1], sphere, self._options)

    def lines(self, figures: dict[str, float]) -> list[str]:
        return describe(figures, self._options)

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns pairs as columns: the source, the target with its keypoints, and the truth."""
        index, images = self._images()
        pairs = draw_pairs(images.group, COLUMNS, self._options.seed)
        source, target = pairs.unbind(1)
        sphere = SphereMesh(self._setting.config.model.rings)
        moved = transfer(images, source, target, sphere, self._options.kp_mode)
        visible = images.visible[source] & images.visible[target]
        crops = {
            row: self._setting.data[int(index[row])].image[:3] for row in pairs.unique().tolist()
        }
        rows = {
            "source": (source, images.position[source]),
            f"transferred by {self._options.kp_mode}": (target, moved),
            "truth": (target, images.position[target]),
        }
        painted = {
            name: torch.stack([
                _mark(crops[int(row)], p, v) for row, p, v in zip(shown, points, visible, strict=True)
            ])
            for name, (shown, points) in rows.items()
        }  # fmt: skip
        return {f"keypoints_{self._options.kp_mode}": labeled_rows(painted, "keypoints")}

    def _images(self) -> tuple[Tensor, AnnotatedMeshes]:
        """Returns the annotated photographs of all processes, and their rows of the data."""
        parts = [batch for part in distributed.gather(self._found) for batch in part]
        index, screen, flow = (torch.cat(members) for members in zip(*parts, strict=True))
        known = (self._position, self._visible, self._extent, self._group)
        return index, AnnotatedMeshes(screen, *(member[index] for member in known), flow=flow)


def _mark(crop: Tensor, points: Tensor, visible: Tensor) -> Tensor:
    """Returns a crop (3, h, h), at least 128 pixels wide, with dots at visible points (K, 2)."""
    size = max(128, crop.shape[-1])
    large = F.interpolate(crop[None], (size, size), mode="bilinear")[0]
    image = Image.fromarray(to_uint8(large))
    draw = ImageDraw.Draw(image)
    palette = part_palette(len(points))
    for (x, y), seen, color in zip(points.tolist(), visible, palette, strict=True):
        if seen and np.isfinite([x, y]).all():
            column, row, radius = (x + 1) / 2 * size, (1 - y) / 2 * size, size / 40
            box = (column - radius, row - radius, column + radius, row + radius)
            draw.ellipse(box, fill=tuple(color.tolist()), outline="white")
    return torch.from_numpy(np.asarray(image).copy()).movedim(-1, 0) / 127.5 - 1
