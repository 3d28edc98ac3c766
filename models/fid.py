"""Distances between sets of images: features, streaming moments, Fréchet and kernel distance."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import checkpoint
from utils.cli import UserError
from utils.distributed import all_reduce_, barrier, gather, is_main
from utils.seeding import torch_generator

INCEPTION_URL = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
STANDARD_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
INCEPTION_SIZE = 299
STANDARD_CLASSES = 1008  # outputs of the network that TensorFlow published in 2015
SAMPLE_SIZE = 1000  # images that the kernel distance compares


class Moments:
    """Mean and covariance of feature vectors that arrive in batches, in double precision.

    Attributes:
        count: number of vectors seen.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        # One tensor, so that processes exchange it at once
        self._totals = torch.zeros(1 + dimension + dimension**2, dtype=torch.float64, device=device)
        self._count, self._sum, products = self._totals.split((1, dimension, dimension**2))
        self._products = products.view(dimension, dimension)

    @property
    def count(self) -> int:
        """Number of vectors seen."""
        return int(self._count)

    def update(self, features: Tensor) -> None:
        """Adds vectors (B, D)."""
        features = features.detach().to(self._sum)
        self._count += len(features)
        self._sum += features.sum(0)
        self._products.addmm_(features.T, features)

    def reduce(self) -> None:
        """Adds up the sums of all processes; every process then has the moments of all vectors."""
        all_reduce_(self._totals)

    def result(self) -> tuple[Tensor, Tensor]:
        """Returns the mean (D,) and the unbiased covariance (D, D), float64 on the CPU.

        Raises:
            ValueError: if fewer than two vectors were added.
        """
        if self.count < 2:
            raise ValueError(f"moments: expected at least 2 vectors, got {self.count}.")
        mean = self._sum / self._count
        covariance = (self._products - self._count * mean.outer(mean)) / (self._count - 1)
        return mean.cpu(), covariance.cpu()


class FeatureSample:
    """At most SAMPLE_SIZE feature vectors, evenly spaced in a numbered collection of images.

    Args:
        count: images in the collection, over all processes.
    """

    def __init__(self, count: int) -> None:
        self._step = -(-count // SAMPLE_SIZE)
        self._kept: list[Tensor] = []

    def update(self, features: Tensor, numbers: Sequence[int]) -> None:
        """Adds those of the vectors (B, D) that belong to the sample, by their images' numbers."""
        rows = [row for row, number in enumerate(numbers) if number % self._step == 0]
        self._kept.append(features[rows].detach().float().cpu())

    def result(self) -> Tensor:
        """Returns the vectors (n, D) of all processes, in the order of their ranks."""
        return torch.cat([vectors for kept in gather(self._kept) for vectors in kept])


def frechet_distance(
    mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
) -> float:
    """Returns |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two normal distributions.

    With S = R R^T for both, the eigenvalues of (S1 S2)^(1/2) are the singular values of R1^T R2. These
    are as exact as the roots R, also where the covariances are singular: S1 S2 is never formed.

    Args:
        mean1, mean2: (D,).
        covariance1, covariance2: (D, D), symmetric.
    """
    # Double precision: the trace terms cancel to a small difference
    m1, s1, m2, s2 = (x.double() for x in (mean1, covariance1, mean2, covariance2))
    shared = torch.linalg.svdvals(_root(s1).T @ _root(s2)).sum()
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * shared)


