"""How far estimated meshes are from the true shapes, where a collection has them."""

from typing import ClassVar, NamedTuple

from data.detections import Detections
from data.ground_truth import GroundTruth, TrueShapes, load_ground_truth, load_true_shapes
from geometry.distances import chamfer_distance
from pipeline.reconstruction.metrics.interface import (
    MeanMetric,
    Measured,
    Setting,
    Unavailable,
    as_array,
)


class Truth(NamedTuple):
    """True cameras and shapes of a dataset."""

    cameras: GroundTruth
    shapes: TrueShapes


def load_truths(detections: list[Detections], metric: str) -> list[Truth | None]:
    """Returns the truth about each dataset, None where it has none.

    Raises:
        Unavailable: if no dataset has any.
    """
    truths = [_load_truth(d) for d in detections]
    if not any(truths):
        names = ", ".join(d.dataset for d in detections)
        raise Unavailable(
            f"--metrics {metric}: {names} has no true shapes (ground_truth.npz and shapes.npz in its "
            "folder under datasets/)."
        )
    return truths


def _load_truth(detections: Detections) -> Truth | None:
    cameras, shapes = load_ground_truth(detections), load_true_shapes(detections.dataset)
    return Truth(cameras, shapes) if cameras is not None and shapes is not None else None


class ShapeDistance(MeanMetric):
    """Chamfer distance of the surfaces, beside that of the template."""

    titles: ClassVar = {
        "chamfer": "Chamfer distance to the true shape, in percent of its diagonal",
        "chamfer_template": "the same of the template instead of the estimate",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._truths = load_truths(setting.detections, "shape")

    def measure(self, batch: Measured) -> dict[str, list[float]]:
        scene = self._setting.scene
        faces = scene.sphere.faces.cpu().numpy()
        values: dict[str, list[float]] = {"chamfer": [], "chamfer_template": []}
        # Shapes are known of some photographs only
        templates = scene.templates[batch.labels.template]
        for index, mesh, template in zip(
            batch.index, batch.prediction.vertices, templates, strict=True
        ):
            number, row = self._setting.data.source(int(index))
            truth = self._truths[number]
            if truth is None or truth.cameras.shape_id[row] < 0:
                continue
            vertices = truth.shapes.vertices_of(int(truth.cameras.shape_id[row]))
            true = as_array(vertices), truth.shapes.faces.numpy()
            values["chamfer"].append(chamfer_distance((as_array(mesh), faces), true))
            values["chamfer_template"].append(chamfer_distance((as_array(template), faces), true))
        return values
