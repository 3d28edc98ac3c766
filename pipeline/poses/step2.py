"""Stage 2: chooses among the pose hypotheses by parts, colors and what is usual for the category.

Reads the detections, the templates and the hypotheses of stage 1; writes poses_estimated_<mode>.bin
and semantic_template_<mode>.bin. Section 3.2 of https://arxiv.org/abs/2103.15627 compares parts
once and moves no pose. Here each round makes the semantic template anew from the better poses, and
refines the best hypotheses against silhouette and parts; colors that agree over the collection and
the prior of the category add to the score. Where there are no part maps, they decide alone.
"""

import logging
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data.cache import pose_files, template_files
from data.cache.pose_files import EstimatedPoses, SemanticTemplate
from data.cache.storage import save_arrays
from data.definitions import VIEW_PRIORS, ViewPrior
from data.detections import Detections, load_detections
from geometry.camera import project
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import appearance, contact_sheet, part_discovery, report
from pipeline.poses.appearance import Textures
from pipeline.poses.candidates import Candidates, accept, side_views, to_candidates, weigh
from pipeline.poses.fitting import unpack
from pipeline.poses.part_model import (
    SemanticModel,
    Targets,
    compare,
    normalize_parts,
    refine,
    splat_parts,
)
from pipeline.poses.step1 import prepare
from pipeline.poses.step2_config import SemanticsConfig as SemanticsConfig
from pipeline.poses.targets import Photographs
from pipeline.poses.view_prior import log_prior
from utils import distributed
from utils.progress import progress
from utils.run_directory import configure_logging
from utils.threads import one_torch_thread

LARGEST_SUPPORT = 100  # images that the semantic template of a mesh template is made of
REFINED = 4  # hypotheses of an image that are refined
PAINTED_SIZE = 64  # pixels of the photographs that are painted onto the templates

logger = logging.getLogger(__name__)


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
    templates = template_files.load_templates(detections.category, config.mode).to(device)
    origin = pose_files.origin_of(detections, templates)
    hypotheses = pose_files.load_hypotheses(config.dataset, config.mode, origin)
    prior = VIEW_PRIORS[detections.category]
    candidates = to_candidates(hypotheses, len(templates), prior)
    photographs = Photographs(config, detections, device)
    mesh = SphereMesh().to(device)
    rows = side_views(candidates)
    model = SemanticModel(templates, templates.new_ones(*templates.shape[:2], 1), mesh.faces)
    colors = None
    if not photographs.part_names:
        # Colors alone find out whose poses can be trusted
        candidates, textures = improve(candidates, model, photographs, prior, None, steps=0)
        candidates = weigh(candidates, textures, config.parts_source == "maps")
        colors = appearance.expected_colors(textures, candidates.score())
        if config.parts_source == "learned":
            rows = accept(candidates, part_discovery.TEACHING_SHARE, threshold=None)
            photographs.learn(candidates, rows, model)
    for number in range(config.semantic_rounds):
        if photographs.part_names:
            sums = collect_parts(candidates, rows, model, photographs)
            model = model._replace(probabilities=normalize_parts(sums, mesh, config.symmetric))
        steps = config.refine_steps
        candidates, textures = improve(candidates, model, photographs, prior, colors, steps)
        candidates = weigh(candidates, textures, config.parts_source == "maps")
        if colors is not None:
            colors = appearance.expected_colors(textures, candidates.score())
        rows = accept(candidates, config.keep_share, config.v_agr_threshold)
        overlap = candidates.best().miou.mean()
        logger.info("round %d: overlap %.3f, %d images kept", number + 1, overlap, len(rows))
    if distributed.is_main():
        write(config, detections, photographs.part_names, model, candidates, rows)
        if config.visualize:
            visualize(config, photographs, model, candidates)


