"""The options of stage 4 as one frozen record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import cli

# What the networks of a run depend on; a checkpoint that is applied brings its own values
GENERATOR_OPTIONS = (
    "texture_resolution",
    "width",
    "latent_dim",
    "norm_g",
    "conditional_class",
    "conditional_semantics",
    "mesh_path",
    "texture_only",
)


@dataclass(frozen=True)
class GenerationConfig:
    """The options of run_generation.py, which describes and defaults them."""

    name: str
    dataset: str
    evaluate: bool
    export_sample: bool
    how_many: int | None
    which_epoch: str
    filter_class: str | None
    truncation_sigma: float
    inception_weights: str | None
    standard_fid: str | None
    proxy_distance: bool
    mode: str
    mesh_path: str
    texture_resolution: int
    mesh_resolution: int
    width: float
    latent_dim: int
    num_discriminators: int
    symmetric_g: bool
    norm_g: str
    norm_d: str
    conditional_class: bool
    conditional_semantics: bool
    texture_only: bool
    epochs: int | None
    iters: int | None
    batch_size: int
    loss: str
    mask_output: bool
    warmup_steps: int
    bfloat16: bool
    mesh_regularization: float
    lr_g: float
    lr_d: float
    lr_decay_after: int
    d_steps_per_g: int
    g_running_average_alpha: float
    continue_train: bool
    num_workers: int
    checkpoint_freq: int | None
    save_freq: int
    evaluate_freq: int | None
    tensorboard: bool
    gpu_ids: tuple[int | str, ...] | None
    seed: int
    rasterizer: str

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path("checkpoints_gan") / self.name


def make_config(options: Mapping[str, Any]) -> GenerationConfig:
    """Completes the parsed options: mode from the name, discriminators from the resolution."""
    mode = cli.mode_from_name(options["name"], options["mode"])
    scales = options["num_discriminators"] or (3 if options["texture_resolution"] >= 512 else 2)
    return GenerationConfig(**{**options, "mode": mode, "num_discriminators": scales})
