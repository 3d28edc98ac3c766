"""Features of the crops on disk: computed once, continued after an interruption."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data import prepare
from data.cache.feature_maps import feature_maps
from data.cache.folders import cache_folder
from data.detections import load_detections
from utils.cli import UserError


def prepared_toy():
    prepare.main(["--dataset", "toy", "--category", "bird"])
    return load_detections("toy")


def mean_colors(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 2)


def test_maps_of_all_crops_are_kept_and_computed_once(collection):
    for folder in ("images", "masks"):
        first = sorted(Path("datasets/toy", folder).iterdir())[0]
        first.rename(first.with_stem("caf\udce9"))  # Latin-1, which is no UTF-8
    detections = prepared_toy()
    calls = []

    def compute(images):
        calls.append(len(images))
        return mean_colors(images)

    first = np.array(feature_maps(detections, compute, "digest", 16))
    computed = len(calls)
    again = feature_maps(detections, compute, "digest", 16)
    assert len(calls) == computed
    assert first.shape == (3, 4, 2, 2)
    np.testing.assert_array_equal(first, again)
    feature_maps(detections, compute, "another digest", 16)
    assert len(calls) > computed


def test_an_interrupted_run_continues_where_it_was(collection, monkeypatch):
    detections = prepared_toy()
    monkeypatch.setattr("data.cache.feature_maps.BATCH", 1)
    seen = []

    def interrupted(images):
        if len(seen) == 3:  # the first call asks for the shape
            raise KeyboardInterrupt
        seen.append(1)
        return mean_colors(images)

    with pytest.raises(KeyboardInterrupt):
        feature_maps(detections, interrupted, "digest", 16)
    calls = []

    def compute(images):
        calls.append(1)
        return mean_colors(images)

    resumed = np.array(feature_maps(detections, compute, "digest", 16))
    assert len(calls) == 1
    whole = feature_maps(detections, compute, "other", 16)
    np.testing.assert_array_equal(resumed, whole)
    assert not list(cache_folder("toy").glob(".features*"))


@pytest.mark.parametrize("length", [0, 40, 150])
def test_a_file_that_was_cut_off_is_told_in_one_line(collection, length):
    detections = prepared_toy()
    feature_maps(detections, mean_colors, "digest", 16)
    (path,) = cache_folder("toy").glob("features_*.npy")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"damaged.*Delete it") as told:
        feature_maps(detections, mean_colors, "digest", 16)
    assert "\n" not in str(told.value)
