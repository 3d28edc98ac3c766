"""The silhouette term of stage 3 without rendering: points on the predicted meshes."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.reconstruction.model import Prediction, Scene
from rendering.projection.terms import Moment, describe, make_term

COVER_WEIGHT = 0.1  # its errors are about ten times those of pixels

# Compares the rendered soft silhouettes (B, 1, h, w) of a prediction with masks of that shape
SilhouetteTerm = Callable[[Prediction, Tensor, Tensor], Tensor]

logger = logging.getLogger(__name__)


class PointSilhouettes:
    """Compares points on predicted meshes with masks."""

    def __init__(self, kind: str, size: int, scene: Scene) -> None:
        """Draws points on the templates of a scene.

        Args:
            kind: volume or cover.
            size: edge of the grid of volume.
            scene: what the images share.
        """
        self._term = make_term(kind, scene.templates, scene.sphere.faces, size)
        self._weight = COVER_WEIGHT if kind == "cover" else 1.0
        logger.info("silhouettes: %s", describe(kind, size, scene.templates.device))

    def at(self, step: int, progress: float, template: Tensor) -> SilhouetteTerm:
        """Returns the term of a step; template (B,) says which one each image is like."""
        moment = Moment(step, progress)

        def compare(prediction: Prediction, alpha: Tensor, mask: Tensor) -> Tensor:
            del alpha  # not needed
            own = torch.arange(len(mask), device=mask.device)
            errors, _ = self._term(prediction.screen, template, mask[:, 0], own, moment)
            return self._weight * errors.mean()

        return compare
