"""Evaluation of a generator: distances between features of its renderings and of photographs.

Frechet distances of whole renderings, of textures and of meshes alone; where a sample of the photographs'
features is there, the kernel distance of the same features too, which is KID in those of FID.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.cache import feature_statistics, pseudo_files
from data.pseudo_ground_truth import PseudoGroundTruth
from geometry.sphere_mesh import SphereMesh
from models.fid import FeatureSample, Moments, frechet_distance, kernel_distance
from pipeline.generation import measures, originality, recognition, sampling
from pipeline.generation.config import GenerationConfig
from pipeline.generation.linear.refined import AnyGenerator
from pipeline.generation.measures import Measure
from pipeline.generation.model_file import Model, load_trained
from rendering import rasterizer
from utils import checkpoint, cli, distributed, model_file
from utils.pictures import save_image
from utils.progress import progress
from utils.run_directory import RunDirectory, configure_logging
from utils.threads import keep_freed_memory

logger = logging.getLogger(__name__)

NEAREST = "nearest.png"  # picture of samples beside the nearest training textures
KINDS = ("combined", "texture_only", "mesh_only")


def evaluate(device: torch.device, config: GenerationConfig) -> dict[str, float]:
    """Prints and records the distances of the chosen model; returns them by name of the record."""
    rasterizer.set_backend(config.rasterizer)
    keep_freed_memory()
    # Of a model with --held_out, its file tells which photographs are compared with
    path = choose_file(config, device)
    model, config = load_trained(config, path, device)
    wanted = measures.make_measures(config, device)
    configure_logging(config.folder / "log.txt")
    logger.info("evaluating %s", path)
    recorded = {}
    for measure in wanted:
        scores = _scores_of(model, measure, config, device)
        if config.data.held_out:
            # What a generator that repeats what it was trained on would get
            trained = measures.photographs(measure.features, config, device, held_out=False)
            scores |= distances(trained, measure, "photographs")
        recorded |= report(scores, measure, RunDirectory(config.folder), None, model.step or 0)
    return recorded | _compare_with_training(model, config, device)


def _compare_with_training(
    model: Model, config: GenerationConfig, device: torch.device
) -> dict[str, float]:
    """Logs and records how samples relate to what was trained on, and draws it, where that is there."""
    dataset = _dataset_of(model, config)
    if dataset is None or not distributed.is_main():
        return {}
    held_out = sampling.open_dataset(config, held_out=True) if config.data.held_out else None
    template = sampling.make_sphere(config.model).to(device)
    compared = originality.collect(model.generator, config, dataset, held_out, template)
    found = originality.originality(compared)
    recognized = recognition.recognize(compared, dataset.label_names, model.generator.num_classes)
    for line in (*found.lines(), *(one.line() for one in recognized)):
        logger.info(line)
    figures = found._asdict() | {f"recognized_{one.name}": one.samples for one in recognized}
    figures = {name: x for name, x in figures.items() if math.isfinite(x)}
    RunDirectory(config.folder).record(step=model.step or 0, **figures)
    save_image(config.folder / NEAREST, originality.draw(compared, dataset, template))
    logger.info("wrote %s/%s", config.folder, NEAREST)
    return figures


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
        if (config.folder / model_file.NAME).exists():
            remedy = "Leave --which_epoch out, to take its model file."
        raise cli.UserError(f"{config.folder} has no numbered checkpoints to compare. {remedy}")
    # Photographs that were kept belong to the run, so that any of its files tells them
    config = load_trained(config, next(iter(candidates.values())), device)[1]
    measure, run = measures.make_measures(config, device)[0], RunDirectory(config.folder)
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
    dataset = _dataset_of(model, config)
    return compute_scores(model.generator, measure, model.views, dataset, config, device, kinds)


def _dataset_of(model: Model, config: GenerationConfig) -> PseudoGroundTruth | None:
    """Returns the pseudo-ground-truth that a model was trained on, where it is there."""
    dataset = sampling.optional_dataset(config)
    # Poses and pseudo-ground-truth go together row by row
    if dataset is not None and dataset.metadata.paths != model.views.paths:
        logger.info("the pseudo-ground-truth is of other images than the model's, and left out")
        return None
    return dataset


def compute_scores(
    generator: AnyGenerator,
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
    template = sampling.make_sphere(config.model).to(device)
    # The other kinds take one half from the pseudo-ground-truth
    kinds = [kind for kind in kinds if kind == "combined" or dataset is not None]
    rows = sampling.eligible_rows(config, metadata)
    count = measure.num_samples
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
    for kind, total in moments.items():
        total.reduce()
        scores[kind] = _frechet(*total.result(), measure)
    return scores | _kernel(generated.result(), measure, "kid")


def distances(
    others: feature_statistics.FeatureStatistics, measure: Measure, kind: str
) -> dict[str, float]:
    """Returns the distances of other images to the photographs, as of a kind of renderings."""
    mean, covariance = torch.from_numpy(others.mean), torch.from_numpy(others.covariance)
    sample = torch.from_numpy(others.sample)
    return {kind: _frechet(mean, covariance, measure)} | _kernel(sample, measure, f"{kind}_kid")


def _frechet(mean: Tensor, covariance: Tensor, measure: Measure) -> float:
    real = measure.real
    return frechet_distance(
        mean, covariance, torch.from_numpy(real.mean), torch.from_numpy(real.covariance)
    )


def _kernel(sample: Tensor, measure: Measure, name: str) -> dict[str, float]:
    """Returns the kernel distance under a name, where there are features on both sides."""
    photographs = torch.from_numpy(measure.real.sample)
    if min(len(sample), len(photographs)) < 2:
        return {}
    return {name: kernel_distance(sample, photographs)}


def report(
    scores: dict[str, float], measure: Measure, run: RunDirectory, writer: Any, step: int
) -> dict[str, float]:
    """Logs the distances and records them for a step; returns them by name of the record."""
    own = "KID" if measure.key.endswith("fid") else "not KID"
    for kind, score in scores.items():
        if kind.endswith("kid"):
            prefix = kind.removesuffix("kid").replace("_", " ")
            logger.info("%skernel distance (%s) of the same features: %.5f", prefix, own, score)
        else:
            prefix = "" if kind == "combined" else f"{kind.replace('_', '-')} "
            logger.info("%s%s: %.2f", prefix, measure.title, score)
        if writer is not None:
            writer.add_scalar(f"{measure.key}/{kind}", score, step)
    names = {_record_name(measure, kind, None): score for kind, score in scores.items()}
    run.record(step=step, **names)
    return names


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
