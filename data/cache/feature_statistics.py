"""Statistics of image features in cache/: what generated images are compared with, and its origin."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data.cache.folders import cache_folder, collection_path, fingerprint_of
from data.cache.pseudo_files import IMAGE_RESOLUTION
from data.cache.storage import PUBLISHED, check_numbers, load_arrays, save_arrays
from data.definitions import expand_dataset
from utils.cli import UserError

Features = Literal["fid", "standard_fid", "proxy"]


class FeatureStatistics(NamedTuple):
    """Gaussian of image features.

    Attributes:
        mean: (D,) float64.
        covariance: (D, D) float64, symmetric.
        num_images: number of images behind it.
        sample: (n, D) float32 features of some of the images; empty in published files.
        network: fingerprint of the network; "" in published files.
        images: fingerprint of the detections that the images were cut from; "" likewise.
    """

    mean: np.ndarray
    covariance: np.ndarray
    num_images: int
    sample: np.ndarray
    network: str = PUBLISHED
    images: str = PUBLISHED


def statistics_path(dataset: str, features: Features = "fid") -> Path:
    """Returns the path of the feature statistics of a dataset's photographs."""
    return (
        cache_folder(dataset) / f"precomputed_{features}_{IMAGE_RESOLUTION}x{IMAGE_RESOLUTION}.npz"
    )


def save_statistics(
    dataset: str, statistics: FeatureStatistics, features: Features = "fid"
) -> Path:
    """Writes feature statistics, of the covariance only the lower triangle; returns the path."""
    arrays = {
        "stats_m": statistics.mean,
        "stats_s": np.tril(statistics.covariance),
        "num_images": np.asarray(statistics.num_images, np.int64),
        "resolution": np.asarray(IMAGE_RESOLUTION, np.int64),
        "sample": statistics.sample,
        "network": np.asarray(statistics.network),
        "images": np.asarray(statistics.images),
    }
    return save_arrays(statistics_path(dataset, features), arrays)


def load_statistics(dataset: str, features: Features = "fid") -> FeatureStatistics:
    """Reads feature statistics; the covariance comes back symmetric."""
    path, command = statistics_path(dataset, features), statistics_command(dataset, features)
    remedy = f"Create it with: {command}"
    # The same command makes those of the proxy distance, which need no weights
    if features == "fid" and not path.exists() and statistics_path(dataset, "proxy").exists():
        remedy = (
            "When the pseudo-ground-truth was made, the weights of the Inception network could not be "
            f"had. Create it with: {command} --inception_weights <file>; or use --proxy_distance."
        )
    return read_statistics(path, remedy)


def statistics_command(dataset: str, features: Features = "fid") -> str:
    """Returns the command that makes the feature statistics of a dataset's photographs."""
    weights = " --standard_fid <file>" if features == "standard_fid" else ""
    return f"python run_reconstruction.py --name <model> --dataset {dataset} --generate_pseudogt{weights}"


def read_statistics(path: Path, remedy: str) -> FeatureStatistics:
    """Reads feature statistics from a file, also a published one."""
    names = ("stats_m", "stats_s", "num_images", "resolution")
    arrays = load_arrays(path, names, remedy, optional=("sample", "network", "images"))
    # Mean and covariance are of one dimension, and so is the sample where there is one
    shapes = {"stats_m": ("D",), "stats_s": ("D", "D"), "num_images": (), "resolution": ()}
    if arrays.get("sample", np.zeros(0)).size:
        shapes["sample"] = ("n", "D")
    check_numbers(path, arrays, shapes, remedy)
    # A covariance takes two images, and distances equal resolutions
    count, resolution = int(arrays["num_images"]), int(arrays["resolution"])
    if resolution != IMAGE_RESOLUTION or count < 2:
        got = f"{count} images of {resolution} pixels"
        raise UserError(f"{path}: expected {IMAGE_RESOLUTION} pixels, 2 images or more; got {got}.")
    mean, lower = (arrays[name].astype(np.float64) for name in ("stats_m", "stats_s"))
    # The upper triangle mirrors the lower one
    covariance = lower + np.tril(lower, -1).T
    sample = arrays.get("sample", np.zeros(0, np.float32)).reshape(-1, len(mean))
    origin = {name: str(arrays[name]) for name in ("network", "images") if name in arrays}
    return FeatureStatistics(mean, covariance, count, sample, **origin)


def pool(parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
    """Returns the statistics of the images of several datasets together; of a single one its own.

    With n, m and S the number, mean and unbiased covariance of each part, N and M of all,
    (N - 1) S_all = sum (n - 1) S + n (m - M)(m - M)^T.
    """
    if len(parts) == 1:
        return parts[0]
    # Moments within the parts, and of their means around the common one
    count = sum(part.num_images for part in parts)
    mean = np.sum([part.num_images * part.mean for part in parts], axis=0) / count
    scatters = [
        (part.num_images - 1) * part.covariance
        + part.num_images * np.outer(part.mean - mean, part.mean - mean)
        for part in parts
    ]
    # Of each part the same share of its images
    steps = [part.num_images / max(len(part.sample), 1) for part in parts]
    thinned = [
        part.sample[:: round(max(steps) / step)] for part, step in zip(parts, steps, strict=True)
    ]
    # Published parts have no sample
    whole = all(len(part.sample) for part in parts)
    sample = np.concatenate(thinned) if whole else thinned[0][:0]
    return FeatureStatistics(mean, np.sum(scatters, axis=0) / (count - 1), count, sample)


def images_fingerprint(dataset: str) -> str | None:
    """Returns the fingerprint of the detections that a dataset has now; None where it has none."""
    names = expand_dataset(dataset)
    if not all(collection_path(name).exists() for name in names):
        return None
    return common_fingerprint([fingerprint_of(name) for name in names])


def common_fingerprint(fingerprints: Sequence[str]) -> str:
    """Returns the fingerprint of several sets of detections; of a single one its own."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256("".join(fingerprints).encode()).hexdigest()
