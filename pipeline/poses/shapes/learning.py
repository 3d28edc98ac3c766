"""Learns modes of shape from the masks of a collection and the poses that were chosen for them.

Shapes are random multiples of smooth fields: normal, with a mean and a covariance that are estimated by
turns with the shapes themselves (empirical Bayes; an expectation-maximization whose expectation is
replaced by the mode). The principal components of the displacements are the modes of shape.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh
from pipeline.poses.shapes.family import Family, Fit, fit_shapes
from pipeline.poses.shapes.fields import smooth_fields
from pipeline.poses.shapes.thin_parts import Targets

SPREAD = 0.1  # of the smoothest displacement before anything is known, as --adapt_shape suggests
BELIEF = 20.0  # images that this counts as
ROUNDS, STEPS = 3, 20
CHUNK = 32  # images that are fitted at a time


class Examples(NamedTuple):
    """What shapes are learned from.

    Attributes:
        targets: n masks.
        vectors: (n, 8) poses.
        weight: (n,) probability that they are right.
    """

    targets: Targets
    vectors: Tensor
    weight: Tensor


def learn_family(template: Tensor, mesh: SphereMesh, examples: Examples, count: int) -> Family:
    """Learns the mean shape and `count` modes of the objects that one template (V, 3) stands for."""
    fields = smooth_fields(template, mesh).to(template)
    mean, covariance = _estimate(template, mesh.faces, fields, examples)
    shape = template + torch.einsum("j,jvc->vc", mean, fields)
    return Family(shape, principal_modes(fields, covariance, count), mesh.faces)


def principal_modes(fields: Tensor, covariance: Tensor, count: int) -> Tensor:
    """Returns the principal components (count, V, 3) of random displacements, at their usual size.

    Args:
        fields: (J, V, 3).
        covariance: (J, J) of their coefficients.
        count: how many components; those of the largest mean square displacement.
    """
    # The same sum of squares as of displacements, for vectors of J numbers
    table = fields.double().flatten(1)
    values, basis = torch.linalg.eigh(table @ table.T)
    root = basis * values.clamp(min=0).sqrt()
    variances, axes = torch.linalg.eigh(root.T @ covariance.double() @ root)
    leading = variances.argsort(descending=True)[:count]
    # Back to displacements: root^T x are the coordinates of fields^T x in an orthonormal basis
    units = (basis * values.clamp(min=1e-12 * values.amax()).rsqrt()).T @ table
    modes = (axes[:, leading] * variances[leading].clamp(min=0).sqrt()).T @ units
    return modes.reshape(count, *fields.shape[1:]).to(fields)


def _estimate(
    template: Tensor, faces: Tensor, fields: Tensor, examples: Examples
) -> tuple[Tensor, Tensor]:
    """Returns mean (J,) and covariance (J, J) of the coefficients of fields."""
    count, dimension = len(examples.vectors), len(fields)
    prior = SPREAD**2 * torch.eye(dimension).to(fields)
    mean, covariance = fields.new_zeros(dimension), prior
    if count == 0:
        return mean, covariance
    vectors, coefficients = examples.vectors, fields.new_zeros(count, dimension)
    share = examples.weight / examples.weight.sum()
    for _ in range(ROUNDS):
        # Coefficients in units of the present spreads
        root = torch.linalg.cholesky(covariance)
        shape = template + torch.einsum("j,jvc->vc", mean, fields)
        family = Family(shape, torch.einsum("jm,jvc->mvc", root, fields), faces)
        units = torch.linalg.solve_triangular(root, (coefficients - mean).T, upper=False).T
        found = _fit_all(family, examples.targets, Fit(vectors, units))
        vectors, coefficients = found.vectors, mean + found.coefficients @ root.T
        # What they tell about the collection
        mean = share @ coefficients
        apart = coefficients - mean
        scatter = torch.einsum("n,ni,nj->ij", share, apart, apart)
        covariance = (count * scatter + BELIEF * prior) / (count + BELIEF)
    return mean, covariance


def _fit_all(family: Family, targets: Targets, start: Fit) -> Fit:
    """Fits all examples, a fixed number at a time."""
    found = [
        fit_shapes(family, targets.select(rows), Fit(*(x[rows] for x in start)), STEPS)
        for first in range(0, len(start.vectors), CHUNK)
        for rows in [slice(first, first + CHUNK)]
    ]
    return Fit(*(torch.cat(members) for members in zip(*found, strict=True)))
