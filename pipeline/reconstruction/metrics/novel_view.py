"""How estimated meshes look from where other photographs of the same individual were taken.

Meshes live in the object space of the template, cameras in the true one. A single similarity per
collection maps one to the other: turn, scale and offset with which the true cameras see the template
as its estimated poses show it (`common_similarity`). Nothing is fitted to a single photograph or to an
estimated mesh, so that a mesh of the wrong size or place is an error.
"""

from collections import defaultdict
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from data.ground_truth import project_true
from geometry.common_frame import Similarity, common_similarity
from geometry.distances import hard_iou
from pipeline.reconstruction.metrics.interface import (
    MeanMetric,
    Measured,
    Setting,
    Unavailable,
    color_error,
)
from pipeline.reconstruction.metrics.true_shapes import Truth, load_truths
from rendering.rasterizer import rasterize
from rendering.texture import render_textured
from utils import distributed
from utils.pictures import labeled_rows

VIEWS = 4  # other photographs that each estimate is compared with
COLUMNS = 8  # estimates in a picture


class NovelViews(MeanMetric):
    """Overlap and colors from the true cameras of other photographs, beside what other shapes reach."""

    titles: ClassVar = {
        "novel_iou": "IoU at 0.5 from true cameras of other photographs of the same individual",
        "novel_color_error": "mean absolute color error from there, in 0-1",
        "novel_iou_mean": "IoU from there of the mean true shape of the other individuals",
        "novel_iou_nearest": "IoU from there of the other individual whose true shape is nearest",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._truths = load_truths(setting.detections, "novel_view")
        self._similarities: dict[int, Similarity] = {}
        self._references: dict[int, dict[str, float]] = {}
        # Photographs of the same individual, by collection and shape
        self._groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index in range(len(setting.data)):
            if (key := self._key(index)) is not None:
                self._groups[key].append(index)
        # A few estimates are drawn, spread evenly over the photographs
        shown = torch.linspace(0, len(setting.data) - 1, COLUMNS).long()
        self._drawn: dict[int, Tensor | None] = dict.fromkeys(shown.tolist())
        if all(len(group) < 2 for group in self._groups.values()):
            names = ", ".join(d.dataset for d in setting.detections)
            raise Unavailable(
                f"--metrics novel_view: {names} has no two photographs of the same true shape here."
            )

    def measure(self, batch: Measured) -> dict[str, list[float]]:
        values: dict[str, list[float]] = defaultdict(list)
        for position, index in enumerate(batch.index.tolist()):
            others = self._others(index)
            if not others:
                continue
            # The estimate in true object space, under the true cameras
            number = self._setting.data.source(index)[0]
            mesh = batch.prediction.vertices[position].cpu()
            screen = self._project(self._similarity(number).apply(mesh), others)
            image = self._crops(others).to(batch.image.device)
            texture = batch.prediction.texture
            own = None if texture is None else texture[position].expand(len(others), -1, -1, -1)
            alpha, colors = self._render(screen.to(image.device), own)
            values["novel_iou"] += hard_iou(alpha, image[:, 3:])[:, 0].tolist()
            if colors is not None:
                values["novel_color_error"] += color_error(colors, image).tolist()
            if index in self._drawn:
                seen = 2 * alpha.expand(-1, 3, -1, -1) - 1 if colors is None else colors
                pictures = (batch.image[position, :3], image[0, :3], seen[0])
                self._drawn[index] = torch.stack(pictures).cpu()
            # What other shapes reach in the same photographs
            for other in others:
                for name, value in self._reference(other).items():
                    values[name].append(value)
        return values

    def pictures(self) -> dict[str, np.ndarray]:
        """Returns photographs, others of the same individuals, and the estimates from there."""
        drawn = {
            i: x
            for part in distributed.gather(self._drawn)
            for i, x in part.items()
            if x is not None
        }
        if not drawn:
            return {}
        columns = torch.stack([drawn[index] for index in sorted(drawn)], dim=1)
        names = ["photographs", "other photographs", "the meshes of the first from there"]
        rows = dict(zip(names, columns, strict=True))
        return {"novel_views": labeled_rows(rows, "novel views")}

    def _key(self, index: int) -> tuple[int, int] | None:
        """Returns the number of an image's dataset and the id of its true shape; None if unknown."""
        number, row = self._setting.data.source(index)
        truth = self._truths[number]
        shape = -1 if truth is None else int(truth.cameras.shape_id[row])
        return None if shape < 0 else (number, shape)

    def _others(self, index: int) -> list[int]:
        """Returns up to `VIEWS` other photographs of the same individual, spread evenly over them."""
        key = self._key(index)
        group = [] if key is None else self._groups[key]
        if len(group) < 2:
            return []
        # Counted from the image itself, so that all photographs are looked at equally often
        start, others = group.index(index) + 1, len(group) - 1
        count = min(VIEWS, others)
        return [group[(start + k * others // count) % len(group)] for k in range(count)]

    def _project(self, vertices: Tensor, index: list[int]) -> Tensor:
        """Places a mesh (V, 3) under the true cameras of images of the same dataset."""
        sources = [self._setting.data.source(i) for i in index]
        truth = self._truth(sources[0][0])
        rows = torch.tensor([row for _, row in sources])
        return project_true(vertices.expand(len(rows), -1, -1), truth.cameras, rows)

    def _crops(self, index: list[int]) -> Tensor:
        return torch.stack([self._setting.data[i].image for i in index])

    def _truth(self, number: int) -> Truth:
        truth = self._truths[number]
        assert truth is not None, "only images with a truth are measured"
        return truth

    def _render(self, screen: Tensor, texture: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns silhouettes (B, 1, h, h) and, with textures (B, 3, R, R), colors (B, 3, h, h)."""
        sphere, size = self._setting.scene.sphere, self._setting.config.model.image_resolution
        if texture is None:
            alpha, colors = rasterize(screen, sphere.faces, size).alpha, None
        else:
            rendering = render_textured(sphere, screen, texture, size)
            alpha, colors = rendering.alpha, rendering.colors
        assert alpha is not None
        return alpha, colors

    def _similarity(self, number: int) -> Similarity:
        """Returns the map from the template's object space to the true one of a dataset."""
        if number not in self._similarities:
            data, truth = self._setting.data, self._truth(number).cameras
            # All of its images with an estimated and a true pose
            sources = [data.source(i) for i in range(len(data))]
            used = [i for i, (k, row) in enumerate(sources) if k == number and truth.known[row]]
            rows = torch.tensor([sources[i][1] for i in used])
            labels = data.labels.select(torch.tensor(used))
            templates = self._setting.scene.templates[labels.template.unique()].cpu()

            def project(vertices: Tensor, some: Tensor) -> Tensor:
                return project_true(vertices.expand(len(some), -1, -1), truth, rows[some])

            self._similarities[number] = common_similarity(
                labels.pose, truth.rotation[rows], truth.scale[rows], templates.mean(0), project
            )
        return self._similarities[number]

    def _reference(self, index: int) -> dict[str, float]:
        """Returns the overlap of what is known of other individuals with the mask of an image."""
        key = self._key(index)
        assert key is not None, "only images with a truth are measured"
        if index not in self._references and (known := self._known(*key)):
            shapes = torch.stack([*known.values()])
            faces, mask = self._truth(key[0]).shapes.faces, self._crops([index])[:, 3:]
            screen = torch.cat([self._project(shape, [index]) for shape in shapes])
            drawn = rasterize(screen, faces, mask.shape[-1], soft=False).coverage
            overlap = hard_iou(drawn, mask.expand_as(drawn))[:, 0].tolist()
            self._references[index] = dict(zip(known, overlap, strict=True))
        return self._references.get(index, {})

    def _known(self, number: int, shape: int) -> dict[str, Tensor]:
        """Returns the mean (V, 3) of the other individuals, and the one nearest to a shape, by name."""
        shapes = self._truth(number).shapes
        others = shapes.shape_id != shape
        if not others.any():
            return {}
        candidates = shapes.vertices[others]
        distance = (candidates - shapes.vertices_of(shape)).norm(dim=-1).mean(dim=1)
        return {
            "novel_iou_mean": candidates.mean(dim=0),
            "novel_iou_nearest": candidates[distance.argmin()],
        }
