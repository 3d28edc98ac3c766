"""Stage 1: pose hypotheses of every image from its silhouette alone.

Reads the detections and the remeshed templates, writes camera_hypotheses_silhouette_<mode>.bin.
Section 3.1 of https://arxiv.org/abs/2103.15627.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from data import artifacts
from data.artifacts import Hypotheses
from data.definitions import VIEW_PRIORS, ViewPrior
from data.detections import Detections, load_detections
from data.images import ObjectImages
from pipeline import pose_report
from pipeline.contour_search import ContourSearch, Modes
from pipeline.partial_results import PartialResults
from pipeline.pose_report import agreement
from pipeline.view_prior import with_prior
from rendering import quaternion, rasterizer
from rendering.camera import Pose, project
from rendering.mesh_template import MeshTemplate
from rendering.rasterizer import silhouette_loss
from utils import distributed
from utils.cli import UserError
from utils.optimizers import FullMatrixAdam
from utils.progress import progress
from utils.run_directory import configure_logging
from utils.threads import one_torch_thread

LEARNING_RATE = 0.1
INITIAL_Z0 = 2.0
LARGEST_Z0 = 4.0
INITIAL_EXTENT = 0.9  # leaves the margin of 5 % that the crops have
SHARPNESS = 7000.0
FINAL_SHARPNESS = 70000.0
REFINEMENT_RATE = 0.03
NUM_FREE = 2  # modes that are refined without the prior as well, for twice the steps
# Per device: small enough to lose little when interrupted
IMAGES_PER_BATCH = {"contour": 16, "reference": 4}


@dataclass(frozen=True)
class SilhouetteConfig:
    """Options of pose_optimization_step1.py, described there."""

    dataset: str
    mode: str
    mesh_path: str
    batch_size: int
    image_resolution: int
    symmetric: bool
    num_workers: int
    resume: bool
    search: str
    refine_steps: int
    prune: bool | None
    camera_optim_steps: int
    camera_lr_decay_after: int
    v_agr_threshold: float
    gpu_ids: tuple[int | str, ...] | None
    seed: int
    rasterizer: str


@dataclass(frozen=True)
class Schedule:
    """What changes while the poses of an image are fitted.

    Attributes:
        steps: number of steps.
        decay_after: the learning rate is divided by 10 after this step.
        prune: keep the better half of the hypotheses at each of the two milestones.
    """

    steps: int
    decay_after: int
    prune: bool

    @property
    def milestones(self) -> tuple[int, int]:
        """Steps after which the resolution grows and hypotheses are pruned."""
        return 3 * self.steps // 10, 6 * self.steps // 10

    def sharpness(self, step: int) -> float:
        """Sharpness of the soft edge, growing exponentially."""
        return SHARPNESS * (FINAL_SHARPNESS / SHARPNESS) ** (step / max(self.steps - 1, 1))

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step."""
        return LEARNING_RATE * (0.1 if step > self.decay_after else 1.0)


def resolution_ladder(resolution: int) -> tuple[int, int, int]:
    """Returns the three image sizes of the fit: 128, 192 and 256 for a resolution of 256."""
    return resolution // 2, 3 * resolution // 4, resolution


def unpack(parameters: Tensor) -> Pose:
    """Splits parameter vectors (N, 8) into poses; rotations are normalized."""
    rotation, scale, translation, z0 = parameters.split((4, 1, 2, 1), dim=1)
    return Pose(scale, translation, functional.normalize(rotation, dim=1), z0)


def pack(pose: Pose) -> Tensor:
    """Joins N poses into parameter vectors (N, 8): rotation, scale, translation, z0."""
    return torch.cat([pose.rotation, pose.scale, pose.translation, pose.z0], dim=1)


def constrain(parameters: Tensor) -> Tensor:
    """Returns parameters with unit rotation, positive scale and z0 within its bounds."""
    pose = unpack(parameters)
    return pack(pose._replace(scale=pose.scale.abs(), z0=pose.z0.clamp(-LARGEST_Z0, LARGEST_Z0)))


