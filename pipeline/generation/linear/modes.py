"""Modes of maps that are partly unseen: probabilistic principal component analysis by expectation maximization.

Tipping and Bishop 1999, "Probabilistic principal component analysis", with missing values and with
known factors: x = A h + W z + noise, where h is known (1, and the labels), z and the noise are normal, of
variance 1 and s^2. Liu, Rubin and Wu 1998, "Parameter expansion to accelerate EM", gives the scale of z.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

ITERATIONS = 40
_TOLERANCE = 1e-5  # relative change of the log-likelihood at which the iterations end
_CLEARLY = 0.002  # difference of mean log-likelihoods that is worth more modes
RIDGE = 1.0  # photographs of each texel that show modes to have no effect
_FLOOR = 1e-6  # of that on what is known, and of the variance of the noise


class Maps(NamedTuple):
    """N maps of T texels and C channels, in double precision.

    Attributes:
        values: (N, T, C), 0 where unseen.
        seen: (N, T) 0 or 1.
        known: (N, P) known factors, of which the first is 1.
    """

    values: Tensor
    seen: Tensor
    known: Tensor

    def select(self, rows: Tensor) -> "Maps":
        """Returns some of the maps, by index or mask."""
        return Maps(*(member[rows] for member in self))


class Modes(NamedTuple):
    """A fitted model.

    Attributes:
        basis: (T, C, P + K) effects of the known factors, and modes.
        variance: s^2.
    """

    basis: Tensor
    variance: Tensor


class Posterior(NamedTuple):
    """What maps tell of their codes.

    Attributes:
        factors: (N, P + K) known factors and posterior means of the codes.
        moments: (N, P + K, P + K) second moments of these.
        log_likelihood: (N,) of what was seen.
    """

    factors: Tensor
    moments: Tensor
    log_likelihood: Tensor


def fit(maps: Maps, count: int, ridge: float = RIDGE, iterations: int = ITERATIONS) -> Modes:
    """Fits a number of modes, which then are orthogonal, the strongest first.

    Args:
        maps: of which no value is used where nothing was seen.
        count: K, number of modes; at most the number of maps.
        ridge: weight of the prior that modes have no effect; 0 is maximum likelihood.
        iterations: at most so many.
    """
    known = maps.known.shape[1]
    factors = torch.cat([maps.known, _first_codes(maps, count, ridge)], dim=1)
    moments = factors[:, :, None] * factors[:, None]
    modes, before = _maximize(maps, factors, moments, known, ridge), -torch.inf
    for _ in range(iterations):
        posterior = expect(maps, modes)
        modes = _maximize(maps, posterior.factors, posterior.moments, known, ridge)
        total = posterior.log_likelihood.sum().item()
        if abs(total - before) < _TOLERANCE * abs(total):
            break
        before = total
    return _ordered(modes, known)


def expect(maps: Maps, modes: Modes) -> Posterior:
    """Returns what maps tell of their codes, and how likely they are."""
    known = maps.known.shape[1]
    variance, basis = modes.variance, modes.basis
    # Products of the basis at every texel, summed over those that each map shows
    products = torch.einsum("tca,tcb->tab", basis, basis).flatten(1)
    gram = (maps.seen @ products).unflatten(1, (basis.shape[2],) * 2)  # (N, P + K, P + K)
    projected = maps.values.flatten(1) @ basis.flatten(0, 1)  # (N, P + K)
    # The maps without the effects of what is known
    shift = torch.einsum("nkp,np->nk", gram[:, :, :known], maps.known)
    residual = projected - shift
    squares = maps.values.square().sum((1, 2)) - (
        (projected + residual)[:, :known] * maps.known
    ).sum(1)
    precision = gram[:, known:, known:] / variance + torch.eye(basis.shape[2] - known).to(gram)
    root = torch.linalg.cholesky(precision)
    right = residual[:, known:, None] / variance
    covariance = torch.cholesky_inverse(root)
    codes = (covariance @ right)[..., 0]
    # Of a normal distribution, by the determinant and inverse of its low-rank covariance
    entries = maps.seen.sum(1) * maps.values.shape[2]
    log_determinant = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    exponent = squares / variance - (right[..., 0] * codes).sum(1)
    constant = entries * torch.log(2 * torch.pi * variance)
    factors = torch.cat([maps.known, codes], dim=1)
    moments = factors[:, :, None] * factors[:, None]
    moments[:, known:, known:] += covariance
    return Posterior(factors, moments, -0.5 * (constant + log_determinant + exponent))


def choose_count(maps: Maps, counts: tuple[int, ...], every: int) -> tuple[int, dict[int, float]]:
    """Returns the number of modes under which held-out maps are most likely, and the likelihoods.

    Args:
        maps: of which number every - 1 of `every` is held out.
        counts: numbers to try, ascending; those that are no longer smaller than the rest are left out,
            and after two that are worse than the best no more are tried.
        every: number of parts.

    Returns:
        The best number, and by number the mean log-likelihood of a seen value.
    """
    held = torch.arange(len(maps.values)) % every == every - 1
    trained, tested = maps.select(~held), maps.select(held)
    entries = tested.seen.sum() * maps.values.shape[2]
    scores: dict[int, float] = {}
    for count in counts:
        if count >= len(trained.values):
            break
        likelihood = expect(tested, fit(trained, count)).log_likelihood.sum()
        scores[count] = (likelihood / entries).item()
        if counts.index(count) - counts.index(_best(scores)) >= 2:
            break
    return _best(scores), scores


def _best(scores: Mapping[int, float]) -> int:
    """Returns the smallest number of modes that no other surpasses clearly."""
    return min(n for n, score in scores.items() if score > max(scores.values()) - _CLEARLY)


def _first_codes(maps: Maps, count: int, ridge: float) -> Tensor:
    """Returns codes (N, K) to begin with: principal components of what the known factors leave."""
    moments = maps.known[:, :, None] * maps.known[:, None]
    means = _maximize(maps, maps.known, moments, maps.known.shape[1], ridge).basis
    expected = torch.einsum("tcp,np->ntc", means, maps.known)
    left = ((maps.values - expected) * maps.seen[..., None]).flatten(1)
    _, vectors = torch.linalg.eigh(left @ left.T)
    return vectors[:, len(vectors) - count :].flip(1) * len(vectors) ** 0.5


def _maximize(maps: Maps, factors: Tensor, moments: Tensor, known: int, ridge: float) -> Modes:
    """Returns the model that fits best, given the codes."""
    size = factors.shape[1]
    # A regression of each texel on the factors of the maps that show it
    gram = (maps.seen.T @ moments.flatten(1)).unflatten(1, (size, size))
    right = (maps.values.flatten(1).T @ factors).unflatten(0, maps.values.shape[1:])  # (T, C, size)
    penalty = torch.zeros(size).to(gram)
    penalty[known:] = ridge
    regular = gram + torch.diag(penalty + _FLOOR)
    basis = torch.linalg.solve(regular, right.transpose(1, 2)).transpose(1, 2)
    squares = (
        maps.values.square().sum()
        - 2 * (basis * right).sum()
        + torch.einsum("tca,tcb,tab->", basis, basis, gram)
    )
    variance = squares / (maps.seen.sum() * maps.values.shape[2])
    # Codes of variance 1
    if size > known:
        scale = torch.linalg.cholesky(moments[:, known:, known:].mean(0))
        basis = torch.cat([basis[..., :known], basis[..., known:] @ scale], dim=-1)
    return Modes(basis, variance.clamp(min=_FLOOR))


def _ordered(modes: Modes, known: int) -> Modes:
    """Turns the modes of a model so that they are orthogonal, the strongest first."""
    weights = modes.basis[..., known:].flatten(0, 1)  # (T C, K)
    _, vectors = torch.linalg.eigh(weights.T @ weights)
    turned = weights @ vectors.flip(1)
    # The sign of a mode means nothing: its largest entry is positive
    if turned.numel():
        turned = turned * turned.gather(0, turned.abs().argmax(0, keepdim=True)).sign()
    basis = torch.cat(
        [modes.basis[..., :known], turned.unflatten(0, modes.basis.shape[:2])], dim=-1
    )
    return Modes(basis, modes.variance)
