"""Fréchet distance between sets of images: features, streaming moments and the distance itself."""

from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import checkpoint
from utils.cli import UserError
from utils.distributed import all_reduce_, barrier, is_main
from utils.seeding import torch_generator

INCEPTION_URL = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
INCEPTION_SIZE = 299


class Moments:
    """Mean and covariance of feature vectors that arrive in batches, in double precision.

    Attributes:
        count: number of vectors seen.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        self._count = torch.zeros((), dtype=torch.float64, device=device)
        self._sum = torch.zeros(dimension, dtype=torch.float64, device=device)
        self._products = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)

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
        for total in (self._count, self._sum, self._products):
            all_reduce_(total)

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


def frechet_distance(
    mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
) -> float:
    """Returns |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two normal distributions.

    The eigenvalues of S1 S2 are those of the symmetric product S1^(1/2) S2 S1^(1/2), whose roots
    are real; singular covariances need no special treatment.

    Args:
        mean1, mean2: (D,).
        covariance1, covariance2: (D, D), symmetric.
    """
    m1, s1, m2, s2 = (x.double() for x in (mean1, covariance1, mean2, covariance2))
    eigenvalues, basis = torch.linalg.eigh(s1)
    root = basis * eigenvalues.clamp(min=0).sqrt()  # root root^T = S1
    product = root.T @ s2 @ root
    shared = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * shared)


class InceptionFeatures(nn.Module):
    """Pooled features of torchvision's Inception v3, trained on ImageNet, as the predecessor used.

    These are not the weights ported from TensorFlow: scores are not comparable with standard FID.

    Args:
        weights_path: torchvision's file of weights; None looks in torch's cache, then downloads.

    Raises:
        UserError: if the weights cannot be had or do not fit.
    """

    name = "FID"
    dimension = 2048

    def __init__(self, weights_path: str | Path | None = None) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        path = Path(weights_path) if weights_path is not None else _cached_weights()
        remedy = f"Get the file from {INCEPTION_URL}."
        weights = checkpoint.load(path, remedy=remedy)
        self.network = inception_v3(weights=None, init_weights=False, transform_input=False)
        try:
            self.network.load_state_dict(weights)
        except RuntimeError:
            raise UserError(
                f"{path} does not hold the weights of torchvision's inception_v3. {remedy}"
            ) from None
        self.network.fc = nn.Identity()  # type: ignore[assignment]
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, h, w) in [0, 1] to features (B, 2048)."""
        size = (INCEPTION_SIZE, INCEPTION_SIZE)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return self.network(2 * images - 1)


class ProxyFeatures(nn.Module):
    """Features of an untrained convolutional network, to compare runs where Inception is out of reach.

    Means and deviations over the image of each channel, at three scales. Distances between such
    features tell similar from different collections, but their values are not FIDs.

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
            deviation = (2 / (inputs * 25)) ** 0.5  # Keeps the variance through the rectifiers
            layer.weight.data.normal_(std=deviation, generator=generator)
            self.layers.append(layer)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, h, w) in [0, 1] to features (B, dimension)."""
        size = (self.size, self.size)
        x = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        x = 2 * x - 1
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
    checksum = path.stem.rpartition("-")[2]
    try:
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), checksum, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"the Inception weights {INCEPTION_URL} could not be downloaded ({error}). "
            "Copy the file here and give it with --inception_weights PATH."
        ) from None
