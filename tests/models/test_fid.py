"""Tests of the Fréchet distance and its features."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from models import fid
from models.fid import (
    FeatureSample,
    InceptionFeatures,
    Moments,
    ProxyFeatures,
    StandardFeatures,
    fingerprint,
    frechet_distance,
    kernel_distance,
)
from utils import distributed
from utils.cli import UserError


def gaussian(seed: int, dimension: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return torch.randn(dimension, generator=generator, dtype=torch.float64), root @ root.T


def test_moments_of_batches_equal_those_of_the_whole() -> None:
    x = torch.randn(23, 5, generator=torch.Generator().manual_seed(0)) + 100
    moments = Moments(5)
    for batch in x.split(7):
        moments.update(batch)
    mean, covariance = moments.result()
    torch.testing.assert_close(mean, x.double().mean(0))
    torch.testing.assert_close(covariance, x.double().T.cov())
    assert moments.count == 23


def test_moments_of_one_vector_are_refused() -> None:
    moments = Moments(3)
    moments.update(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least 2"):
        moments.result()


def published_formula(x: np.ndarray, y: np.ndarray) -> float:
    """The distance as pytorch-fid computes it from the features."""
    m1, m2, s1, s2 = x.mean(0), y.mean(0), np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(sqrtm(s1 @ s2))
    return float((m1 - m2) @ (m1 - m2) + np.trace(s1) + np.trace(s2) - 2 * np.trace(root))


def features(seed: int, count: int, dimension: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, dimension)) @ rng.normal(size=(dimension, dimension))
    return np.abs(mixed) * 0.1 + rng.uniform(size=dimension)


def distance_of(x: np.ndarray, y: np.ndarray, batch: int) -> float:
    results = []
    for values in (x, y):
        moments = Moments(values.shape[1])
        for part in torch.from_numpy(values).split(batch):
            moments.update(part)
        results += moments.result()
    return frechet_distance(*results)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_distance_of_features_equals_the_published_formula(batch: int) -> None:
    x, y = features(0, 300, 64), features(1, 200, 64)
    assert distance_of(x, y, batch) == pytest.approx(published_formula(x, y), abs=1e-6)


def test_distance_of_few_images_equals_the_one_in_their_own_subspace() -> None:
    """Singular covariances: 20 images in 64 dimensions that all vary in the same 10 directions."""
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(64, 10)))[0]
    x, y = features(0, 20, 10), features(1, 20, 10)
    expected = published_formula(x, y)
    assert distance_of(x @ basis.T, y @ basis.T, 5) == pytest.approx(expected, abs=1e-6)


def _distance_in_processes(device: torch.device, x: np.ndarray, y: np.ndarray) -> tuple:
    results, samples = [], []
    for values in (x, y):
        moments, sample = Moments(values.shape[1]), FeatureSample(len(values))
        mine = distributed.shard(len(values))
        for start in range(mine.start, mine.stop, 3):
            numbers = range(start, min(start + 3, mine.stop))
            rows = torch.from_numpy(values[numbers.start : numbers.stop])
            moments.update(rows)
            sample.update(rows, numbers)
        moments.reduce()
        results += moments.result()
        samples.append(sample.result())
    return frechet_distance(*results), samples


@pytest.mark.slow
def test_distance_does_not_depend_on_the_number_of_processes() -> None:
    x, y = features(0, 50, 8), features(1, 41, 8)
    cpu = torch.device("cpu")
    one, samples = distributed.launch(_distance_in_processes, [cpu], x, y)
    two, shared = distributed.launch(_distance_in_processes, [cpu, cpu], x, y)
    assert one == pytest.approx(two, abs=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(samples, shared, strict=True))


def test_processes_exchange_their_moments_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(fid, "all_reduce_", calls.append)
    moments = Moments(4)
    moments.update(torch.ones(2, 4))
    moments.reduce()
    assert len(calls) == 1


def test_samples_are_spread_evenly_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fid, "SAMPLE_SIZE", 4)
    values = torch.arange(11.0)[:, None]
    for size in (1, 3, 11):
        sample = FeatureSample(11)
        for numbers in torch.arange(11).split(size):
            sample.update(values[numbers], numbers.tolist())
        assert sample.result().flatten().tolist() == [0, 3, 6, 9]


def test_kernel_distance_equals_its_definition() -> None:
    x, y = features(0, 5, 3), features(1, 4, 3)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    def pairs(z: np.ndarray) -> float:
        n = len(z)
        return sum(kernel(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    across = np.mean([kernel(a, b) for a in x for b in y])
    expected = pairs(x) + pairs(y) - 2 * float(across)
    assert kernel_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected)


def test_kernel_distance_of_equal_distributions_is_zero_on_average() -> None:
    values = [
        kernel_distance(*torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(i)))
        for i in range(300)
    ]
    mean, error = np.mean(values), np.std(values) / len(values) ** 0.5
    assert abs(mean) < 3 * error


def test_fingerprints_tell_networks_apart() -> None:
    assert fingerprint(ProxyFeatures(3)) == fingerprint(ProxyFeatures(3))
    assert fingerprint(ProxyFeatures(3)) != fingerprint(ProxyFeatures(4))


def test_standard_features_average_without_the_padding(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    reference = inception_v3(
        weights=None, init_weights=False, aux_logits=False, num_classes=fid.STANDARD_CLASSES
    )
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    features = StandardFeatures(tmp_path / "weights.pth")
    network: Any = features.network
    images = torch.rand(2, 3, 90, 80)
    assert features(images).shape == (2, 2048)
    x = torch.rand(1, 192, 5, 5)
    ones = torch.ones(1, 1, 7, 7)
    ones[..., [0, -1], :] = ones[..., [0, -1]] = 0
    summed = 9 * torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1)), 3, 1)
    mean = summed / (9 * torch.nn.functional.avg_pool2d(ones, 3, 1))
    block = network.Mixed_5b
    torch.testing.assert_close(block(x)[:, -32:], block.branch_pool(mean))
    x = torch.rand(1, 2048, 3, 3)
    expected = network.Mixed_7c.branch_pool(torch.nn.functional.max_pool2d(x, 3, 1, 1))
    torch.testing.assert_close(network.Mixed_7c(x)[:, -192:], expected)
    with pytest.raises(UserError, match="pt_inception-2015"):
        StandardFeatures(tmp_path / "absent.pth")


def test_distance_is_zero_for_equal_and_finite_for_singular_covariances() -> None:
    mean, covariance = gaussian(2, 6)
    assert frechet_distance(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-9)
    flat = torch.zeros(6, 6, dtype=torch.float64)
    flat[0, 0] = 4.0
    assert frechet_distance(mean, flat, mean + 1, 0 * flat) == pytest.approx(6 + 4)


def test_proxy_features_are_repeatable_and_tell_collections_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(40, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(smooth, 64, mode="bilinear")
    noise = torch.rand(20, 3, 64, 64, generator=generator)
    network = ProxyFeatures(3)
    assert torch.equal(network(noise), ProxyFeatures(3)(noise))
    results = []
    for images in (smooth[:20], smooth[20:], noise):
        moments = Moments(network.dimension)
        moments.update(network(images))
        results.append(moments.result())
    assert frechet_distance(*results[0], *results[1]) < frechet_distance(*results[0], *results[2])


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_weights_are_read_from_a_path_or_the_cache(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    reference = inception_v3(weights=None, init_weights=False)
    path = tmp_path / "weights.pth"
    torch.save(reference.state_dict(), path)
    images = torch.rand(1, 3, 80, 80)
    features = InceptionFeatures(path)(images)
    assert features.shape == (1, 2048)
    with pytest.raises(UserError, match="--inception_weights"):
        InceptionFeatures()
    cache = tmp_path / "hub/checkpoints/inception_v3_google-0cc3c7bd.pth"
    cache.parent.mkdir(parents=True, exist_ok=True)
    path.rename(cache)
    assert torch.equal(InceptionFeatures()(images), features)


@pytest.mark.usefixtures("no_network")
def test_wrong_weight_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        InceptionFeatures(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="damaged"):
        InceptionFeatures(tmp_path / "text.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the weights"):
        InceptionFeatures(tmp_path / "other.pth")
    assert fid.INCEPTION_URL.endswith("0cc3c7bd.pth")
