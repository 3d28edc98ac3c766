"""How well a photograph is explained by its own mesh: silhouettes and colors."""

from typing import ClassVar

from geometry.distances import hard_iou, iou
from pipeline.reconstruction.metrics.interface import (
    MeanMetric,
    Measured,
    Setting,
    Unavailable,
    color_error,
)
from rendering.rasterizer import rasterize


class Silhouettes(MeanMetric):
    """Overlap of silhouettes and masks: at a threshold, as usually reported, soft, and of the meshes.

    The soft silhouette reaches beyond the mesh, at a threshold of 0.5 too. For masks without soft edges the soft one is sum(A M) / sum(A + M - A M), as in UMR.
    """

    titles: ClassVar = {
        "iou": "IoU of the silhouettes at 0.5",
        "soft_iou": "IoU of the soft silhouettes",
        "mesh_iou": "IoU of the meshes without any softness",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._faces = setting.scene.sphere.faces

    def measure(self, batch: Measured) -> dict[str, list[float]]:
        mask = batch.image[:, 3:]
        hard = rasterize(batch.prediction.screen, self._faces, mask.shape[-1], soft=False)
        return {
            "iou": hard_iou(batch.alpha, mask)[:, 0].tolist(),
            "soft_iou": iou(batch.alpha, mask)[:, 0].tolist(),
            "mesh_iou": hard_iou(hard.coverage, mask)[:, 0].tolist(),
        }

    def lines(self, figures: dict[str, float]) -> list[str]:
        average = f"Average mask IoU: {figures['soft_iou']:.4f} soft, {figures['iou']:.4f} at 0.5"
        return [*super().lines(figures), average]


class Colors(MeanMetric):
    """Colors inside the mask."""

    titles: ClassVar = {"color_error": "mean absolute color error inside the mask, in 0-1"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if not setting.config.model.predicts_texture:
            raise Unavailable(
                "--metrics color: the model predicts no texture. Train with --prediction_type both."
            )

    def measure(self, batch: Measured) -> dict[str, list[float]]:
        assert batch.colors is not None, "a model with textures renders colors"
        return {"color_error": color_error(batch.colors, batch.image).tolist()}
