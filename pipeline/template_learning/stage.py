"""Stage 0 without modeled meshes: learns the templates of a category from the masks of a collection.

Reads the detections of a dataset, writes cache/own_templates/<mode>/<category>_templates.pth and an
.obj beside it, a picture with the axes in output/, and every round in cache/<dataset>/.
"""

import hashlib
import logging
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor

from data.cache.folders import cache_folder, record_of
from data.cache.template_files import save_templates
from data.crops import ObjectImages
from data.definitions import VIEWS, ViewPrior
from data.detections import Detections, load_detections
from geometry.mesh_files import object_axes, save_meshes
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.contour_search import signatures
from pipeline.template_learning.alternation import Evidence, normalize
from pipeline.template_learning.learning import Learned, learn
from pipeline.template_learning.pictures import template_picture
from rendering.projection.terms import describe, make_term
from utils.cli import UserError
from utils.pictures import save_image
from utils.threads import one_torch_thread

MASK_SIZE, IMAGE_SIZE = 128, 64  # pixels
LEAST_IMAGES = 20
LARGEST_PIECE = 0.2  # of the object: a second piece above that is a second object
LEAST_VARIETY = 0.02  # mean squared distance of the signatures of two masks, or their mirror images
LOW_OVERLAP = 0.7
PICTURES = Path("output")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Options of learning; `remesh.py` describes them and holds the defaults."""

    mode: str
    classes: tuple[str, ...]
    from_photographs: str
    num_templates: int
    views: str | None
    colors: bool
    up: str | None
    front: str | None
    mirror: bool
    seed: int
    silhouette: str
    point_grid: int


@one_torch_thread()
def run(device: torch.device, config: Config) -> None:
    """Learns, turns and saves the templates, in one process, on the CPU."""
    del device  # the search for poses has loops for the CPU alone
    # Everything that may be refused comes before the hours of learning
    detections = load_detections(config.from_photographs)
    category = check_category(config, detections)
    turn = frame(config)
    record = record_of(detections.dataset, category)
    prior = VIEWS[config.views] if config.views else record.views
    evidence = check(load_evidence(detections, prior, config.colors), detections.dataset)
    logger.info(
        "silhouettes: %s", describe(config.silhouette, config.point_grid, evidence.masks.device)
    )
    terms = partial(make_term, config.silhouette, size=config.point_grid)
    folder = _folder(config, detections, prior)
    learned = learn(evidence, config.num_templates, folder, config.seed, terms)
    # Turned to the axes that the user asked for
    templates = turned(learned.templates, turn)
    path = save_templates(category, config.mode, templates, own=True)
    save_meshes(path.with_suffix(".obj"), templates, SphereMesh().faces)
    # What to look at, and what to check
    picture = PICTURES / f"{config.from_photographs}_templates_{config.mode}.png"
    titles = [f"{category}{i + 1}" for i in range(len(templates))]
    save_image(picture, template_picture(templates, titles))
    report(category, learned, path, picture)
    if record.template_of != category:
        logger.warning(
            "%s still borrows the templates of %s: prepare it again without --template_of",
            detections.dataset,
            record.template_of,
        )


def check_category(config: Config, detections: Detections) -> str:
    """Returns the category; UserError if the photographs show another."""
    if config.classes != (detections.category,):
        raise UserError(
            f"--from_photographs {detections.dataset}: these show {detections.category}. "
            f"Say so: --classes {detections.category}"
        )
    return detections.category


def frame(config: Config) -> Tensor:
    """Returns the orthogonal matrix (3, 3) that takes the learned axes to those of object space."""
    # Turns keep the mirror plane, so that neither axis may be x
    axes = config.up or "z", config.front or "-y"
    if any("x" in axis for axis in axes):
        raise UserError(
            f"--up {axes[0]} --front {axes[1]}: left and right of learned templates lie on x. "
            "Expected y, -y, z or -z; the picture shows these axes."
        )
    turn = torch.from_numpy(object_axes(*axes)).float()
    return turn * torch.tensor([[1.0], [-1.0], [1.0]]) if config.mirror else turn


def turned(templates: Tensor, turn: Tensor) -> Tensor:
    """Turns templates (T, V, 3) by an orthogonal matrix (3, 3) that keeps the plane x = 0.

    Every vertex stays on its side of that plane, so that a turn may be a reflection within it.
    """
    mesh, moved = SphereMesh(), templates @ turn.T
    if torch.linalg.det(turn[1:, 1:]) < 0:
        # The vertices of the sphere are reflected too, or the surface would be inside out
        ends = torch.cat([mesh.grid.flatten(), mesh.poles])
        opposite = torch.cat([mesh.grid.flip(0).flatten(), mesh.poles.flip(0)])
        moved = moved[:, opposite[ends.argsort()]]
    return mesh.symmetrize(normalize(moved))


def load_evidence(detections: Detections, prior: ViewPrior, colors: bool) -> Evidence:
    """Reads masks (N, MASK_SIZE, MASK_SIZE) and, if wanted, small images of all photographs."""
    # Small images are averaged from the same crops, which are read once
    crops = ObjectImages(detections, MASK_SIZE, antialias=True)
    images = torch.stack([crops[i].image for i in range(len(crops))])
    small = torch.nn.functional.avg_pool2d(images, MASK_SIZE // IMAGE_SIZE)
    return Evidence(images[:, 3], small if colors else None, prior)


def check(evidence: Evidence, dataset: str) -> Evidence:
    """Returns the photographs that can be learned from.

    Raises:
        UserError: if they are too few, or all alike.
    """
    # Several objects in a mask would be learned as one shape
    single = torch.tensor([is_one_object(mask.numpy() > 0.5) for mask in evidence.masks])
    if not single.all():
        left_out = int((~single).sum())
        logger.warning("%d masks are empty or show several objects: left out", left_out)
    evidence = evidence.select(single.nonzero()[:, 0])
    count = len(evidence.masks)
    # Too few masks, or masks of a single view, leave the shape undetermined
    if count < LEAST_IMAGES:
        raise UserError(
            f"--from_photographs {dataset}: {count} usable masks are too few to learn a template "
            f"from, expected at least {LEAST_IMAGES}. Add photographs to datasets/{dataset}/."
        )
    found = variety(evidence.masks)
    if found < LEAST_VARIETY:
        raise UserError(
            f"--from_photographs {dataset}: all masks are nearly alike (variety {found:.3f}, "
            f"expected {LEAST_VARIETY} or more), so they show one view of the objects. "
            f"Add photographs from other sides to datasets/{dataset}/."
        )
    return evidence


def is_one_object(mask: np.ndarray) -> bool:
    """Whether a mask (h, w) has one large piece."""
    # Sizes of the pieces, the background aside
    labels, count = cast(tuple[np.ndarray, int], label(mask))
    pieces = np.sort(np.bincount(labels.ravel(), minlength=count + 1)[1:])
    return len(pieces) > 0 and (len(pieces) == 1 or pieces[-2] <= LARGEST_PIECE * pieces[-1])


def variety(masks: Tensor) -> float:
    """Returns how much masks (N, h, h) differ in form: mean squared distance of their signatures."""
    # The mirror image of a view is no other view, as objects are symmetric
    vectors, flipped = (signatures(m)[0] for m in (masks, masks.flip(-1)))
    similarity = torch.maximum(vectors @ vectors.T, vectors @ flipped.T)
    return (2 - 2 * similarity).mean().item()


def report(category: str, learned: Learned, path: Path, picture: Path) -> None:
    """Logs what was learned, and what may be wrong with it."""
    scores = "  ".join(f"{score:.3f}" for score in learned.scores)
    logger.info("starting shapes, by held-out masks: %s", scores)
    logger.info("%s: overlap %.3f with held-out masks -> %s", category, learned.overlap, path)
    logger.info("%s shows the axes; --up, --front and --mirror turn them within seconds", picture)
    if learned.overlap < LOW_OVERLAP:
        logger.warning(
            "%s: overlap %.2f is low: the objects differ much, or --views is wrong. "
            "Try --mode multitpl --num_templates 4.",
            category,
            learned.overlap,
        )


def _folder(config: Config, detections: Detections, prior: ViewPrior) -> Path:
    """Returns where the rounds of these settings are kept; those of others are removed."""
    # The rounds are a function of these
    settings = [detections.fingerprint, prior, config.colors, config.seed]
    if config.silhouette != "raster":
        settings += [config.silhouette, config.point_grid]
    key = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    parent = cache_folder(detections.dataset) / "template_learning"
    for other in parent.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    return parent / key
