"""What generated renderings are compared in: the features of a network, and those of the photographs.

FID as published: torchvision's ImageNet Inception v3, 299 x 299 renderings without
perspective on grey, against the stored statistics of the photographs; not comparable with scores of
the TensorFlow port, which --standard_fid measures with. Without weights --proxy_distance measures in
the features of an untrained network, and --features in those of a network of timm, under their own names.
Of a model that was trained with --held_out only the photographs that were kept are compared with.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.cache import feature_statistics
from data.cache.feature_statistics import FeatureStatistics
from data.cache.folders import class_label
from data.definitions import expand_dataset, folder_names
from data.pseudo_ground_truth import PseudoGroundTruth
from models.features import PooledFeatures, load_features
from models.fid import (
    FeatureSample,
    InceptionFeatures,
    Moments,
    ProxyFeatures,
    StandardFeatures,
    fingerprint,
)
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig
from utils import cli, distributed
from utils.progress import progress

logger = logging.getLogger(__name__)

MAX_SAMPLES = 50_000
PRETRAINED = "features"  # key of the distances in features of a network of timm


class Measure(NamedTuple):
    """What distances are measured with.

    Attributes:
        title: its name for people.
        key: its name in metrics.jsonl and, of stored ones, of its statistics file.
        features: network from (B, 3, 299, 299) in [0, 1] to (B, D).
        real: statistics of the photographs.
        num_samples: number of renderings that are compared with them.
    """

    title: str
    key: str
    features: nn.Module
    real: FeatureStatistics
    num_samples: int


class _Choice(NamedTuple):
    """A measure before its network and its statistics are read.

    Attributes:
        title, key: as of the measure.
        stored: name of the stored statistics; None where there are none.
        make_features: makes the network.
    """

    title: str
    key: str
    stored: feature_statistics.Features | None
    make_features: Callable[[], nn.Module]


def make_measures(config: GenerationConfig, device: torch.device) -> list[Measure]:
    """Returns what the options ask for; the first one tells which checkpoint is the best.

    With --features FID, standard FID and the proxy distance are measured where they are asked for,
    without it FID is, unless another one of these is.

    Raises:
        UserError: if weights or statistics of the photographs are missing, or the statistics were made
            with another network or from other images.
    """
    return [_make_measure(choice, config, device) for choice in _choices(config)]


def make_measures_or_explain(config: GenerationConfig, device: torch.device) -> list[Measure]:
    """Returns the measures for a training run; without weights none, and a log line that says why."""
    try:
        return make_measures(config, device)
    except cli.UserError as error:
        logger.info("training without evaluation: %s", error)
        return []


def _choices(config: GenerationConfig) -> list[_Choice]:
    options, choices = config.measure, []
    if options.proxy_distance:
        choices.append(_Choice("proxy distance (not FID)", "proxy", "proxy", ProxyFeatures))
    elif options.standard_fid is not None:
        make = partial(StandardFeatures, options.standard_fid)
        choices.append(_Choice("standard FID", "standard_fid", "standard_fid", make))
    elif options.inception_weights is not None or options.features is None:
        make = partial(InceptionFeatures, options.inception_weights)
        choices.append(_Choice("FID", "fid", "fid", make))
    if options.features is not None:
        name = options.features.partition(":")[0]
        title = f"Frechet distance in features of {name} (not FID)"
        choices.append(_Choice(title, PRETRAINED, None, partial(_pretrained, options.features)))
    return choices


def _pretrained(choice: str) -> PooledFeatures:
    return PooledFeatures(load_features(choice))


def _make_measure(choice: _Choice, config: GenerationConfig, device: torch.device) -> Measure:
    if choice.stored is None or config.data.held_out:
        measure = _measure_of_items(choice, config, device)
    else:
        # Statistics first: they are read faster than the weights
        names = _datasets(config)
        parts = [feature_statistics.load_statistics(name, choice.stored) for name in names]
        features = choice.make_features()
        for name, part in zip(names, parts, strict=True):
            _check_origin(name, choice.stored, part, fingerprint(features))
        real = feature_statistics.pool(parts)
        count = min(real.num_images, MAX_SAMPLES)
        measure = Measure(choice.title, choice.key, features.to(device), real, count)
    _warn_of_few_images(measure)
    return measure


def _measure_of_items(choice: _Choice, config: GenerationConfig, device: torch.device) -> Measure:
    """Returns a measure against photographs whose pseudo-ground-truth is there: those that were kept, or all."""
    features = choice.make_features().to(device)
    real = photographs(features, config, device, held_out=True)
    if not config.data.held_out:
        count = min(real.num_images, MAX_SAMPLES)
        return Measure(choice.title, choice.key, features, real, count)
    # As many renderings as there are views to draw from: few photographs are kept
    count = min(len(_rows(config, sampling.open_dataset(config))), MAX_SAMPLES)
    title = f"{choice.title}, {real.num_images} held-out photographs"
    return Measure(title, choice.key, features, real, count)


def _rows(config: GenerationConfig, dataset: PseudoGroundTruth) -> list[int]:
    """Returns the items to compare: those of --filter_class, if it is given."""
    return sampling.eligible_rows(config, dataset.metadata, None, dataset.label_names)


@torch.no_grad()
def photographs(
    features: nn.Module, config: GenerationConfig, device: torch.device, *, held_out: bool
) -> FeatureStatistics:
    """Returns the statistics of the photographs of the pseudo-ground-truth: that were kept, or trained on."""
    dataset = sampling.open_dataset(config, held_out=held_out)
    rows = _rows(config, dataset)
    if len(rows) < 2:
        raise cli.UserError(
            f"--held_out {config.data.held_out} keeps {len(rows)} of the photographs that are compared "
            "with, expected 2 or more. Train with a larger share."
        )
    sample, mine, found = FeatureSample(len(rows)), distributed.shard(len(rows)), []
    for start in progress(
        range(mine.start, mine.stop, config.batch_size), description="photographs"
    ):
        numbers = range(start, min(start + config.batch_size, mine.stop))
        images = torch.stack([dataset.photograph(rows[i]) for i in numbers])
        found.append(features(images.to(device) / 2 + 0.5))  # on grey
        sample.update(found[-1], numbers)
    return _statistics(found, sample)


def _statistics(found: list[Tensor], sample: FeatureSample) -> FeatureStatistics:
    """Returns the statistics of the features of all processes; this one has found some, or none."""
    width = max(x.shape[1] for process in distributed.gather(found) for x in process)
    moments = Moments(width, found[0].device if found else "cpu")
    for batch in found:
        moments.update(batch)
    moments.reduce()
    mean, covariance = moments.result()
    return FeatureStatistics(
        mean.numpy(), covariance.numpy(), moments.count, sample.result().numpy()
    )


def _datasets(config: GenerationConfig) -> tuple[str, ...]:
    """Returns the datasets whose stored statistics are compared with: all, or that of a class.

    Raises:
        UserError: if the class is a label, of which there are no statistics.
    """
    if config.sampling.filter_class is None:
        return folder_names(config.data.dataset)
    if config.model.label_sets:
        raise cli.UserError(
            "--filter_class with labels: there are statistics of all photographs only. Evaluate without "
            "it, or --export_sample with it."
        )
    label = class_label(config.data.dataset, config.sampling.filter_class)
    return expand_dataset(config.data.dataset)[label : label + 1]


def _warn_of_few_images(measure: Measure) -> None:
    """Says how many images the distance needs: fewer than features leave the covariance singular."""
    count, features = measure.real.num_images, len(measure.real.mean)
    if count <= features:
        logger.warning(
            "%s of %d photographs comes out too high, and noisy: it needs more than %d, and 10,000 to "
            "be compared with other collections; the kernel distance does not depend on their number",
            measure.title.partition(",")[0],
            count,
            features,
        )


def _check_origin(
    dataset: str,
    key: feature_statistics.Features,
    real: feature_statistics.FeatureStatistics,
    network: str,
) -> None:
    """Refuses statistics of another network or of other images; published ones state neither.

    Raises:
        UserError: says what differs.
    """
    path, command = (
        feature_statistics.statistics_path(dataset, key),
        feature_statistics.statistics_command(dataset, key),
    )
    # Published statistics do not name their network, which is that of FID
    if real.network != network and (real.network or key != "fid"):
        raise cli.UserError(
            f"{path} was made with another network (fingerprint {real.network[:8] or 'unknown'}, "
            f"here {network[:8]}), so a distance to it means nothing. Make it again with: {command}"
        )
    # Statistics of other images would shift the distance without a trace
    now = feature_statistics.images_fingerprint(dataset)
    if real.images and now is not None and real.images != now:
        raise cli.UserError(
            f"{path} was made from other images than the present detections of {dataset}. "
            f"Make it again with: {command}"
        )
