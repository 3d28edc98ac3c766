"""Modes of partly unseen maps, against closed forms and dense normal distributions."""

import numpy as np
import pytest
import torch
from scipy import stats

from models.conditions import Conditions
from pipeline.generation.linear import modes
from pipeline.generation.linear.generator import LinearGenerator, design, from_state

COUNT, TEXELS, CHANNELS, RANK = 60, 7, 2, 2


def made_maps(seed: int = 0, *, missing: float = 0.0, classes: int = 0) -> modes.Maps:
    """Maps of two modes and some noise."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(RANK, TEXELS, CHANNELS)) * [[[2]], [[1]]]
    known = np.ones((COUNT, 1))
    if classes:
        labels = torch.from_numpy(rng.integers(0, classes, COUNT))
        known = design(labels, (classes,), COUNT).double().numpy()
    effects = rng.normal(size=(known.shape[1], TEXELS, CHANNELS))
    values = np.einsum("np,ptc->ntc", known, effects)
    values += np.einsum("nk,ktc->ntc", rng.normal(size=(COUNT, RANK)), loadings)
    values += 0.3 * rng.normal(size=values.shape)
    seen = (rng.uniform(size=(COUNT, TEXELS)) >= missing).astype(float)
    arrays = (values * seen[..., None], seen, known)
    return modes.Maps(*(torch.from_numpy(array) for array in arrays))


def test_of_complete_maps_the_modes_are_those_of_the_closed_form() -> None:
    maps = made_maps()
    fitted = modes.fit(maps, RANK, ridge=0, iterations=3000)
    data = maps.values.flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(data.T, bias=True))
    noise = values[:-RANK].mean()
    np.testing.assert_allclose(fitted.basis[..., 0].flatten(), data.mean(0), atol=1e-3)
    assert fitted.variance.item() == pytest.approx(noise, rel=1e-2)
    exact = vectors[:, : -RANK - 1 : -1] * np.sqrt(values[: -RANK - 1 : -1] - noise)
    found = fitted.basis[..., 1:].flatten(0, 1).numpy()
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=0.02)
    np.testing.assert_allclose(
        np.linalg.norm(found, axis=0), np.linalg.norm(exact, axis=0), rtol=0.01
    )


def test_likelihoods_are_those_of_dense_normal_distributions() -> None:
    maps = made_maps(missing=0.4, classes=3)
    fitted = modes.fit(maps, RANK, iterations=3)
    found = modes.expect(maps, fitted)
    known = maps.known.shape[1]
    basis = fitted.basis.numpy()
    for i in range(0, COUNT, 7):
        seen = maps.seen[i].numpy().astype(bool)
        part = basis[seen].reshape(-1, basis.shape[-1])
        mean, loadings = part[:, :known] @ maps.known[i].numpy(), part[:, known:]
        values = maps.values[i].numpy()[seen].ravel()
        covariance = loadings @ loadings.T + fitted.variance.item() * np.eye(len(values))
        expected = stats.multivariate_normal.logpdf(values, mean, covariance)
        assert found.log_likelihood[i].item() == pytest.approx(expected, rel=1e-9)
        codes = loadings.T @ np.linalg.solve(covariance, values - mean)
        np.testing.assert_allclose(found.factors[i, known:], codes, atol=1e-9)


def test_every_iteration_makes_what_was_seen_more_likely() -> None:
    maps = made_maps(missing=0.5, classes=2)
    totals = [
        modes.expect(maps, modes.fit(maps, RANK, ridge=0, iterations=n)).log_likelihood.sum().item()
        for n in range(8)
    ]
    assert np.diff(totals).min() > 0


def test_what_was_not_seen_does_not_count() -> None:
    maps = made_maps(missing=0.5)
    fitted = modes.fit(maps, RANK)
    complete = made_maps()  # the same, all seen
    completed = torch.einsum("tck,nk->ntc", fitted.basis, modes.expect(maps, fitted).factors)
    hidden = maps.seen == 0
    mean = complete.values.mean(0)
    error = (completed - complete.values)[hidden].square().mean()
    assert error < 0.4 * (complete.values - mean)[hidden].square().mean()


def test_the_number_of_modes_is_that_of_the_maps() -> None:
    best, scores = modes.choose_count(made_maps(missing=0.2), (0, 1, 2, 3, 5, 8), every=5)
    assert best == RANK
    assert list(scores)[:3] == [0, 1, 2]


def test_samples_are_means_of_their_labels_and_modes_times_codes() -> None:
    generator = torch.manual_seed(0)
    shape = torch.randn(1 + 3 + 2, 3, 32, 16, generator=generator)
    texture = 0.1 * torch.randn(1 + 3 + 4, 3, 16, 8, generator=generator)
    model = LinearGenerator(shape, texture, 3)
    assert (model.latent_dim, model.num_shape_modes) == (6, 2)
    z = torch.randn(2, 6, generator=generator)
    textures, displacements = model(z, Conditions(torch.tensor([2, 0])))
    for i, label in (0, 2), (1, 0):
        mean = texture[0] + texture[1 + label]
        expected = sum(z[i, 2 + k] * texture[4 + k] for k in range(4)) + mean
        torch.testing.assert_close(textures[i, :, :, 4:12], expected.clamp(-1, 1))
        torch.testing.assert_close(textures[i, :, :, :4], textures[i, :, :, 4:8].flip(-1))
        rows = shape[0] + shape[1 + label] + z[i, 0] * shape[4] + z[i, 1] * shape[5]
        torch.testing.assert_close(displacements[i, :, 1:-1, 8:24], rows[:, 1:-1])
    # One sample is the same as among others
    alone, _ = model(z[1:], Conditions(torch.tensor([0])))
    assert torch.equal(alone[0], textures[1])
    restored = from_state(model.state_dict())
    assert torch.equal(restored(z, Conditions(torch.tensor([2, 0])))[0], textures)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": torch.zeros(2, 3, 32, 32)},
        {"classes": torch.tensor([9])},
        {"texture": torch.zeros(3)},
    ],
)
def test_damaged_models_are_refused(change: dict[str, torch.Tensor]) -> None:
    state = LinearGenerator(torch.zeros(3, 3, 32, 16), torch.zeros(4, 3, 8, 4), 0).state_dict()
    with pytest.raises(ValueError, match="shapes"):
        from_state({**state, **change})
