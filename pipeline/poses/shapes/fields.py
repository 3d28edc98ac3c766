"""Smooth displacement fields of a mesh: eigenfunctions of its Laplacian, as vibrations of a membrane.

On an animal the first ones bend and stretch the trunk, the next ones move neck, legs and tail.
"""

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh

NUM_EVEN = 14  # functions that move along y and z
NUM_ODD = 4  # functions that move along x


def smooth_fields(vertices: Tensor, mesh: SphereMesh) -> Tensor:
    """Returns mirror-symmetric fields (J, V, 3) of a symmetric mesh (V, 3), the smoothest of J first.

    The root mean square of a displacement is the root of the ratio of eigenvalues: random multiples of
    unit spread have equal energy in all fields. They neither move nor turn the object about its lateral
    axis, nor scale it, since its pose does that.
    """
    # Eigenfunctions on one half of the mesh, continued to the other one
    vertices = vertices.double().cpu()
    stiffness, area = cotangent_laplacian(vertices, mesh.faces.cpu())
    fields = []
    for sign, count, axes in ((1, NUM_EVEN, (1, 2)), (-1, NUM_ODD, (0,))):
        values, functions = _eigenfunctions(stiffness, area, _extension(mesh, sign), count)
        fields += [
            (value, axis, f) for value, f in zip(values, functions.T, strict=True) for axis in axes
        ]
    fields.sort(key=lambda field: field[:2])
    # Displacements along one axis each, smaller where they are rougher
    softest = fields[0][0]
    table = torch.zeros(len(fields), len(vertices), 3, dtype=torch.float64)
    for row, (value, axis, function) in zip(table, fields, strict=True):
        row[:, axis] = (softest / value) ** 0.5 * function
    return _without_motions(table, vertices, area).float()


def cotangent_laplacian(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the stiffness matrix (V, V) of a mesh (V, 3) and the area (V,) around its vertices.

    The Dirichlet energy of a function f that is linear on every face is f^T stiffness f / 2.
    """
    count = len(vertices)
    stiffness, area = vertices.new_zeros(count, count), vertices.new_zeros(count)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        # The angle at corner k is opposite to the edge from i to j
        first, second, corner = faces[:, i], faces[:, j], faces[:, k]
        a, b = vertices[first] - vertices[corner], vertices[second] - vertices[corner]
        doubled = torch.linalg.cross(a, b).norm(dim=1).clamp(min=1e-12)
        weight = (a * b).sum(1) / doubled / 2
        for p, q, w in ((first, first, weight), (second, second, weight), (first, second, -weight), (second, first, -weight)):  # fmt: skip
            stiffness.index_put_((p, q), w, accumulate=True)
        area.index_put_((corner,), doubled / 6, accumulate=True)
    return stiffness, area


def _extension(mesh: SphereMesh, sign: int) -> Tensor:
    """Returns the matrix (V, n) that continues a function of the nonnegative side evenly or oddly."""
    side = mesh.nonnegative if sign > 0 else mesh.positive
    matrix = torch.zeros(len(mesh.vertices), len(side), dtype=torch.float64)
    matrix[side.cpu(), torch.arange(len(side))] = 1
    matrix[mesh.negative.cpu(), torch.arange(len(mesh.negative))] = float(sign)
    return matrix


def _eigenfunctions(
    stiffness: Tensor, area: Tensor, extension: Tensor, count: int
) -> tuple[list[float], Tensor]:
    """Returns the lowest eigenvalues above 0, and functions (V, count) of mean square 1 over the surface."""
    # The generalized problem K f = value M f, with the diagonal M taken to both sides
    reduced = extension.T @ stiffness @ extension
    root = (extension.square().T @ area).sqrt()
    values, functions = torch.linalg.eigh(reduced / root[:, None] / root)
    # The constant function is a motion
    first = int(values[0] < 1e-6 * values[-1])
    chosen = slice(first, first + count)
    functions = extension @ (functions[:, chosen] / root[:, None])
    # The sign of an eigenfunction is arbitrary
    largest = functions.abs().argmax(dim=0)
    sign = functions[largest, torch.arange(count)].sign()
    return values[chosen].tolist(), functions * sign * area.sum().sqrt()


def _without_motions(fields: Tensor, vertices: Tensor, area: Tensor) -> Tensor:
    """Subtracts from fields (J, V, 3) what a change of position, pitch or scale does, least squares by area."""
    x, y, z = vertices.unbind(1)
    none, one = torch.zeros_like(x), torch.ones_like(x)
    motions = [(none, one, none), (none, none, one), (none, -z, y), (x, y, z)]
    weight = (area / area.sum()).sqrt()[:, None]
    basis = torch.stack([(weight * torch.stack(m, dim=1)).flatten() for m in motions], dim=1)
    basis = torch.linalg.qr(basis).Q
    weighted = (weight * fields).flatten(1)
    return ((weighted - weighted @ basis @ basis.T).reshape(fields.shape)) / weight
