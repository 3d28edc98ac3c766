"""Gradient descent for surfaces: gradients are spread over the mesh, so that whole limbs move at once.

Nicolet, Jacobson and Jakob 2021, "Large Steps in Inverse Rendering of Geometry".
"""

import torch
from torch import Tensor

from geometry.operators import stiffness_matrix

MOMENTUM, MEMORY = 0.9, 0.95  # decay of the mean gradient, and of its largest square


class SurfaceDescent:
    """Moves the vertices of T meshes with the same faces; the stiffer, the smoother the steps.

    The state is the vertices times the stiffness matrix. Adam makes the steps, with one length for
    all vertices of a mesh, which leaves the stiffness its effect.
    """

    def __init__(self, vertices: Tensor, faces: Tensor, stiffness: float) -> None:
        """Starts from vertices (T, V, 3) with faces (F, 3)."""
        stiff = stiffness_matrix(faces, vertices.shape[1], stiffness)
        self._relax = torch.cholesky_inverse(torch.linalg.cholesky(stiff))
        self._state = (stiff @ vertices).requires_grad_()
        self._mean = torch.zeros_like(vertices)
        self._square = vertices.new_zeros(len(vertices), 1, 1)
        self._count = 0

    def vertices(self) -> Tensor:
        """Returns the vertices (T, V, 3), differentiable in the state."""
        return self._relax @ self._state

    def step(self, loss: Tensor, rate: float) -> None:
        """Moves down the gradient of a loss that `vertices` went into; the rate is the step length."""
        (gradient,) = torch.autograd.grad(loss, self._state)
        self._count += 1
        self._mean.lerp_(gradient, 1 - MOMENTUM)
        largest = gradient.square().sum(2, keepdim=True).amax(1, keepdim=True)
        self._square.lerp_(largest, 1 - MEMORY)
        mean = self._mean / (1 - MOMENTUM**self._count)
        size = (self._square / (1 - MEMORY**self._count)).sqrt() + 1e-12
        self._state = (self._state.detach() - rate * mean / size).requires_grad_()
