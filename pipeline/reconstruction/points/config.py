"""The options of point clouds, from the parser of run_reconstruction.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.reconstruction.config import OutputOptions, PhotographOptions
from utils import options


@dataclass(frozen=True)
class PointModelOptions:
    """Architecture of the network; belongs to a checkpoint.

    Attributes:
        image_resolution: side of the images, 4 times a power of 2.
        num_points: of a cloud.
        num_candidates: rotations that the ensemble proposes.
        width: factor on all channel counts; 1 is the paper's size.
        point_grid: cells along each edge of the grid, whose side the silhouettes have.
        camera_prior: "free", or "upright" around objects that are their own mirror images.
    """

    image_resolution: int
    num_points: int
    num_candidates: int
    width: float
    point_grid: int
    camera_prior: str


@dataclass(frozen=True)
class PointConfig:
    """Options of a run with --shape_model points.

    Attributes:
        name: of the run.
        dataset: prepared renderings of several views.
        which_epoch: the step of the checkpoint that is applied, or "latest".
        batch_size: objects of a step over all devices.
        seed: of all random numbers.
        epochs: passes over the objects; None if `iters` gives the length.
        iters: steps; None if `epochs` gives the length.
        lr: learning rate.
        lr_decay_every: epochs between halvings of the rate; None for none.
        student_weight: of the student's loss.
        split: part that is measured or exported: "train", "test", or "all".
        how_many: images whose points are exported; None for all.
        out_path: folder of what is exported.
        overwrite: whether earlier files there are replaced.
        shape_model: "points".
    """

    name: str
    dataset: str
    which_epoch: str
    batch_size: int
    seed: int
    epochs: int | None
    iters: int | None
    lr: float
    lr_decay_every: int | None
    student_weight: float
    split: str
    how_many: int | None
    out_path: str | None
    overwrite: bool
    shape_model: str
    model: PointModelOptions
    output: OutputOptions
    photograph: PhotographOptions

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path("checkpoints_recon") / self.name


def make_config(parsed: Mapping[str, Any]) -> PointConfig:
    """Makes the record from the parsed options; with --photo there is no dataset."""
    return options.build(PointConfig, {**parsed, "dataset": parsed["dataset"] or ""})
