"""Overlap of masks, as evidence for poses: it speaks for every image."""

import torch
from torch import Tensor
from torch.nn import functional

from geometry.camera import project
from geometry.distances import hard_iou
from pipeline.poses.candidates import Candidates
from pipeline.poses.evidence.interface import Verdict
from pipeline.poses.photographs import Photographs
from rendering.rasterizer import rasterize
from utils.row_files import Column

LEAST_NOISE = 0.02  # standard deviation of the overlap of a template that fits perfectly
MISFIT_NOISE = 0.15  # and for every unit that the best overlap of an image lacks


class Outlines:
    """Compares the silhouettes of the templates (T, V, 3) with the masks, at half their size."""

    def __init__(self, templates: Tensor, faces: Tensor) -> None:
        self._templates, self._faces = templates, faces

    def columns(self, count: int) -> dict[str, Column]:
        """Returns the overlaps."""
        return {"iou": Column((count,))}

    def measure(self, photographs: Photographs, candidates: Candidates) -> dict[str, Tensor]:
        """Returns the overlaps (n, H) of candidates with the masks of n photographs."""
        size = photographs.masks.shape[-1] // 2
        masks = shrink(photographs.masks[:, None], size)[:, 0]
        candidates = candidates.to(masks.device)
        overlaps = []
        # Image by image, so that results do not depend on the batch
        for i, mask in enumerate(masks):
            pose, choice = candidates.select(i)
            screen = project(self._templates[choice], pose)
            coverage = rasterize(screen, self._faces, size, soft=False).coverage[:, 0]
            overlaps.append(hard_iou(coverage, mask))
        return {"iou": torch.stack(overlaps).cpu()}


def judge(iou: Tensor) -> Verdict:
    """Judges overlaps (N, H): where even the best one is poor, differences tell less."""
    noise = LEAST_NOISE + MISFIT_NOISE * (1 - iou.amax(dim=1))
    return Verdict(iou, noise, torch.ones(len(iou), dtype=torch.bool))


def shrink(maps: Tensor, size: int) -> Tensor:
    """Resizes maps (n, C, h, w), averaging over the pixels."""
    if maps.shape[-1] == size:
        return maps
    return functional.interpolate(maps, (size, size), mode="bilinear", antialias=True)
