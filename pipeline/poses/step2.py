"""Stage 2: chooses among the pose hypotheses by parts, colors, features and what is usual for the category.

Reads the detections, the templates and the hypotheses of stage 1; writes poses_estimated_<mode>.bin
and semantic_template_<mode>.bin. Section 3.2 of https://arxiv.org/abs/2103.15627 compares parts once
and moves no pose. Here each round makes the semantic template anew from the more confident poses, and
refines the best candidates against silhouette and parts, or colors where there are no part maps; one
that is refined stays where it is the better one.

The shapes of the objects are learned last, from the poses that were chosen, and change none of them.

The score of a candidate is a log-probability: that of its overlap with parts, or with the mask where
there are none, plus that of its colors and features, which agree over the collection, plus that of its
view, all divided by one temperature; frames of clips add what their neighbors say. What has been
measured lies on disk, in cache/<dataset>/.step2_<mode>/, until the stage is complete.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data.cache import folders, pose_files, template_files
from data.cache.pose_files import EstimatedPoses, FittedShapes, SemanticTemplate
from data.cache.storage import save_arrays
from data.crops import part_vocabulary
from data.definitions import ViewPrior
from data.detections import Detections, detections_path, load_detections, published_path
from geometry.camera import from_vector
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import contact_sheet, part_discovery, report
from pipeline.poses.candidates import (
    Candidates,
    Scored,
    accept,
    rank,
    side_views,
    with_complements,
    without_duplicates,
)
from pipeline.poses.evidence import appearance, calibration, clips, outlines
from pipeline.poses.evidence.appearance import Appearance
from pipeline.poses.evidence.interface import Evidence, Guide
from pipeline.poses.evidence.measurements import Measurements
from pipeline.poses.evidence.networks import choose_backbone, choose_network
from pipeline.poses.evidence.outlines import Outlines
from pipeline.poses.evidence.parts import (
    FoundParts,
    GivenParts,
    PartEvidence,
    PartSource,
    collect_parts,
    shows_parts,
)
from pipeline.poses.evidence.pictures import ColorPicture, feature_picture
from pipeline.poses.options import CollectionOptions, Step2Options
from pipeline.poses.photographs import Reader
from pipeline.poses.refinement import Refinement
from pipeline.poses.semantic_template import SemanticModel, normalize_parts
from pipeline.poses.shapes.collection import ShapeFit, collect_shapes, learn_families
from pipeline.poses.survey import Survey
from pipeline.poses.view_prior import log_prior
from rendering import rasterizer
from utils import distributed
from utils.digests import file_digest
from utils.row_files import digest, open_folder
from utils.run_directory import configure_logging
from utils.threads import one_torch_thread

CONFIDENT_SHARE = 0.5  # of the images: parts are learned from them
PRIOR_WEIGHT = 0.5  # less than 1, since the poses were fitted under the prior
COLOR_WEIGHT = 0.5  # of colors beside features, which see them too
UV_SIZE = 128  # texels of exported part maps

logger = logging.getLogger(__name__)


@one_torch_thread()
def estimate_poses(device: torch.device, options: Step2Options) -> None:
    """Chooses the pose of every image, drops doubtful images, and writes the others.

    Continues an interrupted run of the same options.

    Args:
        device: where this process computes.
        options: of the stage.
    """
    configure_logging()
    rasterizer.set_backend(options.compute.rasterizer)
    stage = Stage(device, options)
    chosen = stage.choose()
    if distributed.is_main():
        write(options, stage.detections, chosen)
        if options.output.visualize:
            visualize(options.collection, stage.reader, chosen)
        shutil.rmtree(stage.folder)
    distributed.barrier()


class Chosen(NamedTuple):
    """Result of the stage.

    Attributes:
        scored: candidates of all N images.
        rows: (K,) images that are kept.
        model: templates with part probabilities.
        part_names: the parts behind them.
        shapes: of all N images, in modes of unit spread over those that are kept; None if not wanted.
    """

    scored: Scored
    rows: Tensor
    model: SemanticModel
    part_names: Sequence[str]
    shapes: FittedShapes | None


class Stage:
    """What the choice of poses works with.

    Attributes:
        detections: the N objects.
        reader: of their photographs.
        folder: of the tables of measurements.
    """

    def __init__(self, device: torch.device, options: Step2Options) -> None:
        """Reads everything but the photographs, so that mistakes show before work begins."""
        collection, choice = options.collection, options.choice
        key = (collection.dataset, collection.mode)
        self.detections = detections = load_detections(collection.dataset)
        report.check(detections)
        templates = template_files.templates_of(detections, collection.mode)
        hypotheses = pose_files.load_hypotheses(*key, pose_files.origin_of(detections, templates))
        self._candidates, self._iou = with_complements(hypotheses, len(templates))
        self._prior = folders.record_of(collection.dataset, detections.category).views
        self._backbone = choose_backbone(choice.parts_features)
        # Photographs, with part maps where those are asked for
        names = part_vocabulary(detections) if choice.parts_source == "maps" else []
        self._given = GivenParts(names, shows_parts(detections, names)) if names else None
        self.reader = Reader(detections, collection, options.compute, names, device)
        # Templates and evidence
        self._mesh = SphereMesh().to(device)
        blank = templates.new_ones(*templates.shape[:2], 1).to(device)
        self._blank = SemanticModel(templates.to(device), blank, self._mesh.faces)
        self._outlines = Outlines(self._blank.templates, self._mesh.faces)
        self._network = choose_network(choice.features)
        self._appearances: list[Appearance] = []
        self._options, self._device = options, device
        photographs = [item.image_path for item in detections.items]
        self._clips = clips.find_clips(photographs) if choice.clips else []
        paths = (detections_path(collection.dataset), published_path(collection.dataset))
        settings = {
            "detections": [file_digest(path) for path in paths if path.exists()],
            "options": [asdict(collection), asdict(choice), asdict(options.parts), self._prior],
            "network": None if self._network is None else self._network.digest,
            "inputs": digest(templates, *hypotheses.pose, *hypotheses[1:]),
        }
        folder = folders.cache_folder(collection.dataset) / f".step2_{collection.mode}"
        self.folder = folder
        self._survey = Survey(self.reader, open_folder(folder, settings), len(detections))

    def choose(self) -> Chosen:
        """Chooses poses in rounds: make the semantic template, compare, refine, compare again."""
        choice, candidates, model = self._options.choice, self._candidates, self._blank
        self._appearances = self._paint()
        kinds: list[Evidence] = [self._outlines, *self._appearances]
        table = self._survey.measure("outlines", kinds, candidates)
        measured = Measurements(len(self.detections)).add(table)
        parts, scored, trusted = self._begin(measured)
        for number in range(1, choice.semantic_rounds + 1):
            guides: list[tuple[Guide, Tensor]] = []
            if parts is not None:
                # Make the semantic template of the trusted poses, and compare parts with it
                sums = collect_parts(parts, model, self.reader, scored.best(), trusted)
                probabilities = normalize_parts(sums, self._mesh, choice.symmetric)
                model = model._replace(probabilities=probabilities)
                shown = PartEvidence(parts, model)
                table = self._survey.measure(f"parts_{number}", [shown], candidates)
                measured = measured.add(table)
                scored = self._judge(candidates, measured, scored.alive, parts)
                kinds = [self._outlines, *self._appearances, shown]
                guides = [(shown, parts.speaks)] if parts.guides else []
            if choice.refine_steps > 0:
                # Move the best candidates, and compare them again
                guide = self._appearances[0].guide(measured, scored.score)
                guides.append((guide, torch.ones(len(self.detections), dtype=torch.bool)))
                model_refinement = Refinement(
                    model.templates, model.faces, self._prior, choice.refine_steps
                )
                table, index, moved = self._survey.refine(
                    f"refined_{number}", model_refinement, scored, guides, kinds
                )
                measured, candidates = measured.extend(table), candidates.extend(moved)
                alive = torch.cat([scored.alive, scored.alive.gather(1, index)], dim=1)
                scored = self._judge(candidates, measured, alive, parts).accept_moves(index)
            if parts is not None:
                trusted = confident_rows(scored, parts.speaks)
            logger.info("round %d: overlap %.3f", number, scored.best().overlap.mean())
        rows = accept(scored, choice.keep_share, choice.v_agr_threshold)
        shapes = self._fit_shapes(scored, rows) if choice.shape_modes else None
        return Chosen(scored, rows, model, [] if parts is None else parts.names, shapes)

    def _fit_shapes(self, scored: Scored, rows: Tensor) -> FittedShapes:
        """Learns modes of shape from the chosen poses, and fits them to all images."""
        best, templates = scored.best().candidates, self._blank.templates
        learned = (templates, self._mesh, best, scored.confidence())
        families = learn_families(self.reader, *learned, self._options.choice.shape_modes)
        fit = ShapeFit(families, best)
        table = self._survey.run("shapes", fit.columns, fit.measure)
        return collect_shapes(families, templates, best.choice, table, rows)

    def _paint(self) -> list[Appearance]:
        """Returns what photographs are compared by beside masks and parts: colors, and features."""
        surface = self._blank.templates, self._mesh
        if self._network is None:
            return [Appearance(ColorPicture(), *surface)]
        features = feature_picture(self._network, self.detections, self._device)
        return [Appearance(ColorPicture(), *surface, COLOR_WEIGHT), Appearance(features, *surface)]

    def _judge(
        self,
        candidates: Candidates,
        measured: Measurements,
        alive: Tensor,
        parts: PartSource | None = None,
    ) -> Scored:
        """Adds up what prior, parts or outlines, and colors say; every process does the same.

        What is no longer alive (N, H), such as near duplicates, stays out, wherever the others move.
        """
        # Parts, or masks where none are shown
        iou = measured.read("iou")
        shape = outlines.judge(iou)
        if parts is not None:
            shape = parts.judge(measured.read("parts"), iou).or_else(shape)
        score = prior_support(candidates, self._prior) + shape.support()
        score = score.masked_fill(~alive, -torch.inf)
        # Colors, given all that
        known = without_duplicates(score, candidates)
        sources = [kind.source(measured) for kind in self._appearances]
        # Poses of one outline are told apart by parts; without any, by what other sides show
        rotation = candidates.pose.rotation
        sides = appearance.sides_of(rotation) if self._given is None else None
        seen = appearance.judge(sources, known, sides).support()
        # As sure as both have a right to be
        score = (score + seen) / calibration.temperature(known, seen, candidates)
        # Frames before and after
        if self._clips:
            score = without_duplicates(score, candidates)
            score = clips.join_frames(score, rotation, self._clips)
        return rank(candidates, score, iou, shape.value)

    def _begin(self, measured: Measurements) -> tuple[PartSource | None, Scored, Tensor]:
        """Returns parts, if there are any, first scores, and the images that are trusted by them."""
        given = self._given
        everything = torch.ones_like(self._candidates.choice, dtype=torch.bool)
        scored = self._judge(self._candidates, measured, everything)
        if given is not None:
            if not given.speaks.all():
                count = int((~given.speaks).sum())
                logger.info("%d images show no part: masks and colors speak for them", count)
            return given, scored, side_views(scored, given.speaks)
        logger.info("no part maps: poses are chosen by colors and the prior of the category")
        rows = confident_rows(scored, torch.ones(len(scored.score), dtype=torch.bool))
        if self._options.choice.parts_source != "learned":
            return None, scored, rows
        # Poses that are probably right train the network
        best = scored.best().candidates.select(rows)
        confident = part_discovery.ConfidentSet(rows, best.pose, best.choice)
        learned = part_discovery.learn_parts(
            self._options.parts,
            self.detections,
            confident,
            self._blank,
            self._backbone,
            self._device,
        )
        return FoundParts(learned), scored, rows


def confident_rows(scored: Scored, usable: Tensor) -> Tensor:
    """Returns the rows of the usable images (N,) from which parts are learned, the more confident half."""
    order = scored.doubt().masked_fill(~usable, torch.inf).argsort(stable=True)
    return order[: max(1, round(CONFIDENT_SHARE * int(usable.sum())))].sort().values


def prior_support(candidates: Candidates, prior: ViewPrior) -> Tensor:
    """Returns what the prior of the category adds to the scores (N, H) of candidates."""
    return PRIOR_WEIGHT * log_prior(candidates.pose.rotation, prior)


def write(options: Step2Options, detections: Detections, chosen: Chosen) -> None:
    """Writes the poses that are kept, the semantic template and the figures of the stage."""
    best, confidence = chosen.scored.best(), chosen.scored.confidence()
    # Poses of the images that are kept
    kept, model = best.select(chosen.rows), chosen.model
    poses = EstimatedPoses(
        indices=chosen.rows,
        pose=kept.candidates.pose,
        template_weights=functional.one_hot(kept.candidates.choice, len(model.templates)).float(),
        iou=kept.iou[:, None],
        miou=kept.overlap[:, None],
        confidence=confidence[chosen.rows, None],
        shapes=None if chosen.shapes is None else chosen.shapes.select(chosen.rows),
    )
    # The template of the last round
    template = SemanticTemplate(model.probabilities, list(chosen.part_names))
    collection = options.collection
    key = (collection.dataset, collection.mode)
    origin = pose_files.origin_of(detections, model.templates)
    pose_files.save_semantic_template(*key, template, origin)
    pose_files.save_estimated_poses(*key, poses, origin)
    if options.output.export_semantic_template:
        export_semantic_template(collection, template, model)
    # How well they fit, and how good they are
    figures = {
        "mean_iou": kept.iou.mean().item(),
        "mean_miou": kept.overlap.mean().item(),
        "mean_confidence": confidence.mean().item(),
    }
    if poses.shapes is not None:
        figures["mean_shape_iou"] = poses.shapes.iou.mean().item()
    rotation = best.candidates.pose.rotation
    report.report(detections, "step2", collection.mode, figures, rotation, chosen.rows)
    scored = chosen.scored
    overlap = scored.iou.amax(dim=1).mean().item()
    fit = report.verdict(overlap, scored.conflict(), figures["mean_confidence"])
    if poses.shapes is not None:
        fit += f"; shapes fitted to them overlap by {poses.shapes.iou.mean().item():.2f}"
    words = (len(kept.score), len(detections), 100 * confidence[chosen.rows].mean().item(), fit)
    logger.info("step 2: %d of %d poses kept, right with a probability of %.0f %%; %s", *words)


def export_semantic_template(
    collection: CollectionOptions, template: SemanticTemplate, model: SemanticModel
) -> None:
    """Writes templates and the parts of their vertices and texels as plain arrays to output/."""
    maps = SphereMesh().vertex_map(template.probabilities.cpu(), UV_SIZE)
    arrays = {
        "vertices": model.templates.cpu().numpy(),
        "faces": model.faces.cpu().numpy(),
        "probabilities": template.probabilities.cpu().numpy(),
        "labels": template.probabilities.argmax(dim=-1).cpu().numpy(),
        "probabilities_uv": maps.numpy(),
        "labels_uv": maps.argmax(dim=1).to(torch.uint8).numpy(),
        "part_names": np.array(["none", *template.part_names]),
    }
    name = f"{collection.dataset}_semantic_template_{collection.mode}.npz"
    path = contact_sheet.OUTPUT_FOLDER / name
    save_arrays(path, arrays)
    logger.info("%s: the semantic template", path)


def visualize(collection: CollectionOptions, reader: Reader, chosen: Chosen) -> None:
    """Writes pictures of the chosen poses to output/."""
    best, confidence = chosen.scored.best().candidates, chosen.scored.confidence()
    rows = contact_sheet.shown_rows(confidence)
    images = torch.cat([some.images for some in reader.batches(rows.tolist())])
    shown, model = best.select(rows).to(images.device), chosen.model
    # With shapes, every image has a mesh of its own
    if chosen.shapes is not None:
        fitted = chosen.shapes.select(rows).to(images.device)
        pose, each = from_vector(fitted.vectors), torch.arange(len(rows))
        vertices = fitted.deform(model.templates, shown.choice)
        model = model._replace(templates=vertices, probabilities=model.probabilities[shown.choice])
        shown = Candidates(pose, each)
    fits = contact_sheet.Fits(images, shown.pose, shown.choice, confidence[rows])
    name = f"{collection.dataset}_poses_{collection.mode}"
    contact_sheet.save_pictures(name, fits, model, best.pose.rotation)
