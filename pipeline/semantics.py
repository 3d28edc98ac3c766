"""Stage 2: chooses among the pose hypotheses by the parts that each of them predicts.

Reads the detections, the templates and the hypotheses of stage 1; writes poses_estimated_<mode>.bin
and semantic_template_<mode>.bin. Section 3.2 of https://arxiv.org/abs/2103.15627, which makes one
round and moves no pose. Here each round makes the semantic template anew from the better poses, and
refines the best hypotheses against silhouette and parts.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from data import artifacts
from data.artifacts import EstimatedPoses, Hypotheses, SemanticTemplate
from data.detections import Detections, load_detections
from data.images import ObjectImages, part_vocabulary
from pipeline import pose_report
from pipeline.pose_report import agreement
from pipeline.semantic_model import (
    SemanticModel,
    Targets,
    compare,
    normalize_parts,
    refine,
    splat_parts,
)
from pipeline.silhouette import load_batches, prepare, unpack
from rendering import quaternion
from rendering.camera import project
from rendering.mesh_template import MeshTemplate
from utils import distributed
from utils.cli import UserError
from utils.progress import progress
from utils.run_directory import configure_logging
from utils.threads import one_torch_thread

LARGEST_SUPPORT = 100  # images that the semantic template of a mesh template is made of
LEAST_SIDE_VIEW = 0.8  # complementary score; the paper's 0.5 lets more turned round images in
LEAST_SUPPORT = 10  # images that the first semantic template is made of, if there are so many
DISCARDED_SHARE = 0.1
REFINED = 4  # hypotheses of an image that are refined

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SemanticsConfig:
    """Options of pose_optimization_step2.py, described there."""

    dataset: str
    mode: str
    mesh_path: str
    batch_size: int
    image_resolution: int
    symmetric: bool
    num_workers: int
    semantic_rounds: int
    refine_steps: int
    v_agr_threshold: float
    gpu_ids: tuple[int | str, ...] | None
    seed: int
    rasterizer: str


class Candidates(NamedTuple):
    """Hypotheses of N images, and how well they fit.

    Attributes:
        parameters: (N, H, 8) poses.
        choice: (N, H) template of each.
        iou: (N, H) overlap of the masks.
        miou: (N, H) mean overlap of the parts; that of the masks before parts are known.
    """

    parameters: Tensor
    choice: Tensor
    iou: Tensor
    miou: Tensor

    def select(self, index: Any) -> "Candidates":
        """Returns the hypotheses at an index of the leading axes."""
        return Candidates(*(member[index] for member in self))

    def best(self) -> "Candidates":
        """Returns the hypothesis of the highest mIoU of each image, members without H."""
        index = self.miou.argmax(dim=1)
        return self.select((torch.arange(len(index)), index))

    def spread(self) -> Tensor:
        """Returns the agreement score (N,) of the hypotheses; see `pose_report.agreement`."""
        return agreement(self.miou, self.parameters[..., :4])


@one_torch_thread()
def estimate_poses(device: torch.device, config: SemanticsConfig) -> None:
    """Chooses the pose of every image, drops doubtful images, and writes the others.

    Args:
        device: where this process computes.
        config: options of the stage.
    """
    configure_logging()
    prepare(config.rasterizer, config.mesh_path)
    detections = load_detections(config.dataset)
    templates = artifacts.load_templates(detections.category, config.mode).to(device)
    hypotheses = artifacts.load_hypotheses(config.dataset, config.mode, detections.fingerprint)
    candidates = to_candidates(hypotheses, len(templates))
    photographs = Photographs(config, detections, device)
    if bare := photographs.count_without_parts():
        logger.info("%d images show no part: their poses are chosen by the mask alone", bare)
    mesh = MeshTemplate().to(device)
    rows = side_views(candidates, config.v_agr_threshold)
    model = SemanticModel(templates, templates.new_zeros(0), mesh.faces)  # parts unknown yet
    for number in range(config.semantic_rounds):
        sums = collect_parts(candidates, rows, model, photographs)
        model = model._replace(probabilities=normalize_parts(sums, mesh, config.symmetric))
        candidates = improve(candidates, model, photographs, config.refine_steps)
        rows = accept(candidates, config.v_agr_threshold)
        overlap = candidates.best().miou.mean()
        logger.info("round %d: mIoU %.3f, %d images kept", number + 1, overlap, len(rows))
    if distributed.is_main():
        write(config, detections, photographs.part_names, model, candidates, rows)


def to_candidates(hypotheses: Hypotheses, num_templates: int) -> Candidates:
    """Takes the hypotheses of stage 1, whose parts have not been compared yet."""
    if hypotheses.template_weights.shape[2] != num_templates:
        got = hypotheses.template_weights.shape[2]
        raise UserError(
            f"The hypotheses of stage 1 were made with {got} templates, now there are "
            f"{num_templates}. Run pose_optimization_step1.py again."
        )
    pose = hypotheses.pose
    parameters = torch.cat([pose.rotation, pose.scale, pose.translation, pose.z0], dim=2)
    choice = hypotheses.template_weights.argmax(dim=2)
    return Candidates(parameters, choice, hypotheses.iou, hypotheses.iou)


def side_views(candidates: Candidates, threshold: float) -> Tensor:
    """Rows of the images whose poses are to be trusted before the parts have been compared.

    An object that faces the viewer has the silhouette of one that faces away by the same angle, so
    only poses near the exact side view are sure. Images of which the hypotheses disagree come in
    only if there are no others.
    """
    best = candidates.best()
    confident = (candidates.spread() < threshold).nonzero()[:, 0]
    if len(confident) == 0:
        logger.warning("in no image the hypotheses agree: all images make the semantic template")
        return torch.arange(len(best.miou))
    score = quaternion.complementary_score(best.parameters[confident, :4])
    order = score.argsort(descending=True, stable=True)
    return confident[order[: max(LEAST_SUPPORT, int((score > LEAST_SIDE_VIEW).sum()))]]


def accept(candidates: Candidates, threshold: float) -> Tensor:
    """Rows of the images whose hypotheses agree and whose parts fit better than the worst tenth's."""
    overlap = candidates.best().miou
    discarded = int(DISCARDED_SHARE * len(overlap))
    least = overlap.kthvalue(discarded).values if discarded else -torch.inf
    return ((candidates.spread() < threshold) & (overlap > least)).nonzero()[:, 0]


