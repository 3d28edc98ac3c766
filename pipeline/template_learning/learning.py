"""The course of learning: a contest of several beginnings, and the best one carried on with more images."""

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh
from pipeline.template_learning import alternation, clusters
from pipeline.template_learning.alternation import BEGINNINGS, Evidence, best_proportions, one_round
from pipeline.template_learning.pictures import template_picture
from pipeline.template_learning.views import find_views
from utils import checkpoint
from utils.pictures import save_image
from utils.progress import progress
from utils.seeding import torch_generator

CONTEST_ROUNDS, MAIN_ROUNDS = 6, 6
STRETCHED_ROUNDS = (2, 4, 6)  # after which other proportions are tried
CONTEST_IMAGES, MAIN_IMAGES = 64, 120  # most that are learned from
LEFT_OUT_SHARE, LEFT_OUT_IMAGES = 0.2, 60  # that judge

logger = logging.getLogger(__name__)


class Learned(NamedTuple):
    """What was learned.

    Attributes:
        templates: (T, V, 3), max |coordinate| = 1.
        overlap: mean intersection over union with the masks that were left out.
        beginning: number of the beginning that won.
        scores: of all beginnings: overlap of masks left out, minus what the prior has against the poses.
    """

    templates: Tensor
    overlap: float
    beginning: int
    scores: list[float]


class Course:
    """The rounds of learning; each is kept in a file, so that an interrupted run goes on where it was.

    Attributes:
        folder: where the rounds are kept, for these photographs and this seed alone.
        seed: of all random numbers.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        """Reads nothing yet."""
        self.folder, self.seed = folder, seed
        rounds = len(BEGINNINGS) * CONTEST_ROUNDS + MAIN_ROUNDS
        self._bar = progress(total=rounds, description="rounds")

    def contest(self, beginning: int, evidence: Evidence) -> Tensor:
        """Returns what becomes of a beginning (1, V, 3) after some coarse rounds of masks alone."""
        generator = torch_generator(self.seed, "beginning", beginning)
        templates = alternation.begin(SphereMesh(), BEGINNINGS[beginning], generator)
        for number in range(CONTEST_ROUNDS):
            templates = self._round(f"beginning{beginning + 1}", number, templates, evidence)
        return templates

    def carry_on(self, templates: Tensor, evidence: Evidence, num_templates: int) -> Tensor:
        """Returns the templates (T, V, 3) that fine rounds make of the winner (1, V, 3)."""
        if num_templates > 1:
            templates = clusters.split(templates, evidence, num_templates)
        for number in range(CONTEST_ROUNDS, CONTEST_ROUNDS + MAIN_ROUNDS):
            templates = self._round(f"templates{num_templates}", number, templates, evidence)
        return templates

    def _round(self, name: str, number: int, templates: Tensor, evidence: Evidence) -> Tensor:
        """Makes a round, or reads what an earlier run made of it."""
        path = self.folder / f"{name}_round{number + 1:02d}.pth"
        if not path.exists():
            share = number / (CONTEST_ROUNDS + MAIN_ROUNDS - 1)
            generator = torch_generator(self.seed, name, number)
            templates, views = one_round(templates, evidence, share, generator)
            if number in STRETCHED_ROUNDS:
                templates = best_proportions(templates, evidence)
            title = f"{name}, round {number + 1}: overlap {views.iou.amax(dim=1).mean():.3f}"
            titles = [title] + [""] * (len(templates) - 1)
            save_image(path.with_suffix(".png"), template_picture(templates, titles))
            checkpoint.save(path, templates.contiguous())
            logger.info(title)
        self._bar.update(1)
        return checkpoint.load_plain(path)


def learn(evidence: Evidence, num_templates: int, folder: Path, seed: int) -> Learned:
    """Learns T templates from N photographs.

    Colors take part once the shape is roughly known; several beginnings compete without them.

    Args:
        evidence: masks, perhaps images, and the prior of views.
        num_templates: T.
        folder: where the rounds are kept.
        seed: of all random numbers.
    """
    order = torch.randperm(len(evidence.masks), generator=torch_generator(seed, "left out"))
    count = round(LEFT_OUT_SHARE * len(order))
    left_out, used = evidence.masks[order[:count][:LEFT_OUT_IMAGES]], order[count:]
    course = Course(folder, seed)
    masks = evidence._replace(images=None).select(used[:CONTEST_IMAGES])
    contestants = [course.contest(number, masks) for number in range(len(BEGINNINGS))]
    results = [find_views(shape, left_out, evidence.prior) for shape in contestants]
    scores = [views.best().mean().item() for views in results]
    best = max(range(len(scores)), key=scores.__getitem__)
    evidence = evidence.select(used[:MAIN_IMAGES])
    templates = course.carry_on(contestants[best], evidence, num_templates)
    overlap = find_views(templates, left_out, evidence.prior).iou.amax(dim=1).mean().item()
    return Learned(templates, overlap, best, scores)
