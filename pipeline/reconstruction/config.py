"""The options of stage 3 as one frozen record, and the lengths of a run in steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from utils import cli

DEFAULT_EPOCHS = 1000
SAVES_WITH_ITERS = 30  # numbered checkpoints and pictures of a run whose length is given by --iters
DECAYS_WITH_ITERS = 4


@dataclass(frozen=True)
class ReconstructionConfig:
    """The options of run_reconstruction.py, which describes and defaults them."""

    name: str
    dataset: str
    evaluate: bool
    generate_pseudogt: bool
    pseudogt_resolution: int
    which_epoch: str
    inception_weights: str | None
    standard_fid: str | None
    mode: str
    mesh_path: str
    image_resolution: int
    texture_resolution: int
    mesh_resolution: int
    prediction_type: str
    width: float
    norm_g: str
    symmetric: bool
    epochs: int | None
    iters: int | None
    batch_size: int
    loss: str
    mesh_regularization: float
    semi_fraction: float
    lr: float
    lr_decay_every: int | None
    bfloat16: bool
    continue_train: bool
    num_workers: int
    no_prefetch: bool
    checkpoint_freq: int | None
    save_freq: int
    image_freq: int | None
    tensorboard: bool
    gpu_ids: tuple[int | str, ...] | None
    seed: int
    rasterizer: str

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path("checkpoints_recon") / self.name

    @property
    def predicts_texture(self) -> bool:
        """Whether the network has a texture head."""
        return self.prediction_type in ("texture", "both")

    @property
    def predicts_parts(self) -> bool:
        """Whether the network has a head for part maps."""
        return self.prediction_type in ("semantics", "both")


def make_config(options: Mapping[str, Any]) -> ReconstructionConfig:
    """Completes the parsed options: the mode comes from the name unless it was given."""
    mode = cli.mode_from_name(options["name"], options["mode"])
    return ReconstructionConfig(**{**options, "mode": mode})


class Schedule(NamedTuple):
    """Length of a run and its intervals, all in steps."""

    epoch: int
    total: int
    save: int
    checkpoint: int
    picture: int
    lr_decay: int


def make_schedule(config: ReconstructionConfig, num_images: int) -> Schedule:
    """Turns epochs into steps; with --iters, intervals that were not given share the run evenly."""
    epoch = max(1, num_images // config.batch_size)
    total = config.iters or (config.epochs or DEFAULT_EPOCHS) * epoch

    def interval(epochs: int | None, default: int, shares: int) -> int:
        if epochs is None and config.iters:
            return max(1, total // shares)
        return (epochs or default) * epoch

    return Schedule(
        epoch=epoch,
        total=total,
        save=config.save_freq * epoch,
        checkpoint=interval(config.checkpoint_freq, 100, SAVES_WITH_ITERS),
        picture=interval(config.image_freq, 50, SAVES_WITH_ITERS),
        lr_decay=interval(config.lr_decay_every, 250, DECAYS_WITH_ITERS),
    )
