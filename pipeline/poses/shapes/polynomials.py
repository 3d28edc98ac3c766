"""Low-frequency shapes: stretches, tapers and bends that fit a template to the object of a mask."""

import torch
from torch import Tensor

NOISE = 0.1  # as that of the view prior: effective sample size 20, variance = current residual


def deformation_fields(vertices: Tensor) -> Tensor:
    """Returns the mirror-symmetric fields (..., 11, V, 3) of vertices (..., V, 3).

    Each moves along one axis by a monomial of degree one or two. Those that a rotation imitates are
    left out, since the object may lift its head, but the axes stay.
    """
    x, y, z = vertices.unbind(-1)
    # Monomials by which each axis moves, even in x but for the axis x itself
    along = ((x, x * y, x * z), (y, y * y, y * z, z * z), (z, y * y, y * z, z * z))
    fields = []
    for axis, monomials in enumerate(along):
        for monomial in monomials:
            field = torch.zeros_like(vertices)
            field[..., axis] = monomial
            fields.append(field)
    return torch.stack(fields, dim=-3)


def with_shape(error: Tensor, coefficients: Tensor) -> Tensor:
    """Adds the prior penalty of coefficients (B, M) of unit spread to mean squared errors (B,)."""
    energy = torch.zeros_like(error)
    for coefficient in coefficients.unbind(1):
        energy = energy + coefficient.square() / 2
    return error + NOISE * error.detach() * energy
