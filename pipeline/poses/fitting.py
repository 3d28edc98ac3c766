"""Poses of masks by optimization: the published recipe, and the refinement of modes that outlines found.

Section 3.1 of https://arxiv.org/abs/2103.15627.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from data.cache.pose_files import Hypotheses
from data.definitions import ViewPrior
from geometry import quaternion
from geometry.camera import VECTOR_SIZE, Pose, from_vector, project, to_vector
from geometry.shape_modes import deform
from models.optimizers import FullMatrixAdam
from pipeline.poses.candidates import Candidates
from pipeline.poses.contour_search import ContourSearch
from pipeline.poses.shapes.polynomials import deformation_fields, with_shape
from pipeline.poses.view_prior import with_prior
from rendering.projection.terms import Moment, Rendered, SilhouetteTerm
from rendering.rasterizer import silhouette_loss

LEARNING_RATE = 0.1
NUM_VIEWS = len(quaternion.initial_views())  # of a template, to start from
INITIAL_Z0 = 2.0
LARGEST_Z0 = 4.0
INITIAL_EXTENT = 0.9  # leaves the margin of 5 % that the crops have
SHARPNESS = 7000.0
FINAL_SHARPNESS = 70000.0
REFINEMENT_RATE = 0.03
NUM_FREE = 2  # modes that are refined without the prior as well, for twice the steps


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

    def num_hypotheses(self, num_templates: int) -> int:
        """Hypotheses of an image at the end; the better half of the 40 views a template is kept twice."""
        count = NUM_VIEWS * num_templates
        return count // 2 // 2 if self.prune else count

    def sharpness(self, step: int) -> float:
        """Sharpness of the soft edge, growing exponentially."""
        return SHARPNESS * (FINAL_SHARPNESS / SHARPNESS) ** (step / max(self.steps - 1, 1))

    def moment(self, step: int) -> Moment:
        """What the comparison of silhouettes depends on in a step."""
        return Moment(step, step / max(self.steps - 1, 1), self.sharpness(step))

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step."""
        return LEARNING_RATE * (0.1 if step > self.decay_after else 1.0)


def resolution_ladder(resolution: int) -> tuple[int, int, int]:
    """Returns the three image sizes of the fit: 128, 192 and 256 for a resolution of 256."""
    return resolution // 2, 3 * resolution // 4, resolution


def constrain(parameters: Tensor) -> Tensor:
    """Returns parameters with unit rotation, positive scale and z0 within its bounds."""
    pose = from_vector(parameters)
    pose = pose._replace(scale=pose.scale.abs(), z0=pose.z0.clamp(-LARGEST_Z0, LARGEST_Z0))
    return torch.cat([to_vector(pose), parameters[:, VECTOR_SIZE:]], dim=1)


def initial_hypotheses(templates: Tensor) -> tuple[Tensor, Tensor]:
    """Places every template in each of the 40 initial views, view by view.

    Args:
        templates: (T, V, 3) object space.

    Returns:
        Parameters (40 T, 8) whose projection reaches 0.9 of the image, and template indices (40 T,).
    """
    # All templates in the first view, then in the second, and so on
    views = quaternion.initial_views().to(templates)
    choice = torch.arange(len(templates), device=templates.device).repeat(len(views))
    count = len(choice)
    pose = Pose(
        templates.new_ones(count, 1),
        templates.new_zeros(count, 2),
        views.repeat_interleave(len(templates), dim=0),
        templates.new_full((count, 1), INITIAL_Z0),
    )
    # As large as the crops are
    extent = project(templates[choice], pose)[..., :2].abs().amax(dim=(1, 2))
    return to_vector(pose._replace(scale=INITIAL_EXTENT / extent[:, None])), choice


