"""Part maps, as evidence for poses: given with the photographs, or learned from the collection.

Compared are the maps of a photograph with the parts that the semantic template shows in a pose.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from data.cache.learned_parts import LearnedParts
from data.detections import Detections
from geometry.camera import project
from geometry.distances import iou
from pipeline.poses.candidates import Candidates, Scored
from pipeline.poses.evidence import outlines
from pipeline.poses.evidence.interface import Verdict
from pipeline.poses.evidence.outlines import shrink
from pipeline.poses.photographs import Photographs, Reader
from pipeline.poses.semantic_template import SemanticModel, splat
from utils.row_files import Column

LEAST_NOISE = 0.05  # standard deviation of overlaps, in units of a good one
MISFIT_NOISE = 0.1  # and for every unit that the best overlap of an image lacks to a good one
GOOD_QUANTILE = 0.75  # of the best overlaps of all images: a good one
LEARNED_SHARE = 0.2  # of learned parts in the overlap; masks are the rest
LARGEST_SUPPORT = 100  # images behind the semantic template of each mesh template
GUIDE_WEIGHT = 2.0  # of parts in the refinement
LEAST_MASS = 1e-6  # pixels that a part must cover to count as shown


class PartSource(Protocol):
    """Where part maps come from.

    Attributes:
        names: the K parts.
        speaks: (N,) whether an image shows any of them.
        guides: whether poses are refined against the maps.
    """

    names: Sequence[str]
    speaks: Tensor
    guides: bool

    def maps(self, photographs: Photographs) -> Tensor:
        """Returns maps (n, K + 1, h, w) that add up to the masks, channel 0 = no part."""
        ...

    def judge(self, overlap: Tensor, iou: Tensor) -> Verdict:
        """Judges overlaps of parts (N, H) beside those of the masks (N, H)."""
        ...


class GivenParts:
    """Part maps of the collection; images without any are left to other evidence."""

    guides = True

    def __init__(self, names: Sequence[str], speaks: Tensor) -> None:
        """Takes the names of the parts, and which images (N,) show any; see `shows_parts`."""
        self.names, self.speaks = names, speaks

    def maps(self, photographs: Photographs) -> Tensor:
        """Returns the maps that were read with the photographs."""
        return photographs.parts

    def judge(self, overlap: Tensor, iou: Tensor) -> Verdict:
        """Judges overlaps of parts (N, H).

        Their unit is a good overlap of the collection, since thin parts overlap little in the right
        pose too. Maps that no pose comes near to are doubtful, and such that no pose meets at all
        say nothing.
        """
        # Maps that no pose meets say nothing
        best = overlap.amax(dim=1)
        speaks = self.speaks & (best > 0)
        if not speaks.any():
            return Verdict(overlap, torch.ones_like(best), speaks)
        # What a good overlap is, and by how much an image lacks it
        good = best[speaks].quantile(GOOD_QUANTILE)
        noise = LEAST_NOISE * good + MISFIT_NOISE * (good - best).clamp(min=0)
        return Verdict(overlap, noise, speaks)


def shows_parts(detections: Detections, names: Sequence[str]) -> Tensor:
    """Returns which of the N images (N,) show one of the named parts."""
    known = set(names)
    shown = (not known.isdisjoint(p.name for p in item.parts) for item in detections.items)
    return torch.tensor(list(shown))


class FoundParts:
    """Part maps that a network has learned from the collection itself."""

    guides = False  # they blur more than colors do

    def __init__(self, learned: LearnedParts) -> None:
        """Takes the maps of all images."""
        self._learned = learned
        self.names: Sequence[str] = learned.names
        self.speaks = torch.ones(len(learned.maps), dtype=torch.bool)

    def maps(self, photographs: Photographs) -> Tensor:
        """Returns the learned maps of the photographs."""
        return self._learned.targets(photographs.rows, photographs.masks)

    def judge(self, overlap: Tensor, iou: Tensor) -> Verdict:
        """Judges overlaps of parts (N, H) as a share of those of the masks (N, H)."""
        mixed = LEARNED_SHARE * overlap + (1 - LEARNED_SHARE) * iou
        return Verdict(mixed, outlines.judge(iou).noise, self.speaks)


class PartEvidence:
    """Compares part maps with a semantic template; poses can be refined against it."""

    def __init__(self, source: PartSource, model: SemanticModel) -> None:
        self.source, self.model = source, model

    def columns(self, count: int) -> dict[str, Column]:
        """Returns the overlaps."""
        return {"parts": Column((count,))}

    def measure(self, photographs: Photographs, candidates: Candidates) -> dict[str, Tensor]:
        """Returns the mean overlaps of parts (n, H) of candidates, at half the size of the maps."""
        size = photographs.masks.shape[-1] // 2
        targets = shrink(self.source.maps(photographs), size)
        candidates = candidates.to(targets.device)
        overlaps = []
        # Image by image, so that results do not depend on the batch
        for i, target in enumerate(targets):
            raster = self.model.render(*candidates.select(i), size)
            assert raster.attributes is not None
            overlaps.append(part_overlap(raster.attributes, target))
        return {"parts": torch.stack(overlaps).cpu()}

    @property
    def weight(self) -> float:
        """More than that of the mask, which the parts cover as well."""
        return GUIDE_WEIGHT

    def maps(self, photographs: Photographs) -> Tensor:
        """Returns the part maps (n, K + 1, h, w)."""
        return self.source.maps(photographs)

    def expected(self, rows: Tensor, index: Tensor, chosen: Candidates) -> Tensor:
        """Returns the parts (n, R, V, K + 1) of the chosen templates."""
        return self.model.probabilities[chosen.choice]


def collect_parts(
    source: PartSource, model: SemanticModel, reader: Reader, best: Scored, rows: Tensor
) -> Tensor:
    """Sums the part maps of images on the vertices of the templates they chose.

    At most LARGEST_SUPPORT images a template count, those that fit best. Every process does all of
    it, so that the result does not depend on their number.

    Args:
        source: of the part maps.
        model: templates.
        reader: of the photographs.
        best: (N,) best candidates.
        rows: of the images that are trusted; those without parts are left out.

    Returns:
        (T, V, K + 1) sums.
    """
    # The images that fit best, for each template
    rows = rows[source.speaks[rows]]
    order = rows[best.overlap[rows].argsort(descending=True, stable=True)]
    choice = best.candidates.choice
    users = [order[choice[order] == template] for template in range(len(model.templates))]
    supporting = torch.cat([some[:LARGEST_SUPPORT] for some in users]).tolist()
    # Their maps, splatted one photograph after the other
    sums = model.templates.new_zeros(*model.templates.shape[:2], len(source.names) + 1)
    for photographs in reader.batches(supporting):
        pose, chosen = best.candidates.select(photographs.rows).to(sums.device)
        screen = project(model.templates[chosen], pose)
        parts = splat(screen, model.faces, source.maps(photographs))
        for template, part in zip(chosen, parts, strict=True):
            sums[template] += part
    return sums


def part_overlap(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean soft intersection over union of the parts that the target shows.

    Args:
        predicted: (..., K, h, w) in [0, 1].
        target: (..., K, h, w) in [0, 1].

    Returns:
        (...), 0 where the target shows nothing at all.
    """
    # Parts that the target does not show do not count
    shown = target.sum(dim=(-2, -1)) > LEAST_MASS
    ratio = iou(predicted, target) * shown
    return ratio.sum(dim=-1) / shown.sum(dim=-1).clamp(min=1)
