"""Several templates of one category: its shapes, sorted by stretches, tapers and bends."""

import torch
from torch import Tensor
from torch.nn import functional

from geometry.camera import VECTOR_SIZE, to_vector
from geometry.shape_modes import deform
from geometry.sphere_mesh import SphereMesh
from models.optimizers import FullMatrixAdam
from pipeline.poses.fitting import constrain, silhouette_gradient
from pipeline.poses.shapes.polynomials import deformation_fields
from pipeline.template_learning.alternation import Evidence, normalize
from pipeline.template_learning.views import find_views
from rendering.projection.terms import Moment, SilhouetteTerm, TermMaker

SPREAD = 0.1  # usual size of the deformations
STEPS, RATE = 40, 0.03
SIZE, SHARPNESS = 64, 7e3
ITERATIONS = 50  # of the clustering


def split(template: Tensor, evidence: Evidence, count: int, terms: TermMaker) -> Tensor:
    """Makes `count` templates (count, V, 3) of one (1, V, 3): the centers of clusters of its deformations.

    The template is fitted to each mask in its likeliest pose; the coefficients are clustered.
    """
    # The likeliest pose of each mask is where its fit starts
    views = find_views(template, evidence.masks, evidence.prior)
    best = views.score.argmax(dim=1)
    pose = views.candidates.gather(best[:, None]).flatten().pose
    fields = SPREAD * deformation_fields(template[0])
    term = terms(template, SphereMesh().faces)
    coefficients = _fit(to_vector(pose), template, evidence, fields, term)
    centers = cluster(coefficients, count)
    return normalize(
        deform(template.expand(count, -1, -1), centers, fields.expand(count, -1, -1, -1))
    )


def cluster(points: Tensor, count: int) -> Tensor:
    """Returns the means (count, D) of clusters of points (N, D).

    Lloyd's algorithm, started at the point nearest to the mean and then at the furthest from all before.
    """
    # Centers far from each other: random ones would often share a cluster
    centers = points[torch.cdist(points, points.mean(0, keepdim=True)).argmin(0)]
    while len(centers) < count:
        furthest = torch.cdist(points, centers).amin(dim=1).argmax()
        centers = torch.cat([centers, points[furthest][None]])
    # Lloyd's iterations
    for _ in range(ITERATIONS):
        nearest = torch.cdist(points, centers).argmin(dim=1)
        members = functional.one_hot(nearest, count).to(points)
        # An empty cluster keeps its center
        means = members.T @ points / members.sum(0).clamp(min=1)[:, None]
        centers = torch.where(members.sum(0)[:, None] > 0, means, centers)
    return centers


def _fit(
    parameters: Tensor, template: Tensor, evidence: Evidence, fields: Tensor, term: SilhouetteTerm
) -> Tensor:
    """Returns the coefficients (N, M) of the fields (M, V, 3) that fit a template to N masks."""
    count = len(parameters)
    small = functional.interpolate(
        evidence.masks[:, None], (SIZE, SIZE), mode="bilinear", antialias=True
    )[:, 0]
    # Every mask has a pose and a deformation of its own, fitted together
    shapes, bent = template.expand(count, -1, -1), fields.expand(count, -1, -1, -1)
    parameters = functional.pad(parameters, (0, len(fields)))
    choice = torch.zeros(count, dtype=torch.int64)
    optimizer = FullMatrixAdam(parameters)
    for step in range(STEPS):
        optimizer.lr = RATE * (1 - step / STEPS)
        moment = Moment(step, step / (STEPS - 1), SHARPNESS)
        gradient, _ = silhouette_gradient(
            parameters, shapes, choice, small, term, moment, evidence.prior, bent
        )
        parameters = constrain(optimizer.step(parameters, gradient))
    return parameters[:, VECTOR_SIZE:]
