"""Full-matrix Adam for many small independent problems, and moving averages of networks."""

import torch
from torch import Tensor, nn

# Power-iteration vectors of spectral normalization; averages of unit vectors are not unit vectors
_COPIED_SUFFIXES = ("weight_u", "weight_v")


class FullMatrixAdam:
    """Adam whose second moment is a full D x D matrix for each of N independent parameter vectors.

    With g the gradient of one row: C = b2 C + (1 - b2) g g^T, m = b1 m + (1 - b1) g, and the step
    is -lr sqrt(1 - b2^k) / (1 - b1^k) (C + eps I)^(-1/2) m. The epsilon is inside the square
    root. The statistics are float64, because the root amplifies errors of small eigenvalues.

    Attributes:
        lr: learning rate; may change between steps.
        second_moment: (N, D, D).
        first_moment: (N, D).
        step_count: number of steps so far.
    """

    def __init__(
        self,
        parameters: Tensor,
        lr: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        """Prepares zero statistics for parameters of shape (N, D)."""
        if parameters.ndim != 2:
            raise ValueError(f"parameters: expected shape (N, D), got {tuple(parameters.shape)}.")
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.step_count = 0
        self.first_moment = torch.zeros_like(parameters, dtype=torch.float64)
        self.second_moment = torch.diag_embed(self.first_moment)

    @torch.no_grad()
    def step(self, parameters: Tensor, gradients: Tensor) -> Tensor:
        """Returns the parameters (N, D), as a new tensor, after one step with the gradients (N, D)."""
        if parameters.shape != self.first_moment.shape or gradients.shape != parameters.shape:
            raise ValueError(
                f"parameters and gradients: expected shape {tuple(self.first_moment.shape)}, "
                f"got {tuple(parameters.shape)} and {tuple(gradients.shape)}."
            )
        # Exponential averages of the gradient and of its outer product
        beta1, beta2 = self.betas
        g = gradients.double()
        self.step_count += 1
        self.first_moment.lerp_(g, 1 - beta1)
        self.second_moment.lerp_(g[:, :, None] * g[:, None, :], 1 - beta2)
        # (C + eps I)^(-1/2) m in the basis of eigenvectors
        eigenvalues, basis = torch.linalg.eigh(self.second_moment)
        inverse_root = (eigenvalues.clamp(min=0) + self.eps).rsqrt()
        projected = torch.einsum("nij,ni->nj", basis, self.first_moment)
        direction = torch.einsum("nij,nj->ni", basis, inverse_root * projected)
        # Bias correction of both averages, as in Adam
        bias = (1 - beta2**self.step_count) ** 0.5 / (1 - beta1**self.step_count)
        return (parameters.detach().double() - self.lr * bias * direction).to(parameters.dtype)

    def select(self, index: Tensor) -> None:
        """Keeps only the rows of the statistics named by index (M,); the step count stays."""
        self.first_moment = self.first_moment[index]
        self.second_moment = self.second_moment[index]


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Updates moving averages of weights and running statistics: e = decay e + (1 - decay) m.

    Integer entries are copied, and so are the vectors u and v of spectral normalization: the
    average of unit vectors is shorter than one, which would bias the estimated norm.
    """
    source = model.state_dict()
    averaged: list[Tensor] = []
    targets: list[Tensor] = []
    for name, value in ema.state_dict().items():
        new = source[name]
        if value.is_floating_point() and not name.endswith(_COPIED_SUFFIXES):
            averaged.append(value)
            targets.append(new)
        else:
            value.copy_(new)
    # One call for all tensors, which matters on GPUs
    torch._foreach_lerp_(averaged, targets, 1 - decay)  # type: ignore[attr-defined]
