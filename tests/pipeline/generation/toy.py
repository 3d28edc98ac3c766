"""A GAN on the pseudo-ground-truth of five colored spheres."""

import numpy as np
import torch

import run_generation
from data.cache import feature_statistics
from models.fid import ProxyFeatures, fingerprint
from utils import checkpoint

COUNT = 5
OPTIONS = ["--name", "toy_singletpl", "--dataset", "toy", "--texture_resolution", "128"]
OPTIONS += ["--width", "0.05", "--batch_size", "3", "--num_workers", "0", "--gpu_ids", "cpu"]


def run(*options: str) -> None:
    run_generation.main([*OPTIONS, *options])


def weights(folder: str = "checkpoints_gan/toy_singletpl") -> dict:
    return checkpoint.load(checkpoint.resolve(folder, "latest"))


def save_statistics(seed: int = 0, count: int = 4) -> None:
    features = torch.rand(40, ProxyFeatures().dimension, generator=torch.manual_seed(seed))
    values = features.double().numpy()
    # As many samples as there were images are generated
    statistics = feature_statistics.FeatureStatistics(
        values.mean(0),
        np.cov(values.T),
        count,
        sample=values.astype(np.float32),
        network=fingerprint(ProxyFeatures()),
        images="those",
    )
    feature_statistics.save_statistics("toy", statistics, "proxy")
