"""Rounds of poses and shape, from coarse to fine, and the proportions that rounds alone keep."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from data.definitions import ViewPrior
from geometry.operators import stiffness_matrix
from geometry.sphere_mesh import SphereMesh
from pipeline.template_learning.colors import with_colors
from pipeline.template_learning.outlines import emphasize_thin
from pipeline.template_learning.surface import Phase, fit_surface
from pipeline.template_learning.views import Views, find_views
from rendering.projection.terms import TermMaker

# Width, length and height of the ellipsoids that learning starts from: lying, narrow and wide, and upright
STARTING_SHAPES = (
    (0.2, 1.0, 0.35),
    (0.45, 1.0, 0.4),
    (0.4, 1.0, 0.8),
    (0.3, 0.3, 1.0),
    (0.6, 0.6, 1.0),
)
# Their unevenness, which breaks symmetries, and how smooth it is
BUMPS, BUMP_STIFFNESS = 0.06, 40.0
# Factors that are tried on the axes: too wide a shape is explained by views from further to the front
STRETCHES = ((1.0, 1.0, 1.0), (0.7, 1.0, 1.0), (1.3, 1.0, 1.0), (1.0, 0.8, 1.0), (1.0, 1.2, 1.0))
NUM_STRETCHED = 40  # masks that judge proportions
# At the first and in the last round
TEMPERATURE = (0.04, 0.007)
SIDEWAYS = (0.1, 0.02)  # overlap that views from the front cost
DOUBT = 0.3  # of what overlaps lack: differences as small say less than colors do
STIFFNESS = (30.0, 1.0)
SHARPNESS = (7e3, 1.4e5)
LIMBLESS = 0.83  # overlap, below which a shape whose proportions are right still lacks limbs
SIZES = (64, 96)  # pixels of the masks, in the first half of the rounds and in the second
STEPS = 60
RATE = 0.05


class Evidence(NamedTuple):
    """What the photographs show.

    Attributes:
        masks: (N, h, h) in [0, 1], crops.
        images: (N, 4, g, g) RGB in [-1, 1] and mask; None to learn from masks alone.
        prior: directions that objects are seen from.
    """

    masks: Tensor
    images: Tensor | None
    prior: ViewPrior

    def select(self, rows: Tensor) -> "Evidence":
        """Returns some of the photographs."""
        images = None if self.images is None else self.images[rows]
        return Evidence(self.masks[rows], images, self.prior)


def begin(mesh: SphereMesh, proportions: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Returns an ellipsoid (1, V, 3) with some smooth symmetric bumps."""
    # White noise smoothed by the stiffness of the surface
    stiff = stiffness_matrix(mesh.faces, len(mesh.vertices), BUMP_STIFFNESS)
    bumps = torch.linalg.solve(stiff, torch.randn(mesh.vertices.shape, generator=generator))
    uneven = mesh.vertices + BUMPS / bumps.std() * bumps
    return normalize(mesh.symmetrize(uneven * uneven.new_tensor(proportions))[None])


def phase_of(progress: float) -> Phase:
    """Returns how freely the surface moves in a round; progress runs from 0 to 1."""
    temperature, stiffness, sharpness = (
        first * (last / first) ** progress for first, last in (TEMPERATURE, STIFFNESS, SHARPNESS)
    )
    return Phase(temperature, stiffness, sharpness, STEPS, RATE, limbs=False, progress=progress)


def sideways(progress: float) -> float:
    """Returns the preference for views from the side in a round."""
    first, last = SIDEWAYS
    return first * (last / first) ** progress


def one_round(
    templates: Tensor,
    evidence: Evidence,
    progress: float,
    generator: torch.Generator,
    terms: TermMaker,
) -> tuple[Tensor, Views]:
    """Finds the poses of templates (T, V, 3) in N masks, then moves the surfaces towards them.

    Returns:
        Templates (T, V, 3), centered and of size 1, and the views of those before.
    """
    mesh, phase = SphereMesh(), phase_of(progress)
    # Poses of the present shapes, first with a preference for views from the side
    views = find_views(templates, evidence.masks, evidence.prior).sideways(sideways(progress))
    if evidence.images is not None:
        # While overlaps are low, small differences between them say less than colors do
        doubt = DOUBT * (1 - views.iou.amax(dim=1).mean().item())
        phase = phase._replace(temperature=max(phase.temperature, doubt))
        views = with_colors(mesh, templates, views, evidence.images, phase.temperature)
    # Legs of several positions would average away
    late = progress > 0.5
    phase = phase._replace(limbs=late and views.iou.amax(dim=1).mean().item() < LIMBLESS)
    masks = emphasize_thin(evidence.masks) if phase.limbs else evidence.masks
    # Move the surfaces, on small masks at first
    size = SIZES[late]
    small = functional.interpolate(masks[:, None], (size, size), mode="bilinear", antialias=True)
    moved = fit_surface(mesh, templates, small[:, 0], views, phase, generator, terms)
    return normalize(moved), views


def best_proportions(templates: Tensor, evidence: Evidence) -> Tensor:
    """Stretches the templates (T, V, 3) to the proportions that explain the masks best.

    Alternating between poses and shape keeps the proportions of the start. Wrong ones need poses that
    explain the masks a little less, and that the prior finds less likely.
    """
    # Some masks, evenly spread over the collection, are enough to compare proportions
    rows = torch.linspace(0, len(evidence.masks) - 1, min(NUM_STRETCHED, len(evidence.masks)))
    masks = evidence.masks[rows.round().long()]
    stretched = [normalize(templates * templates.new_tensor(factors)) for factors in STRETCHES]
    views = [find_views(shape, masks, evidence.prior) for shape in stretched]
    scores = [found.sideways(SIDEWAYS[-1]).best().mean() for found in views]
    return stretched[int(torch.stack(scores).argmax())]


def normalize(templates: Tensor) -> Tensor:
    """Centers meshes (T, V, 3) along y and z, and scales them to max |coordinate| = 1."""
    # x is left alone, as x = 0 is the mirror plane
    middle = (templates.amin(1, keepdim=True) + templates.amax(1, keepdim=True)) / 2
    centered = templates - middle * middle.new_tensor([0.0, 1.0, 1.0])
    return centered / centered.abs().amax(dim=(1, 2), keepdim=True)