def initial_hypotheses(templates: Tensor) -> tuple[Tensor, Tensor]:
    """Places every template in each of the 40 initial views, view by view.

    Args:
        templates: (T, V, 3) object space.

    Returns:
        Parameters (40 T, 8) whose projection reaches 0.9 of the image, and template indices (40 T,).
    """
    views = quaternion.initial_views().to(templates)
    choice = torch.arange(len(templates), device=templates.device).repeat(len(views))
    count = len(choice)
    pose = Pose(
        templates.new_ones(count, 1),
        templates.new_zeros(count, 2),
        views.repeat_interleave(len(templates), dim=0),
        templates.new_full((count, 1), INITIAL_Z0),
    )
    extent = project(templates[choice], pose)[..., :2].abs().amax(dim=(1, 2))
    return pack(pose._replace(scale=INITIAL_EXTENT / extent[:, None])), choice


def silhouette_gradient(
    parameters: Tensor,
    vertices: Tensor,
    faces: Tensor,
    targets: Tensor,
    sharpness: float,
    prior: ViewPrior | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient of each hypothesis' error: squared silhouette difference plus the wall term.

    The wall pushes vertices back that leave the image. Both terms are averaged over the hypotheses
    of an image; the epsilon of the optimizer is relative to that scale.

    Args:
        parameters: (N H, 8) poses, image by image.
        vertices: (N H, V, 3) object space.
        faces: (F, 3).
        targets: (N, h, w) masks.
        sharpness: of the soft edge.
        prior: what is expected of the rotations; None for nothing.

    Returns:
        Gradient (N H, 8) and hard intersection over union (N H,).
    """
    per_image = len(parameters) // len(targets)
    image = torch.arange(len(targets), device=parameters.device).repeat_interleave(per_image)
    parameters = parameters.detach().requires_grad_()
    pose = unpack(parameters)
    screen = project(vertices, pose)
    error, iou = silhouette_loss(screen, faces, targets, image, sharpness=sharpness)
    if prior is not None:
        error = with_prior(error, pose.rotation, prior)
    planar = screen[..., :2]
    wall = (planar - planar.detach().clamp(-1, 1)).square().mean(dim=(1, 2))
    (gradient,) = torch.autograd.grad((error + wall).sum() / per_image, parameters)
    return gradient, iou.detach()


@torch.no_grad()
def silhouette_iou(
    parameters: Tensor, vertices: Tensor, faces: Tensor, targets: Tensor, sharpness: float
) -> Tensor:
    """Intersection over union (N H,) of each hypothesis with the mask of its image (N, h, w)."""
    image = torch.arange(len(targets), device=parameters.device)
    image = image.repeat_interleave(len(parameters) // len(targets))
    screen = project(vertices, unpack(parameters))
    return silhouette_loss(screen, faces, targets, image, sharpness=sharpness)[1]


def better_half(iou: Tensor, num_images: int) -> Tensor:
    """Rows of the better half of each image's hypotheses, in their order; iou is (N H,)."""
    table = iou.reshape(num_images, -1)
    order = table.argsort(dim=1, descending=True, stable=True)
    kept = order[:, : table.shape[1] // 2].sort(dim=1).values
    first = torch.arange(num_images, device=iou.device)[:, None] * table.shape[1]
    return (first + kept).flatten()


def fit_poses(targets: Tensor, templates: Tensor, faces: Tensor, schedule: Schedule) -> Hypotheses:
    """Fits all hypotheses of N images to their masks.

    Every hypothesis is optimized on its own; only pruning compares those of one image.

    Args:
        targets: (N, h, w) masks in [0, 1] at full resolution.
        templates: (T, V, 3) object space.
        faces: (F, 3).
        schedule: steps and what changes with them.

    Returns:
        H hypotheses per image, 40 T before pruning.
    """
    num_images = len(targets)
    start, choice = initial_hypotheses(templates)
    parameters, choice = start.repeat(num_images, 1), choice.repeat(num_images)
    vertices = templates[choice]
    optimizer = FullMatrixAdam(parameters, lr=LEARNING_RATE)
    masks = [_resize(targets, size) for size in resolution_ladder(targets.shape[-1])]
    rung = 0
    for step in range(schedule.steps):
        optimizer.lr = schedule.learning_rate(step)
        gradient, iou = silhouette_gradient(
            parameters, vertices, faces, masks[rung], schedule.sharpness(step)
        )
        parameters = constrain(optimizer.step(parameters, gradient))
        for _ in range(schedule.milestones.count(step)):
            rung += 1
            if schedule.prune and len(choice) > num_images:
                kept = better_half(iou, num_images)
                optimizer.select(kept)
                iou, parameters, choice, vertices = (
                    x[kept] for x in (iou, parameters, choice, vertices)
                )
    return _hypotheses(parameters, choice, templates, faces, targets)


def search_poses(
    targets: Tensor, search: ContourSearch, templates: Tensor, faces: Tensor, steps: int
) -> Hypotheses:
    """Finds the modes of N images by their outlines, and refines each against the mask.

    All are refined under the prior, which pulls them towards the true pose where the template differs
    from the object, and the best ones also without: they tell how well the template can fit.

    Args:
        targets: (N, h, w) masks in [0, 1] at full resolution; refined at half of it.
        search: of the same templates.
        templates: (T, V, 3) object space.
        faces: (F, 3).
        steps: of the refinement.

    Returns:
        NUM_MODES + NUM_FREE hypotheses per image.
    """
    modes = search.find(targets)
    modes = Modes(modes.parameters.to(templates), modes.choice.to(templates.device))
    free = Modes(*(member[:, :NUM_FREE] for member in modes))
    masks = _resize(targets, targets.shape[-1] // 2)
    found = [
        _refine(modes, masks, templates, faces, steps, search.prior),
        _refine(free, masks, templates, faces, 2 * steps, None),
    ]
    choice = torch.cat([modes.choice, free.choice], dim=1).flatten()
    return _hypotheses(torch.cat(found, dim=1).flatten(0, 1), choice, templates, faces, targets)


def _refine(
    modes: Modes,
    masks: Tensor,
    templates: Tensor,
    faces: Tensor,
    steps: int,
    prior: ViewPrior | None,
) -> Tensor:
    """Moves the modes (N, K, 8) so that they fit the masks; the learning rate falls linearly."""
    parameters, vertices = modes.parameters.flatten(0, 1), templates[modes.choice.flatten()]
    optimizer, schedule = FullMatrixAdam(parameters), Schedule(steps, steps, prune=False)
    for step in range(steps):
        optimizer.lr = REFINEMENT_RATE * (1 - step / steps)
        sharpness = schedule.sharpness(step)
        gradient, _ = silhouette_gradient(parameters, vertices, faces, masks, sharpness, prior)
        parameters = constrain(optimizer.step(parameters, gradient))
    return parameters.reshape(modes.parameters.shape)


def _hypotheses(
    parameters: Tensor, choice: Tensor, templates: Tensor, faces: Tensor, targets: Tensor
) -> Hypotheses:
    """Compares N H poses with the masks (N, h, w) of their images."""
    count = len(targets)
    iou = silhouette_iou(parameters, templates[choice], faces, targets, FINAL_SHARPNESS)
    pose = Pose(*(x.reshape(count, -1, x.shape[1]) for x in unpack(parameters)))
    weights = functional.one_hot(choice, len(templates)).to(templates)
    return Hypotheses(pose, weights.reshape(count, -1, len(templates)), iou.reshape(count, -1))


def _resize(masks: Tensor, size: int) -> Tensor:
    """Resizes masks (N, h, w) bilinearly, without antialiasing."""
    if masks.shape[-1] == size:
        return masks
    return functional.interpolate(masks[:, None], size=(size, size), mode="bilinear")[:, 0]


@one_torch_thread()
def estimate_hypotheses(device: torch.device, config: SilhouetteConfig) -> None:
    """Fits the poses of all images of a dataset and writes them; continues an interrupted run.

    Args:
        device: where this process computes.
        config: options of the stage.
    """
    configure_logging()
    prepare(config.rasterizer, config.mesh_path)
    detections = load_detections(config.dataset)
    templates = artifacts.load_templates(detections.category, config.mode)
    partial = _open_partial_results(config, detections, templates)
    rows = [row for row in distributed.shard(len(detections)) if row not in partial.rows]
    dataset = ObjectImages(detections, config.image_resolution, rows=rows, cache=False)
    search = make_search(config, detections.category, templates.to(device))
    with progress(
        total=len(partial.rows) + len(rows), description="images", initial=len(partial.rows)
    ) as bar:
        size = images_per_batch(config.batch_size, IMAGES_PER_BATCH[config.search])
        for images in load_batches(dataset, size, config.num_workers):
            found = search(images.image[:, 3].to(device))
            partial.add([rows[i] for i in images.index], _to_tensors(found))
            bar.update(len(images.index))
    found = _from_tensors(partial.gather())
    if distributed.is_main():
        artifacts.save_hypotheses(config.dataset, config.mode, found, detections.fingerprint)
        partial.remove()
        report_hypotheses(config, detections, found)


def prepare(backend: str, mesh_path: str) -> None:
    """Sets the process up for stage 1 or 2, and refuses spheres other than that of the templates."""
    if mesh_path != "autodetect" and "31rings" not in mesh_path:
        raise UserError(
            f"--mesh_path {mesh_path}: remeshed templates are spheres of 31 rings. Use autodetect."
        )
    rasterizer.set_backend(backend)


def make_search(
    config: SilhouetteConfig, category: str, templates: Tensor
) -> Callable[[Tensor], Hypotheses]:
    """Returns the search that the options ask for: from masks (N, h, w) to their hypotheses."""
    faces = MeshTemplate().faces.to(templates.device)
    if config.search == "reference":
        schedule = make_schedule(config)
        return lambda masks: fit_poses(masks, templates, faces, schedule)
    search = ContourSearch(templates, faces, VIEW_PRIORS[category])
    return lambda masks: search_poses(masks, search, templates, faces, config.refine_steps)


def make_schedule(config: SilhouetteConfig) -> Schedule:
    """Returns the schedule of the reference search."""
    prune = config.mode == "multitpl" if config.prune is None else config.prune
    return Schedule(config.camera_optim_steps, config.camera_lr_decay_after, prune)


def report_hypotheses(
    config: SilhouetteConfig, detections: Detections, hypotheses: Hypotheses
) -> None:
    """Logs how well the hypotheses fit, and the rotation error of the best of each image."""
    rotation = hypotheses.pose.rotation
    best = hypotheses.iou.argmax(dim=1)
    confident = agreement(hypotheses.iou, rotation) < config.v_agr_threshold
    figures = {
        "mean_iou": hypotheses.iou.mean().item(),
        "mean_best_iou": hypotheses.iou.amax(dim=1).mean().item(),
    }
    chosen = rotation[torch.arange(len(best)), best]
    pose_report.report(detections, "step1", config.mode, figures, chosen, confident.nonzero()[:, 0])


def _open_partial_results(
    config: SilhouetteConfig, detections: Detections, templates: Tensor
) -> PartialResults:
    """Finished rows of this process from an interrupted run of the same command."""
    settings = {
        "detections": detections.fingerprint,
        "templates": hashlib.sha256(templates.numpy().tobytes()).hexdigest(),
        "resolution": config.image_resolution,
        "search": config.search,
        "schedule": config.refine_steps
        if config.search == "contour"
        else asdict(make_schedule(config)),
    }
    folder = artifacts.cache_folder(config.dataset) / f".step1_{config.mode}"
    if distributed.is_main() and not config.resume:
        shutil.rmtree(folder, ignore_errors=True)
    return PartialResults(folder, settings, distributed.shard(len(detections)))


def images_per_batch(batch_size: int, automatic: int) -> int:
    """Returns this process's share of the batch size over all; -1 chooses `automatic`."""
    return max(1, batch_size // distributed.world_size()) if batch_size > 0 else automatic


def load_batches(dataset: ObjectImages, size: int, num_workers: int) -> DataLoader:
    """Loads images in order, `size` at a time."""
    workers = min(num_workers, len(dataset), os.cpu_count() or 1)
    return DataLoader(dataset, batch_size=size, num_workers=workers)


def _to_tensors(hypotheses: Hypotheses) -> dict[str, Tensor]:
    flat = {"template_weights": hypotheses.template_weights, "iou": hypotheses.iou}
    return flat | hypotheses.pose._asdict()


def _from_tensors(tensors: dict[str, Tensor]) -> Hypotheses:
    pose = Pose(*(tensors[name] for name in Pose._fields))
    return Hypotheses(pose, tensors["template_weights"], tensors["iou"])
