"""Tests of the Fréchet distance and its features."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from utils import fid
from utils.cli import UserError
from utils.fid import InceptionFeatures, Moments, ProxyFeatures, frechet_distance


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


def test_distance_equals_the_one_with_a_matrix_root() -> None:
    (m1, s1), (m2, s2) = gaussian(0, 6), gaussian(1, 6)
    root = np.real(sqrtm((s1 @ s2).numpy()))
    expected = (m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * np.trace(root)
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(float(expected))


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
