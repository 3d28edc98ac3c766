"""Refinement of poses against the mask of a photograph and maps of it, such as parts or colors."""

from typing import NamedTuple

import torch
from torch import Tensor

from data.definitions import ViewPrior
from geometry.camera import from_vector, project, to_vector
from models.optimizers import FullMatrixAdam
from pipeline.poses.candidates import Candidates
from pipeline.poses.evidence.interface import Guide
from pipeline.poses.evidence.outlines import shrink
from pipeline.poses.fitting import SHARPNESS, constrain
from pipeline.poses.photographs import Photographs
from pipeline.poses.view_prior import with_prior
from rendering.rasterizer import rasterize

LEARNING_RATE = 0.05
# The epsilon of the optimizer is relative to it: smaller scales amplify rounding errors to degrees
GRADIENT_SCALE = 1000
SHRINKAGE = 4  # of the photographs
LEAST_ERROR = 1e-6  # mean squared difference of maps that fit


class Painted(NamedTuple):
    """Meshes with values on their vertices.

    Attributes:
        vertices: (B, V, 3) object space.
        faces: (F, 3).
        values: (B, V, C).
    """

    vertices: Tensor
    faces: Tensor
    values: Tensor


class Targets(NamedTuple):
    """What photographs show.

    Attributes:
        masks: (B, h, w) in [0, 1].
        maps: (B, C, h, w), 0 outside the mask.
        weight: of the maps, if the masks have 1; see `refine`.
    """

    masks: Tensor
    maps: Tensor
    weight: float


class Refinement(NamedTuple):
    """Moves candidates of a collection.

    Attributes:
        templates: (T, V, 3) object space.
        faces: (F, 3).
        prior: distribution of the rotations.
        steps: number of steps; the learning rate falls linearly.
    """

    templates: Tensor
    faces: Tensor
    prior: ViewPrior
    steps: int

    def move(
        self, photographs: Photographs, index: Tensor, chosen: Candidates, guide: Guide
    ) -> Candidates:
        """Returns the chosen candidates (n, R), which have positions `index`, in better poses."""
        device = photographs.images.device
        flat = chosen.flatten().to(device)
        # What the guide expects to see on each candidate
        values = guide.expected(photographs.rows, index, chosen.to(device)).flatten(0, 1)
        painted = Painted(self.templates[flat.choice], self.faces, values)
        # Each photograph is the target of its R candidates
        size, repeats = photographs.masks.shape[-1] // SHRINKAGE, chosen.choice.shape[1]
        both = torch.cat([photographs.masks[:, None], guide.maps(photographs)], dim=1)
        both = shrink(both, size).repeat_interleave(repeats, dim=0)
        targets = Targets(both[:, 0], both[:, 1:], guide.weight)
        # Every candidate for itself
        vectors = refine(painted, targets, to_vector(flat.pose), self.prior, self.steps)
        pose = from_vector(vectors.cpu().unflatten(0, chosen.choice.shape))
        return Candidates(pose, chosen.choice)


def refine(
    painted: Painted, targets: Targets, vectors: Tensor, prior: ViewPrior, steps: int
) -> Tensor:
    """Moves B poses so that silhouette and values fit better.

    The error is the mean squared difference of masks and of maps, under the prior. Both count by
    how much they have improved in relation to what is left: colors differ more from one object to the
    next than masks do, and would otherwise decide alone.

    Args:
        painted: B meshes.
        targets: B photographs.
        vectors: (B, 8) poses.
        prior: distribution of the rotations.
        steps: number of steps.

    Returns:
        (B, 8) poses.
    """
    optimizer = FullMatrixAdam(vectors)
    size = targets.masks.shape[-1]
    for step in range(steps):
        # Render silhouettes and values
        vectors = vectors.detach().requires_grad_()
        pose = from_vector(vectors)
        screen = project(painted.vertices, pose)
        raster = rasterize(
            screen, painted.faces, size, attributes=painted.values, sharpness=SHARPNESS
        )
        assert raster.alpha is not None
        assert raster.attributes is not None
        # Step along the gradient of the error
        error = (raster.alpha[:, 0] - targets.masks).square().mean(dim=(1, 2))
        rest = (raster.attributes - targets.maps).square().sum(dim=1).mean(dim=(1, 2))
        share = targets.weight * (error / rest.clamp(min=LEAST_ERROR)).detach()
        error = error + share * rest
        error = with_prior(error, pose.rotation, prior)
        (gradient,) = torch.autograd.grad(error.sum() / GRADIENT_SCALE, vectors)
        optimizer.lr = LEARNING_RATE * (1 - step / steps)
        vectors = constrain(optimizer.step(vectors, gradient))
    return vectors.detach()
