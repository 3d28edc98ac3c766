"""Model files of point clouds: weights and architecture, enough to use them on photographs."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.point_clouds import PointCloudNetwork, UprightNetwork
from pipeline.reconstruction.points.config import PointConfig, PointModelOptions
from utils import checkpoint, model_file, training
from utils.cli import UserError
from utils.options import flatten

PointNetwork = PointCloudNetwork | UprightNetwork


class PointModel(NamedTuple):
    """A trained network, its options, its category, the file and the number of steps."""

    network: PointNetwork
    options: PointModelOptions
    category: str
    path: Path
    step: int | None


def untrained(options: PointModelOptions) -> PointNetwork:
    """Returns a network with random weights; ValueError if it cannot be."""
    if options.camera_prior == "upright":
        return UprightNetwork(options.image_resolution, options.num_points, options.width)
    return PointCloudNetwork(
        options.image_resolution, options.num_points, options.num_candidates, options.width
    )


def describe(config: PointConfig, category: str) -> dict[str, Any]:
    """Returns what a model file holds beside the weights."""
    return {**model_file.header(flatten(config)), "categories": [category]}


def save_model(
    folder: Path, network: PointNetwork, description: Mapping[str, Any], step: int
) -> None:
    """Writes the model file of a run."""
    state = {**description, "generator": network.state_dict(), "iteration": step}
    checkpoint.save(folder / model_file.NAME, state)


def with_architecture(config: PointConfig, path: Path, state: dict[str, Any]) -> PointConfig:
    """Returns the options with the architecture of a checkpoint, and says where that differs.

    Raises:
        UserError: if the checkpoint is one of meshes, or damaged.
    """
    _require_points(path, state)
    other = checkpoint.stored_options(path, state, asdict(config.model))
    training.announce(path, asdict(config.model), other)
    return replace(config, model=replace(config.model, **other))


def load_model(config: PointConfig, device: torch.device) -> PointModel:
    """Reads the model that --which_epoch names.

    Raises:
        UserError: if it is missing, damaged, or one of meshes.
    """
    remedy = f"Train it with: python run_reconstruction.py --name {config.name} --shape_model points --dataset <dataset>"
    path = model_file.resolve(config.folder, config.which_epoch, remedy)
    state = model_file.load(path)
    options = with_architecture(config, path, state).model
    try:
        network = untrained(options)
        network.load_state_dict(state["generator"])
        (category,) = state["categories"]
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}). Replace it by an intact copy.") from None
    step = model_file.step_of(path, state)
    network = network.to(device).eval().requires_grad_(False)
    return PointModel(network, options, str(category), path, step)


def _require_points(path: Path, state: Mapping[str, Any]) -> None:
    args = state.get("args", {})
    if not isinstance(args, dict) or args.get("shape_model") != "points":
        raise UserError(f"{path} is a model of meshes: leave --shape_model points out.")