def collect_parts(
    candidates: Candidates, rows: Tensor, model: SemanticModel, photographs: Photographs
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
    for at, _, targets in photographs.batches(rows[index].tolist()):
        chosen = best.select(index[at])
        choice = chosen.choice.to(templates.device)
        screen = project(templates[choice], unpack(chosen.parameters.to(templates.device)))
        for template, part in zip(
            choice, splat_parts(screen, model.faces, targets.parts), strict=True
        ):
            sums[template] += part
    return sums


def improve(
    candidates: Candidates,
    model: SemanticModel,
    photographs: Photographs,
    prior: ViewPrior,
    colors: Tensor | None,
    steps: int,
) -> tuple[Candidates, Textures]:
    """Compares the parts of all hypotheses, refines the best of each image, and paints them all.

    Args:
        candidates: hypotheses of all N images.
        model: templates with part probabilities.
        photographs: what they are compared with.
        prior: of the category.
        colors: (N, H, C, 3) to refine against; None for the parts.
        steps: of the refinement; 0 moves no pose.

    Returns:
        The hypotheses, REFINED of each image moved, with their overlaps; their textures (N, H, ...).
    """
    shard = torch.tensor(distributed.shard(len(candidates.iou)))
    cells = appearance.surface_cells(SphereMesh())
    done: list[tuple[Candidates, Textures]] = []
    with progress(total=len(shard), description="comparing") as bar:
        for at, images, targets in photographs.batches(shard.tolist()):
            some = candidates.select(shard[at])
            guide = Guide(model, targets, prior)
            if colors is not None:
                painted = colors[shard[at]].to(images.device)[:, :, cells]
                guide = Guide(model, Targets(targets.masks, images[:, :3]), prior, painted)
            some = _improve_batch(some, model, targets, guide, steps)
            some = some._replace(prior=log_prior(some.parameters[..., :4], prior))
            done.append((some, paint(some, images, model, cells)))
            bar.update(len(at))
    parts = [part for parts in distributed.gather(done) for part in parts]
    found, textures = zip(*parts, strict=True)
    return (
        Candidates(*map(torch.cat, zip(*found, strict=True))),
        Textures(*map(torch.cat, zip(*textures, strict=True))),
    )


class Guide(NamedTuple):
    """What poses are refined against: parts, or colors.

    Attributes:
        model: templates with part probabilities.
        targets: N masks, and part maps or colors in their place.
        prior: what is expected of the rotations.
        colors: (N, H, V, 3) expected colors of the vertices in their place; None for the parts.
    """

    model: SemanticModel
    targets: Targets
    prior: ViewPrior
    colors: Tensor | None = None

    def refine(self, parameters: Tensor, choice: Tensor, index: Tensor, steps: int) -> Tensor:
        """Returns moved poses (N, R, 8) of the hypotheses `index` (N, R)."""
        device = self.targets.masks.device
        image = torch.arange(len(index), device=device)[:, None].expand_as(index).flatten()
        model, choice = self.model, choice.flatten().to(device)
        if self.colors is not None:
            colors = self.colors[image, index.flatten().to(device)]
            model = SemanticModel(model.templates[choice], colors, model.faces)
            choice = torch.arange(len(choice), device=device)
        small = self.targets.resized(self.targets.masks.shape[-1] // 4).select(image)
        moved = refine(model, parameters.flatten(0, 1).to(device), choice, small, self.prior, steps)
        return moved.cpu().reshape(parameters.shape)


def paint(candidates: Candidates, images: Tensor, model: SemanticModel, cells: Tensor) -> Textures:
    """Returns the textures (n, H, ...) that the hypotheses of n images (n, 4, h, w) paint."""
    size = (PAINTED_SIZE, PAINTED_SIZE)
    small = functional.interpolate(images, size, mode="bilinear", antialias=True)
    textures = []
    for image, parameters, choice in zip(
        small, candidates.parameters, candidates.choice, strict=True
    ):
        screen = project(model.templates[choice], unpack(parameters.to(image.device)))
        sums = splat_parts(screen, model.faces, image.expand(len(screen), -1, -1, -1))
        textures.append(appearance.to_textures(sums.cpu(), cells))
    return Textures(*(torch.stack(x) for x in zip(*textures, strict=True)))


def _improve_batch(
    candidates: Candidates, model: SemanticModel, targets: Targets, guide: Guide, steps: int
) -> Candidates:
    """Does the work of `improve` for the candidates (n, H) of n images."""
    half = targets.resized(targets.masks.shape[-1] // 2)
    candidates = _compare_all(candidates, model, half)
    if steps == 0:
        return candidates
    index = candidates.score().argsort(dim=1, descending=True, stable=True)[:, :REFINED]
    rows = torch.arange(len(index))[:, None]
    best = candidates.select((rows, index))
    best = best._replace(parameters=guide.refine(best.parameters, best.choice, index, steps))
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
    confidence = candidates.confidence()
    poses = EstimatedPoses(
        indices=rows,
        pose=unpack(kept.parameters),
        template_weights=weights,
        iou=kept.iou[:, None],
        miou=kept.miou[:, None],
        confidence=confidence[rows, None],
    )
    template = SemanticTemplate(model.probabilities, part_names)
    key = (config.dataset, config.mode)
    origin = pose_files.origin_of(detections, model.templates)
    pose_files.save_semantic_template(*key, template, origin)
    pose_files.save_estimated_poses(*key, poses, origin)
    if config.export_semantic_template:
        export_semantic_template(config, template, model)
    figures = {
        "mean_iou": kept.iou.mean().item(),
        "mean_miou": kept.miou.mean().item(),
        "mean_confidence": confidence.mean().item(),
    }
    report.report(detections, "step2", config.mode, figures, unpack(best.parameters).rotation, rows)


def export_semantic_template(
    config: SemanticsConfig, template: SemanticTemplate, model: SemanticModel
) -> None:
    """Writes templates and the parts of their vertices as plain arrays to output/."""
    arrays = {
        "vertices": model.templates.cpu().numpy(),
        "faces": model.faces.cpu().numpy(),
        "probabilities": template.probabilities.cpu().numpy(),
        "labels": template.probabilities.argmax(dim=-1).cpu().numpy(),
        "part_names": np.array(["none", *template.part_names]),
    }
    path = contact_sheet.OUTPUT_FOLDER / f"{config.dataset}_semantic_template_{config.mode}.npz"
    save_arrays(path, arrays)
    logger.info("%s: the semantic template", path)


def visualize(
    config: SemanticsConfig,
    photographs: Photographs,
    model: SemanticModel,
    candidates: Candidates,
) -> None:
    """Writes pictures of the chosen poses to output/."""
    best, confidence = candidates.best(), candidates.confidence()
    rows = contact_sheet.shown_rows(confidence)
    images = torch.cat([image for _, image, _ in photographs.batches(rows.tolist())])
    fits = contact_sheet.Fits(
        images=images,
        pose=unpack(best.parameters[rows].to(images)),
        choice=best.choice[rows].to(images.device),
        confidence=confidence[rows],
    )
    name = f"{config.dataset}_poses_{config.mode}"
    contact_sheet.save_pictures(name, fits, model, unpack(best.parameters).rotation)
