"""The options of stage 4 as frozen records, one for each part of the program that reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import cli, options


@dataclass(frozen=True)
class DataOptions:
    """What the GAN learns from.

    Attributes:
        dataset: folder under cache/ with the pseudo-ground-truth, or `all`.
        mode: singletpl or multitpl, the templates behind it.
        held_out: share of the photographs that are kept for evaluation; belongs to a checkpoint.
        num_workers: processes that load samples; 0 loads them in the training process.
    """

    dataset: str
    mode: str
    held_out: float
    num_workers: int


@dataclass(frozen=True)
class GeneratorOptions:
    """Architecture of the generator, and what it is conditional on; belongs to a checkpoint.

    Attributes:
        kind: gan or linear.
        start_from: "linear" if the network adds to what the statistical generator makes, else "scratch".
        texture_resolution: R, side of the textures in texels.
        mesh_resolution: S, side of the displacement maps, one of geometry.uv_maps.MESH_RESOLUTIONS.
        width: factor on all channel counts; 1 is the paper's size.
        latent_dim: length of the latent code.
        norm_g: normalization, one of models.layers.NORMS.
        conditional_class: whether the category, or labels, are a condition.
        label_sets: names of the sets that these labels are from; none for the category.
        conditional_semantics: whether the part map in UV space is a condition.
        mesh_path: autodetect, or a name that contains the number of rings of the sphere (16, 31 or 63).
        texture_only: whether the meshes are those of the pseudo-ground-truth.
    """

    kind: str
    start_from: str
    texture_resolution: int
    mesh_resolution: int
    width: float
    latent_dim: int
    norm_g: str
    conditional_class: bool
    label_sets: tuple[str, ...]
    conditional_semantics: bool
    mesh_path: str
    texture_only: bool


@dataclass(frozen=True)
class DiscriminatorOptions:
    """Architecture of the discriminator beyond what it shares with the generator.

    Attributes:
        num_discriminators: scales, 2 or 3.
        norm_d: "instance" or "none".
    """

    num_discriminators: int
    norm_d: str


@dataclass(frozen=True)
class OptimizerOptions:
    """Losses, rates and length of the training.

    Attributes:
        epochs: passes over the data; None if `iters` gives the length.
        iters: steps of either network; None if `epochs` gives the length.
        loss: adversarial loss, one of models.losses.GAN_LOSSES.
        mask_output: whether scores count only where the real texture was seen.
        mesh_regularization: weight of the flatness loss.
        warmup_steps: steps in which the generator is also drawn to the mean of the data.
        bfloat16: whether the networks run in mixed precision.
        lr_g, lr_d: learning rates of Adam.
        lr_decay_after: epoch from which on the rates fall linearly to 0 at the end.
        augment: probability of each change of what the discriminator sees.
        r1_weight: weight of the gradient penalty on real samples; 0 for none.
        d_steps_per_g: discriminator steps per generator step.
        g_running_average_alpha: final decay of the averaged generator, in [0, 1].
    """

    epochs: int | None
    iters: int | None
    loss: str
    mask_output: bool
    mesh_regularization: float
    warmup_steps: int
    bfloat16: bool
    lr_g: float
    lr_d: float
    lr_decay_after: int
    augment: float
    r1_weight: float
    d_steps_per_g: int
    g_running_average_alpha: float


@dataclass(frozen=True)
class OutputOptions:
    """What a run writes and when; intervals are steps with `iters`, else epochs; None = default.

    Attributes:
        checkpoint_freq: between numbered checkpoints, each with a picture.
        save_freq: between saves of the latest state.
        evaluate_freq: between evaluations.
        keep_checkpoints: number of numbered checkpoints that stay, beside the best one.
        tensorboard: whether curves and pictures go to tensorboard_gan/ too.
    """

    checkpoint_freq: int | None
    save_freq: int | None
    evaluate_freq: int | None
    keep_checkpoints: int
    tensorboard: bool


@dataclass(frozen=True)
class SamplingOptions:
    """Which checkpoint is applied, and what is drawn from it.

    Attributes:
        which_epoch: the step of a checkpoint, "latest" or "best".
        filter_class: category that is drawn alone, of a class-conditional model; None for all.
        export_folder: where exports go, each into a folder of its run; None without export.
        how_many: meshes to export; None for as many as a batch.
        truncation_sigma: bound of the latent codes, in standard deviations; None for the usual one.
        export_morphs: whether an export adds the strongest modes of shape, as morph targets.
        interpolate: two samples, (seed, number), between which an export walks; None for no walk.
        swap: whether it adds textures of samples on shapes of others.
        part_colors: whether it adds meshes in the colors of their parts.
        overwrite: whether an export may replace that of another seed or model.
    """

    which_epoch: str
    filter_class: str | None
    export_folder: str | None
    how_many: int | None
    truncation_sigma: float | None
    export_morphs: bool
    interpolate: tuple[tuple[int, int], ...] | None
    swap: bool
    part_colors: bool
    overwrite: bool


@dataclass(frozen=True)
class MeasureOptions:
    """What the Frechet distance is measured with.

    Attributes:
        inception_weights: file of torchvision's Inception v3; None for torch's own copy.
        standard_fid: file of the Inception ported from TensorFlow; None measures otherwise.
        proxy_distance: whether the features of an untrained network take their place.
        features: network of timm, NAME or NAME:FILE, whose features are measured in too; None for none.
    """

    inception_weights: str | None
    standard_fid: str | None
    proxy_distance: bool
    features: str | None


@dataclass(frozen=True)
class GenerationConfig:
    """All options that the stage reads; run_generation.py describes them and holds the defaults.

    Attributes:
        name: of the run.
        batch_size: samples of a step (or of an evaluation's) over all devices.
        seed: of all random numbers.
        rasterizer: name of the backend.
    """

    name: str
    batch_size: int
    seed: int
    rasterizer: str
    data: DataOptions
    model: GeneratorOptions
    discriminator: DiscriminatorOptions
    optimizer: OptimizerOptions
    output: OutputOptions
    sampling: SamplingOptions
    measure: MeasureOptions

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path("checkpoints_gan") / self.name

    @property
    def truncation_sigma(self) -> float:
        """The bound of the latent codes: the one asked for, else the usual one."""
        given = self.sampling.truncation_sigma
        return (
            usual_truncation(self.data.dataset, self.model.label_sets) if given is None else given
        )


def usual_truncation(dataset: str, label_sets: Sequence[str]) -> float:
    """Returns the bound of latent codes, in standard deviations, that convmesh samples a data set with.

    Networks that know species, or body shapes, of CUB and Pascal3D+ vary less within each of them, and
    look best near its mean (Pavllo et al. 2020, https://arxiv.org/abs/2006.07660). All others have 1.
    """
    known = set(label_sets)
    if dataset == "cub" and "species" in known:
        return 0.25
    if dataset.startswith("p3d_") and "shape" in known:
        return 0.5 if "color" in known else 0.75
    return 1.0


def make_config(parsed: Mapping[str, Any]) -> GenerationConfig:
    """Completes the parsed options: mode from the name, discriminators from the resolution."""
    mode = cli.mode_from_name(parsed["name"], parsed["mode"])
    scales = parsed["num_discriminators"] or (3 if parsed["texture_resolution"] >= 512 else 2)
    sets = parsed["conditional_class"]
    classes = {"conditional_class": sets is not None, "label_sets": tuple(sets or ())}
    ends = parsed["interpolate"]
    parsed = {**parsed, "interpolate": None if ends is None else tuple(ends)}
    completed = {**parsed, **classes, "mode": mode, "num_discriminators": scales}
    return options.build(GenerationConfig, completed)