def collect_parts(
    candidates: Candidates, rows: Tensor, model: SemanticModel, photographs: "Photographs"
) -> Tensor:
    """Sums the part maps of the given images on the vertices of the templates they chose.

    At most 100 images a template count, those that fit best. Every process does all of it, so that
    the result does not depend on their number.

    Returns:
        (T, V, K + 1) sums.
    """
    templates = model.templates
    best = candidates.best().select(rows)
    order = best.miou.argsort(descending=True, stable=True)
    users = (order[best.choice[order] == template] for template in range(len(templates)))
    index = torch.cat([rows[:LARGEST_SUPPORT] for rows in users])
    sums = templates.new_zeros(*templates.shape[:2], len(photographs.part_names) + 1)
    for at, targets in photographs.batches(rows[index].tolist()):
        chosen = best.select(index[at])
        choice = chosen.choice.to(templates.device)
        screen = project(templates[choice], unpack(chosen.parameters.to(templates.device)))
        for template, part in zip(
            choice, splat_parts(screen, model.faces, targets.parts), strict=True
        ):
            sums[template] += part
    return sums


def improve(
    candidates: Candidates, model: SemanticModel, photographs: "Photographs", steps: int
) -> Candidates:
    """Compares the parts of all hypotheses, and refines the best of each image.

    Args:
        candidates: hypotheses of all N images.
        model: templates with part probabilities.
        photographs: what they are compared with.
        steps: of the refinement; 0 moves no pose.

    Returns:
        The hypotheses, REFINED of each image moved, with their overlaps.
    """
    shard = torch.tensor(distributed.shard(len(candidates.iou)))
    done: list[Candidates] = []
    with progress(total=len(shard), description="comparing parts") as bar:
        for at, targets in photographs.batches(shard.tolist()):
            some = candidates.select(shard[at])
            done.append(_improve_batch(some, model, targets, steps))
            bar.update(len(at))
    return _join([part for parts in distributed.gather(done) for part in parts])


