"""The course of learning: a contest of starting shapes, and the best one refined on more images."""

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh
from pipeline.template_learning import alternation, clusters
from pipeline.template_learning.alternation import (
    STARTING_SHAPES,
    Evidence,
    best_proportions,
    one_round,
)
from pipeline.template_learning.pictures import template_picture
from pipeline.template_learning.views import find_views
from rendering.projection.terms import TermMaker
from utils import checkpoint
from utils.pictures import save_image
from utils.progress import progress
from utils.seeding import torch_generator

CONTEST_ROUNDS, MAIN_ROUNDS = 6, 6
STRETCHED_ROUNDS = (2, 4, 6)  # after which other proportions are tried
CONTEST_IMAGES, MAIN_IMAGES = 64, 120  # the most that are learned from
LEFT_OUT_SHARE, LEFT_OUT_IMAGES = 0.2, 60  # that judge, and are never learned from

logger = logging.getLogger(__name__)


class Learned(NamedTuple):
    """What was learned.

    Attributes:
        templates: (T, V, 3), max |coordinate| = 1.
        overlap: mean intersection over union with the held-out masks.
        start: number of the starting shape that won.
        scores: merits of all starting shapes: overlap with held-out masks minus what unlikely views cost.
    """

    templates: Tensor
    overlap: float
    start: int
    scores: list[float]


class Course:
    """The rounds of learning; each is kept in a file, so that an interrupted run continues where it stopped.

    Attributes:
        folder: where the rounds are kept, for these photographs and this seed alone.
        seed: of all random numbers.
    """

    def __init__(self, folder: Path, seed: int, terms: TermMaker) -> None:
        """Reads nothing yet; silhouettes are compared by the terms."""
        self.folder, self.seed, self._terms = folder, seed, terms
        rounds = len(STARTING_SHAPES) * CONTEST_ROUNDS + MAIN_ROUNDS
        self._bar = progress(total=rounds, description="rounds")

    def contest(self, start: int, evidence: Evidence) -> Tensor:
        """Returns the template (1, V, 3) that coarse rounds on masks alone make of a starting shape."""
        generator = torch_generator(self.seed, "beginning", start)
        templates = alternation.begin(SphereMesh(), STARTING_SHAPES[start], generator)
        for number in range(CONTEST_ROUNDS):
            templates = self._round(f"beginning{start + 1}", number, templates, evidence)
        return templates

    def carry_on(self, templates: Tensor, evidence: Evidence, num_templates: int) -> Tensor:
        """Returns the templates (T, V, 3) that fine rounds make of the winner (1, V, 3)."""
        # Each cluster of shapes continues as a template of its own
        if num_templates > 1:
            templates = clusters.split(templates, evidence, num_templates, self._terms)
        for number in range(CONTEST_ROUNDS, CONTEST_ROUNDS + MAIN_ROUNDS):
            templates = self._round(f"templates{num_templates}", number, templates, evidence)
        return templates

    def _round(self, name: str, number: int, templates: Tensor, evidence: Evidence) -> Tensor:
        """Makes a round, or reads what an earlier run made of it."""
        path = self.folder / f"{name}_round{number + 1:02d}.pth"
        if not path.exists():
            # Random numbers depend on the round alone, so that a resumed run repeats them
            share = number / (CONTEST_ROUNDS + MAIN_ROUNDS - 1)
            generator = torch_generator(self.seed, name, number)
            templates, views = one_round(templates, evidence, share, generator, self._terms)
            if number in STRETCHED_ROUNDS:
                templates = best_proportions(templates, evidence)
            # The picture is written before the round, whose file says that all is done
            title = f"{name}, round {number + 1}: overlap {views.iou.amax(dim=1).mean():.3f}"
            titles = [title] + [""] * (len(templates) - 1)
            save_image(path.with_suffix(".png"), template_picture(templates, titles))
            checkpoint.save(path, templates.contiguous())
            logger.info(title)
        self._bar.update(1)
        return checkpoint.load_plain(path)


def learn(
    evidence: Evidence, num_templates: int, folder: Path, seed: int, terms: TermMaker
) -> Learned:
    """Learns T templates from N photographs.

    Colors take part once the shape is roughly known; several starting shapes compete without them.

    Args:
        evidence: masks, perhaps images, and the prior of views.
        num_templates: T.
        folder: where the rounds are kept.
        seed: of all random numbers.
        terms: by which silhouettes are compared with masks.
    """
    # Held-out masks choose the starting shape and measure the result
    order = torch.randperm(len(evidence.masks), generator=torch_generator(seed, "left out"))
    count = round(LEFT_OUT_SHARE * len(order))
    left_out, used = evidence.masks[order[:count][:LEFT_OUT_IMAGES]], order[count:]
    course = Course(folder, seed, terms)
    # All starting shapes compete on masks alone
    masks = evidence._replace(images=None).select(used[:CONTEST_IMAGES])
    contestants = [course.contest(number, masks) for number in range(len(STARTING_SHAPES))]
    # The best one explains held-out masks, in poses that are likely, one by one and together
    results = [find_views(shape, left_out, evidence.prior) for shape in contestants]
    scores = [views.merit() for views in results]
    best = max(range(len(scores)), key=scores.__getitem__)
    # Colors join in, and more images
    evidence = evidence.select(used[:MAIN_IMAGES])
    templates = course.carry_on(contestants[best], evidence, num_templates)
    overlap = find_views(templates, left_out, evidence.prior).iou.amax(dim=1).mean().item()
    return Learned(templates, overlap, best, scores)
