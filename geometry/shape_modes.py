"""Shapes that deviate from a mesh along modes of shape: mesh + sum of coefficients times modes."""

from torch import Tensor


def deform(vertices: Tensor, coefficients: Tensor, modes: Tensor) -> Tensor:
    """Adds modes (B, M, V, 3) times coefficients (B, M) to vertices (B, V, 3)."""
    # One after the other: PyTorch rounds products of differently shaped tensors differently
    for coefficient, mode in zip(coefficients.unbind(1), modes.unbind(1), strict=True):
        vertices = vertices + coefficient[:, None, None] * mode
    return vertices
