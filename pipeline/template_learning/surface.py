"""One shape for all silhouettes at once: the sphere moves, the poses stay."""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.camera import project
from geometry.operators import flatness, volume
from geometry.sphere_mesh import SphereMesh
from geometry.surface_descent import SurfaceDescent
from pipeline.template_learning.views import Views
from rendering.projection.terms import Moment, TermMaker

PAIRS_PER_STEP = 32
SILHOUETTE = 10.0  # weights of the terms, as for modeled templates
FLATNESS = 1e-5
SMOOTHNESS = 3e-4
PRESSURE = 0.1


class Phase(NamedTuple):
    """How freely the surface moves in a round.

    Attributes:
        temperature: of the probabilities of modes, in units of overlap.
        stiffness: how far a vertex takes its neighbors along.
        sharpness: of the soft silhouettes.
        steps: number of steps.
        rate: step length; falls to a tenth.
        limbs: whether the masks count whose limbs are explained.
        progress: of the rounds, from 0 to 1.
    """

    temperature: float
    stiffness: float
    sharpness: float
    steps: int
    rate: float
    limbs: bool
    progress: float


def fit_surface(
    mesh: SphereMesh,
    templates: Tensor,
    masks: Tensor,
    views: Views,
    phase: Phase,
    generator: torch.Generator,
    terms: TermMaker,
) -> Tensor:
    """Moves the templates (T, V, 3) towards the masks (N, h, h) in given poses.

    Every step looks at some modes, drawn by their weights. Masks above 1 stand for emphasis. The terms
    compare silhouettes.

    Returns:
        (T, V, 3) symmetric meshes.
    """
    # Pairs of an image and a mode, drawn in proportion to their probability
    weights = views.weights(phase.temperature, phase.limbs).flatten()
    modes, per_image = views.candidates.flatten(), views.iou.shape[1]
    term = terms(templates, mesh.faces)
    descent = SurfaceDescent(templates, mesh.faces, phase.stiffness)
    for step in range(phase.steps):
        drawn = torch.multinomial(weights, PAIRS_PER_STEP, replacement=True, generator=generator)
        vertices = mesh.symmetrize(descent.vertices())
        # Silhouettes of the drawn modes against the masks of their images
        pose, choice = modes.select(drawn)
        screen = project(vertices[choice], pose)
        moment = Moment(step, phase.progress, phase.sharpness)
        errors, _ = term(screen, choice, masks, drawn // per_image, moment)
        loss = SILHOUETTE * errors.mean() + _roughness(mesh, vertices)
        descent.step(loss, phase.rate * (1 - 0.9 * step / phase.steps))
    return mesh.symmetrize(descent.vertices().detach())


def _roughness(mesh: SphereMesh, vertices: Tensor) -> Tensor:
    """Regularizer of meshes (T, V, 3): their roughness, less a pressure that inflates flat limbs."""
    loss = SMOOTHNESS * mesh.laplacian(vertices).square().sum()
    loss = loss + FLATNESS * flatness(vertices, mesh.faces, mesh.neighbors).sum()
    return loss - PRESSURE * torch.stack([volume(v, mesh.faces) for v in vertices]).sum()