def _improve_batch(
    candidates: Candidates, model: SemanticModel, targets: Targets, steps: int
) -> Candidates:
    """Does the work of `improve` for the candidates (n, H) of n images."""
    half = targets.resized(targets.masks.shape[-1] // 2)
    candidates = _compare_all(candidates, model, half)
    if steps == 0:
        return candidates
    index = candidates.miou.argsort(dim=1, descending=True, stable=True)[:, :REFINED]
    rows = torch.arange(len(index))[:, None]
    best = candidates.select((rows, index))
    owner = rows.expand_as(index).flatten().to(half.masks.device)
    moved = refine(
        model,
        best.parameters.flatten(0, 1).to(half.masks.device),
        best.choice.flatten().to(half.masks.device),
        targets.resized(targets.masks.shape[-1] // 4).select(owner),
        steps,
    )
    best = best._replace(parameters=moved.cpu().reshape(best.parameters.shape))
    best = _compare_all(best, model, half)
    for whole, part in zip(candidates, best, strict=True):
        whole[rows, index] = part
    return candidates


def _compare_all(candidates: Candidates, model: SemanticModel, targets: Targets) -> Candidates:
    """Compares every hypothesis (n, H) with the target of its image, image by image."""
    device = targets.masks.device
    overlaps = [
        compare(
            model,
            unpack(parameters.to(device)),
            choice.to(device),
            targets.select(slice(i, i + 1)),
        )
        for i, (parameters, choice) in enumerate(
            zip(candidates.parameters, candidates.choice, strict=True)
        )
    ]
    iou, miou = (torch.stack(values).cpu() for values in zip(*overlaps, strict=True))
    return candidates._replace(iou=iou, miou=miou)


def _join(parts: list[Candidates]) -> Candidates:
    return Candidates(*(torch.cat(members) for members in zip(*parts, strict=True)))


def write(
    config: SemanticsConfig,
    detections: Detections,
    part_names: list[str],
    model: SemanticModel,
    candidates: Candidates,
    rows: Tensor,
) -> None:
    """Writes the poses of the kept rows, the semantic template and the figures of the stage."""
    best = candidates.best()
    kept = best.select(rows)
    weights = functional.one_hot(kept.choice, len(model.templates)).float()
    poses = EstimatedPoses(
        rows, unpack(kept.parameters), weights, kept.iou[:, None], kept.miou[:, None]
    )
    template = SemanticTemplate(model.probabilities, part_names)
    key = (config.dataset, config.mode)
    artifacts.save_semantic_template(*key, template, detections.fingerprint)
    artifacts.save_estimated_poses(*key, poses, detections.fingerprint)
    figures = {"mean_iou": kept.iou.mean().item(), "mean_miou": kept.miou.mean().item()}
    pose_report.report(
        detections, "step2", config.mode, figures, unpack(best.parameters).rotation, rows
    )


class Photographs:
    """Masks and part maps of a dataset, read again in every round.

    Attributes:
        part_names: the K frequent parts.
    """

    def __init__(
        self, config: SemanticsConfig, detections: Detections, device: torch.device
    ) -> None:
        """Reads nothing yet."""
        self.part_names = part_vocabulary(detections)
        self._config, self._detections, self._device = config, detections, device

    def count_without_parts(self) -> int:
        """Returns the number of images that show none of the frequent parts."""
        names = set(self.part_names)
        return sum(
            names.isdisjoint(part.name for part in item.parts) for item in self._detections.items
        )

    def batches(self, rows: Sequence[int]) -> Iterator[tuple[Tensor, Targets]]:
        """Yields positions in `rows` (n,) and the targets there."""
        config = self._config
        dataset = ObjectImages(
            self._detections,
            config.image_resolution,
            rows=rows,
            parts="scores",
            part_names=self.part_names,
            cache=False,
        )
        for item in load_batches(dataset, config.batch_size, config.num_workers):
            masks, parts = item.image[:, 3], item.parts[:, 1:]
            yield item.index, Targets(masks.to(self._device), parts.to(self._device))