def silhouette_gradient(
    parameters: Tensor,
    vertices: Tensor,
    choice: Tensor,
    targets: Tensor,
    term: SilhouetteTerm,
    moment: Moment,
    prior: ViewPrior | None = None,
    fields: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient of each hypothesis' error: that of its silhouette plus the wall term.

    The wall pushes vertices back that leave the image. Both terms are averaged over the hypotheses
    of an image; the epsilon of the optimizer is relative to that scale.

    Args:
        parameters: (N H, 8 + M) poses, and coefficients of the fields, image by image.
        vertices: (N H, V, 3) object space.
        choice: (N H,) the template of each.
        targets: (N, h, w) masks.
        term: compares silhouettes.
        moment: of the optimization.
        prior: distribution of the rotations; None for a uniform one.
        fields: (N H, M, V, 3) deformations at their usual size; None for a rigid shape.

    Returns:
        Gradient (N H, 8 + M) and overlaps (N H,).
    """
    # Place the shapes on the screen
    per_image = len(parameters) // len(targets)
    image = torch.arange(len(targets), device=parameters.device).repeat_interleave(per_image)
    parameters = parameters.detach().requires_grad_()
    pose, coefficients = from_vector(parameters), parameters[:, VECTOR_SIZE:]
    if fields is not None:
        vertices = deform(vertices, coefficients, fields)
    screen = project(vertices, pose)
    # Compare the silhouettes, under what is usual
    error, iou = term(screen, choice, targets, image, moment)
    if fields is not None:
        error = with_shape(error, coefficients)
    if prior is not None:
        error = with_prior(error, pose.rotation, prior)
    # Push back what leaves the image
    planar = screen[..., :2]
    wall = (planar - planar.detach().clamp(-1, 1)).square().mean(dim=(1, 2))
    # Averaged over the hypotheses of an image
    (gradient,) = torch.autograd.grad((error + wall).sum() / per_image, parameters)
    return gradient, iou.detach()


@torch.no_grad()
def silhouette_iou(
    parameters: Tensor, vertices: Tensor, faces: Tensor, targets: Tensor, sharpness: float
) -> Tensor:
    """Intersection over union (N H,) of each hypothesis with the mask of its image (N, h, w)."""
    image = torch.arange(len(targets), device=parameters.device)
    image = image.repeat_interleave(len(parameters) // len(targets))
    screen = project(vertices, from_vector(parameters))
    return silhouette_loss(screen, faces, targets, image, sharpness=sharpness)[1]


def better_half(iou: Tensor, num_images: int) -> Tensor:
    """Rows of the better half of each image's hypotheses, in their order; iou is (N H,)."""
    # The best of each image, in their order
    table = iou.reshape(num_images, -1)
    order = table.argsort(dim=1, descending=True, stable=True)
    kept = order[:, : table.shape[1] // 2].sort(dim=1).values
    # As rows of all hypotheses
    first = torch.arange(num_images, device=iou.device)[:, None] * table.shape[1]
    return (first + kept).flatten()


def fit_poses(
    targets: Tensor,
    templates: Tensor,
    faces: Tensor,
    schedule: Schedule,
    term: SilhouetteTerm | None = None,
) -> Hypotheses:
    """Fits all hypotheses of N images to their masks.

    Every hypothesis is optimized on its own; only pruning compares those of one image.

    Args:
        targets: (N, h, w) masks in [0, 1] at full resolution.
        templates: (T, V, 3) object space.
        faces: (F, 3).
        schedule: steps and what changes with them.
        term: compares silhouettes; None renders them.

    Returns:
        H hypotheses per image, 40 T before pruning.
    """
    num_images, term = len(targets), term or Rendered(faces)
    # Every image starts from the same views
    start, choice = initial_hypotheses(templates)
    parameters, choice = start.repeat(num_images, 1), choice.repeat(num_images)
    vertices = templates[choice]
    optimizer = FullMatrixAdam(parameters, lr=LEARNING_RATE)
    masks = [_resize(targets, size) for size in resolution_ladder(targets.shape[-1])]
    rung = 0
    for step in range(schedule.steps):
        optimizer.lr = schedule.learning_rate(step)
        moment = schedule.moment(step)
        gradient, iou = silhouette_gradient(parameters, vertices, choice, masks[rung], term, moment)
        parameters = constrain(optimizer.step(parameters, gradient))
        # Grow the images; drop the worse half
        for _ in range(schedule.milestones.count(step)):
            rung += 1
            if schedule.prune and len(choice) > num_images:
                kept = better_half(iou, num_images)
                optimizer.select(kept)
                iou, parameters, choice, vertices = (
                    x[kept] for x in (iou, parameters, choice, vertices)
                )
    return _hypotheses(parameters, choice, vertices, len(templates), faces, targets)


def search_poses(
    targets: Tensor,
    search: ContourSearch,
    templates: Tensor,
    faces: Tensor,
    steps: int,
    shape_spread: float = 0.0,
    term: SilhouetteTerm | None = None,
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
        shape_spread: usual size of deformations that fit the template to each object; 0 for none.
        term: compares silhouettes; None renders them.

    Returns:
        NUM_MODES + NUM_FREE hypotheses per image. With deformations, their overlaps are those of the
        deformed templates; they are not kept.
    """
    # Outlines first
    modes = search.find(targets).to(templates.device)
    free = modes.select((slice(None), slice(NUM_FREE)))
    # Then silhouettes, with and without the prior
    masks = _resize(targets, targets.shape[-1] // 2)
    fields = shape_spread * deformation_fields(templates) if shape_spread > 0 else None
    term = term or Rendered(faces)
    found = [
        _refine(modes, masks, templates, term, steps, search.prior, fields),
        _refine(free, masks, templates, term, 2 * steps, None, fields),
    ]
    # Compare both kinds at full resolution
    choice = torch.cat([modes.choice, free.choice], dim=1).flatten()
    parameters, vertices = torch.cat(found, dim=1).flatten(0, 1), templates[choice]
    if fields is not None:
        vertices = deform(vertices, parameters[:, VECTOR_SIZE:], fields[choice])
    return _hypotheses(parameters, choice, vertices, len(templates), faces, targets)


def _refine(
    modes: Candidates,
    masks: Tensor,
    templates: Tensor,
    term: SilhouetteTerm,
    steps: int,
    prior: ViewPrior | None,
    fields: Tensor | None,
) -> Tensor:
    """Moves the modes of N images, (N, K, 8 + M) then; the learning rate falls linearly."""
    pose, choice = modes.flatten()
    parameters, vertices = to_vector(pose), templates[choice]
    if fields is not None:
        fields = fields[choice]
        parameters = functional.pad(parameters, (0, fields.shape[1]))
    # Sharper and slower from step to step
    optimizer, schedule = FullMatrixAdam(parameters), Schedule(steps, steps, prune=False)
    for step in range(steps):
        optimizer.lr = REFINEMENT_RATE * (1 - step / steps)
        moment = schedule.moment(step)
        gradient, _ = silhouette_gradient(
            parameters, vertices, choice, masks, term, moment, prior, fields
        )
        parameters = constrain(optimizer.step(parameters, gradient))
    return parameters.unflatten(0, modes.choice.shape)


def _hypotheses(
    parameters: Tensor,
    choice: Tensor,
    vertices: Tensor,
    num_templates: int,
    faces: Tensor,
    targets: Tensor,
) -> Hypotheses:
    """Compares N H poses of vertices (N H, V, 3) with the masks (N, h, w) of their images."""
    count = len(targets)
    iou = silhouette_iou(parameters, vertices, faces, targets, FINAL_SHARPNESS)
    pose = Pose(*(x.reshape(count, -1, x.shape[1]) for x in from_vector(parameters)))
    weights = functional.one_hot(choice, num_templates).to(vertices)
    return Hypotheses(pose, weights.reshape(count, -1, num_templates), iou.reshape(count, -1))


def _resize(masks: Tensor, size: int) -> Tensor:
    """Resizes masks (N, h, w) bilinearly, without antialiasing."""
    if masks.shape[-1] == size:
        return masks
    return functional.interpolate(masks[:, None], size=(size, size), mode="bilinear")[:, 0]