def _root(covariance: Tensor) -> Tensor:
    """Returns R (D, rank) with R R^T = S; directions whose variance is rounding noise are dropped."""
    # Symmetric root by eigenvectors; noise can make zero eigenvalues slightly negative
    variances, basis = torch.linalg.eigh(covariance)
    noise = len(variances) * torch.finfo(variances.dtype).eps * variances.abs().max()
    kept = variances > noise
    return basis[:, kept] * variances[kept].sqrt()


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Returns the squared maximum mean discrepancy under the kernel (a.b / D + 1)^3, unbiased.

    With Inception features it is known as KID (https://arxiv.org/abs/1801.01401). Unlike the Fréchet
    distance, its expectation does not depend on the number of images, so that it suits small
    collections.

    Args:
        x: (n, D) features, n > 1.
        y: (m, D) features, m > 1.
    """
    # U-statistic: pairs of an image with itself are left out
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean())


def fingerprint(network: nn.Module) -> str:
    """Returns a hash of what determines the features of a network: its class and all weights."""
    digest = hashlib.sha256(type(network).__name__.encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class InceptionFeatures(nn.Module):
    """Pooled features of torchvision's Inception v3, trained on ImageNet, as in the published evaluation.

    These are not the weights ported from TensorFlow: scores are not comparable with standard FID.

    Args:
        weights_path: torchvision's file of weights; None takes it from torch's cache or downloads it.

    Raises:
        UserError: if the weights cannot be downloaded or do not fit.
    """

    name = "FID"
    dimension = 2048

    def __init__(self, weights_path: str | Path | None = None) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        path = Path(weights_path) if weights_path is not None else _cached_weights()
        self.network = inception_v3(weights=None, init_weights=False, transform_input=False)
        _load_weights(self.network, path, f"Get the file from {INCEPTION_URL}.")
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, h, w) in [0, 1] to features (B, 2048)."""
        # The network expects 299 pixels in [-1, 1]
        size = (INCEPTION_SIZE, INCEPTION_SIZE)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return self.network(2 * images - 1)


class StandardFeatures(InceptionFeatures):
    """Pooled features of TensorFlow's Inception of 2015, with which FID is commonly reported.

    The same layers as torchvision's, but averages leave the padding out, and the last block takes
    maxima.

    Args:
        weights_path: file with the weights in torchvision's names, as pytorch-fid distributes it.

    Raises:
        UserError: if the file is missing or does not fit.
    """

    name = "standard FID"

    def __init__(self, weights_path: str | Path) -> None:
        nn.Module.__init__(self)
        from torchvision.models import inception_v3

        self.network = inception_v3(
            weights=None, init_weights=False, aux_logits=False, num_classes=STANDARD_CLASSES
        )
        # TensorFlow excludes padding from averages, and pools maxima in the last block
        for name, block in self.network.named_children():
            if hasattr(block, "branch_pool"):
                _replace_pooling(block, _maximum if name == "Mixed_7c" else _average)
        _load_weights(self.network, Path(weights_path), f"Get the file from {STANDARD_URL}.")
        self.eval().requires_grad_(False)


def _replace_pooling(block: Any, pool: Callable[[Tensor], Tensor]) -> None:
    """Replaces the pooling in the last branch of an Inception block."""
    # The pooling branch comes last; only it is computed again
    branches = block._forward
    block._forward = lambda x: [*branches(x)[:-1], block.branch_pool(pool(x))]


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _load_weights(network: Any, path: Path, remedy: str) -> None:
    """Loads the weights of an Inception network and removes its classifier."""
    weights = checkpoint.load(path, remedy=remedy)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError):
        raise UserError(f"{path} does not hold the weights of this network. {remedy}") from None
    if not all(x.isfinite().all() for x in network.state_dict().values()):
        raise UserError(f"{path} has weights that are not finite numbers. {remedy}")
    network.fc = nn.Identity()


class ProxyFeatures(nn.Module):
    """Features of a random convolutional network, to compare runs without Inception weights.

    Mean and standard deviation of every channel over the image, at three scales. Distances between
    such features rank collections by similarity, but their values are not FIDs.

    Args:
        seed: seed of the random weights; only distances of equal seeds are comparable.
    """

    name = "proxy distance, not FID"
    size = 128
    channels = (3, 16, 32, 64)
    dimension = 2 * sum(channels)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch_generator(seed, "proxy features")
        self.layers = nn.ModuleList()
        for inputs, outputs in zip(self.channels, self.channels[1:], strict=False):
            layer = nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=False)
            deviation = (2 / (inputs * 25)) ** 0.5  # keeps the variance through the rectifiers
            layer.weight.data.normal_(std=deviation, generator=generator)
            self.layers.append(layer)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, h, w) in [0, 1] to features (B, dimension)."""
        size = (self.size, self.size)
        x = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        x = 2 * x - 1
        # Colors first, then rectified responses of random filters at three scales
        statistics = [x.mean((2, 3)), x.std((2, 3))]
        for layer in self.layers:
            x = F.relu(layer(x))
            statistics += [x.mean((2, 3)), x.std((2, 3))]
        return torch.cat(statistics, 1)


def _cached_weights() -> Path:
    """Path of torchvision's weights in torch's cache, downloaded by the first process if missing."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(INCEPTION_URL).name
    mistake = None
    if is_main() and not path.exists():
        try:
            _download(path)
        except UserError as error:
            mistake = error
    barrier()  # Also after a failure: the other processes wait here
    if mistake is not None:
        raise mistake
    if not path.exists():
        raise UserError(f"{path} could not be downloaded; see the first process.")
    return path


def _download(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name of the file ends with the start of its hash
    checksum = path.stem.rpartition("-")[2]
    try:
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), checksum, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"the Inception weights {INCEPTION_URL} could not be downloaded ({error}). "
            "Copy the file here and give it with --inception_weights PATH."
        ) from None
