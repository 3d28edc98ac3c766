"""Evaluation of the GAN: Frechet distances between features of generated renderings and photographs.

FID as published: torchvision's ImageNet Inception v3, 299 x 299 renderings without
perspective on grey, against the stored statistics of the photographs; not comparable with scores of
the TensorFlow port, which --standard_fid measures with. Without weights --proxy_distance measures in
the features of an untrained network, under that name. Where a sample of the photographs' features is
stored, the kernel distance (KID) of the same features is measured too.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data.cache import feature_statistics, pseudo_files
from data.cache.folders import class_label
from data.definitions import expand_dataset, folder_names
from data.pseudo_ground_truth import PseudoGroundTruth
from geometry.sphere_mesh import SphereMesh
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
from models.generator import Generator
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig
from pipeline.generation.model_file import Model, load_trained
from rendering import rasterizer
from utils import checkpoint, cli, distributed, model_file
from utils.progress import progress
from utils.run_directory import RunDirectory, configure_logging

logger = logging.getLogger(__name__)

MAX_SAMPLES = 50_000
KINDS = ("combined", "texture_only", "mesh_only")


class Measure(NamedTuple):
    """What distances are measured with.

    Attributes:
        title: its name for people.
        key: its name in metrics.jsonl and of its statistics file.
        features: network from (B, 3, 299, 299) in [0, 1] to (B, D).
        real: statistics of the photographs.
    """

    title: str
    key: feature_statistics.Features
    features: nn.Module
    real: feature_statistics.FeatureStatistics


def make_measure(config: GenerationConfig, device: torch.device) -> Measure:
    """Returns FID, standard FID with --standard_fid, or the proxy distance with --proxy_distance.

    Raises:
        UserError: if the weights or the statistics of the photographs are missing, or the statistics
            were made with another network or from other images.
    """
    # The photographs that renderings are compared with: all, or those of a class
    names = folder_names(config.data.dataset)
    if config.sampling.filter_class is not None and config.model.label_sets:
        raise cli.UserError(
            "--filter_class with labels: there are statistics of all photographs only. Evaluate without "
            "it, or --export_sample with it."
        )
    if config.sampling.filter_class is not None:
        label = class_label(config.data.dataset, config.sampling.filter_class)
        names = expand_dataset(config.data.dataset)[label : label + 1]
    # Statistics first: they are read faster than the weights
    title, key, make_features = _choose_measure(config)
    parts = [feature_statistics.load_statistics(name, key) for name in names]
    features = make_features()
    for name, part in zip(names, parts, strict=True):
        _check_origin(name, key, part, fingerprint(features))
    measure = Measure(title, key, features.to(device), feature_statistics.pool(parts))
    _warn_of_few_images(measure)
    return measure


def _warn_of_few_images(measure: Measure) -> None:
    """Says how many images the distance needs: fewer than features leave the covariance singular."""
    count, features = measure.real.num_images, len(measure.real.mean)
    if count <= features:
        logger.warning(
            "%s of %d photographs comes out too high, and noisy: it needs more than %d, and 10,000 to "
            "be compared with other collections; KID does not depend on their number",
            measure.title,
            count,
            features,
        )


def _choose_measure(
    config: GenerationConfig,
) -> tuple[str, feature_statistics.Features, Callable[[], nn.Module]]:
    """Returns title and key of the measure, and what makes its network."""
    if config.measure.proxy_distance:
        return "proxy distance (not FID)", "proxy", ProxyFeatures
    if config.measure.standard_fid is not None:
        return (
            "standard FID",
            "standard_fid",
            partial(StandardFeatures, config.measure.standard_fid),
        )
    return "FID", "fid", partial(InceptionFeatures, config.measure.inception_weights)


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


def make_measure_or_explain(config: GenerationConfig, device: torch.device) -> Measure | None:
    """Returns the measure for a training run; without weights None, and a log line that says why."""
    try:
        return make_measure(config, device)
    except cli.UserError as error:
        logger.info("training without evaluation: %s", error)
        return None


def evaluate(device: torch.device, config: GenerationConfig) -> dict[str, float]:
    """Prints and records the distances of the chosen model; returns them by kind."""
    rasterizer.set_backend(config.rasterizer)
    # Missing weights or statistics are reported before the model is read
    measure = make_measure(config, device)
    path = choose_file(config, device)
    configure_logging(config.folder / "log.txt")
    logger.info("evaluating %s", path)
    model, config = load_trained(config, path, device)
    scores = _scores_of(model, measure, config, device)
    report(scores, measure, RunDirectory(config.folder), None, model.step or 0)
    return scores


def choose_file(config: GenerationConfig, device: torch.device) -> Path:
    """Returns the file that --which_epoch names; "best" has the lowest combined distance.

    Distances recorded in metrics.jsonl are trusted; numbered checkpoints without one are measured.

    Raises:
        UserError: if there is no such file.
    """
    remedy = f"Train it with: python run_generation.py --name {config.name} --dataset {config.data.dataset}"
    if config.sampling.which_epoch != "best":
        return model_file.resolve(config.folder, config.sampling.which_epoch, remedy)
    # Recorded distances are trusted, others are measured now
    candidates = dict(checkpoint.numbered(config.folder))
    if not candidates:
        raise cli.UserError(f"{config.folder} has no numbered checkpoints to compare. {remedy}")
    measure, run = make_measure(config, device), RunDirectory(config.folder)
    name = _record_name(measure, "combined", config.sampling.filter_class)
    scores = {r["step"]: r[name] for r in run.records() if name in r and r["step"] in candidates}
    for step in sorted(candidates.keys() - scores.keys()):
        model, own = load_trained(config, candidates[step], device)
        scores[step] = _scores_of(model, measure, own, device, kinds=("combined",))["combined"]
        run.record(step=step, **{name: scores[step]})
    return candidates[min(sorted(scores), key=lambda step: scores[step])]


def _scores_of(
    model: Model,
    measure: Measure,
    config: GenerationConfig,
    device: torch.device,
    kinds: Sequence[str] = KINDS,
) -> dict[str, float]:
    """Returns the distances of a model, with the pseudo-ground-truth where it is that of its views."""
    dataset = sampling.optional_dataset(config)
    # Poses and pseudo-ground-truth go together row by row
    if dataset is not None and dataset.metadata.paths != model.views.paths:
        logger.info("the pseudo-ground-truth is of other images than the model's, and left out")
        dataset = None
    return compute_scores(model.generator, measure, model.views, dataset, config, device, kinds)


def compute_scores(
    generator: Generator,
    measure: Measure,
    metadata: pseudo_files.PoseMetadata,
    dataset: PseudoGroundTruth | None,
    config: GenerationConfig,
    device: torch.device,
    kinds: Sequence[str] = KINDS,
) -> dict[str, float]:
    """Returns the distances of generated renderings to the photographs, by kind and "kid".

    Each of the photographs' poses is used once per pass, as many passes as it takes to reach the
    number of photographs behind the statistics. With pseudo-ground-truth at hand, also of generated
    textures on its meshes and of its textures on generated meshes. The same for every batch size
    and number of processes.
    """
    template = SphereMesh(sampling.rings_of(config.model.mesh_path)).to(device)
    # The other kinds take one half from the pseudo-ground-truth
    kinds = [kind for kind in kinds if kind == "combined" or dataset is not None]
    rows = sampling.eligible_rows(config, metadata)
    count = min(measure.real.num_images, MAX_SAMPLES)
    moments = {kind: Moments(len(measure.real.mean), device) for kind in kinds}
    generated = FeatureSample(count)
    # Moments of this process's samples, which are the same for every batch size
    mine = list(distributed.shard(count))
    with progress(total=len(mine), description="evaluating") as bar:
        for start in range(0, len(mine), config.batch_size):
            numbers = mine[start : start + config.batch_size]
            chosen = [rows[i % len(rows)] for i in numbers]
            sample = sampling.generate(generator, config, metadata, dataset, chosen, numbers)
            for kind in kinds:
                shown = _substitute(sample, kind, dataset, chosen)
                features = _features(measure, template, shown)
                moments[kind].update(features)
                if kind == "combined":
                    generated.update(features, numbers)
            bar.update(len(numbers))
    # Moments of all processes against those of the photographs
    scores = {}
    real = [torch.from_numpy(measure.real.mean), torch.from_numpy(measure.real.covariance)]
    for kind, total in moments.items():
        total.reduce()
        scores[kind] = frechet_distance(*total.result(), *real)
    # The kernel distance needs the features themselves
    fake, photographs = generated.result(), torch.from_numpy(measure.real.sample)
    if min(len(fake), len(photographs)) > 1:
        scores["kid"] = kernel_distance(fake, photographs)
    return scores


def report(
    scores: dict[str, float], measure: Measure, run: RunDirectory, writer: Any, step: int
) -> None:
    """Logs the distances and records them for a step."""
    for kind, score in scores.items():
        if kind == "kid":
            logger.info("kernel distance (KID) of the same features: %.5f", score)
        else:
            prefix = "" if kind == "combined" else f"{kind.replace('_', '-')} "
            logger.info("%s%s: %.2f", prefix, measure.title, score)
        if writer is not None:
            writer.add_scalar(f"{measure.key}/{kind}", score, step)
    names = {_record_name(measure, kind, None): score for kind, score in scores.items()}
    run.record(step=step, **names)


def _record_name(measure: Measure, kind: str, category: str | None) -> str:
    name = measure.key if kind == "combined" else f"{measure.key}_{kind}"
    return name if category is None else f"{name}_{category}"


def _features(measure: Measure, template: SphereMesh, sample: sampling.Generated) -> Tensor:
    colors, _ = sampling.render(template, sample, pseudo_files.IMAGE_RESOLUTION)
    with torch.no_grad():
        return measure.features(colors / 2 + 0.5)


def _substitute(
    sample: sampling.Generated, kind: str, dataset: PseudoGroundTruth | None, rows: Sequence[int]
) -> sampling.Generated:
    """Replaces one half of the sample by pseudo-ground-truth."""
    if kind == "combined" or dataset is None:
        return sample
    items = [dataset[row] for row in rows]
    device = sample.texture.device
    # The half that is measured alone stays as it was generated
    if kind == "texture_only":
        return sample._replace(displacement=torch.stack([x.mesh for x in items]).to(device))
    return sample._replace(texture=torch.stack([x.texture for x in items]).to(device))
