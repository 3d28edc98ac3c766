"""The mesh estimator in use: prediction, rendering, and the checkpoints it is kept in."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geometry.camera import project
from geometry.sphere_mesh import SphereMesh
from models.reconstruction import ReconstructionNetwork
from models.state_dicts import translate
from pipeline.reconstruction.config import ModelOptions, ReconstructionConfig
from pipeline.reconstruction.dataset import Labels, ReconstructionData
from rendering.rasterizer import rasterize
from rendering.texture import render_textured
from utils import checkpoint, seeding
from utils.cli import UserError
from utils.run_directory import RunDirectory


class Scene(NamedTuple):
    """What all images share, on one device.

    Attributes:
        sphere: topology of the meshes.
        templates: (T, V, 3) meshes of the categories.
        selection: (C, P, Cg) which part channels a category has.
    """

    sphere: SphereMesh
    templates: Tensor
    selection: Tensor


class Prediction(NamedTuple):
    """What the network says about a batch of images.

    Attributes:
        displacement_map: (B, 3, 32, 32).
        texture: (B, 3, R, R) in [-1, 1], or None.
        parts: (B, Cg, R, R) probabilities over the common part list, or None.
        vertices: (B, V, 3) object space.
        screen: (B, V, 3) screen space, under the given poses.
    """

    displacement_map: Tensor
    texture: Tensor | None
    parts: Tensor | None
    vertices: Tensor
    screen: Tensor


def make_data(config: ReconstructionConfig) -> ReconstructionData:
    """Reads the artifacts that a run needs."""
    return ReconstructionData(
        config.data.dataset,
        config.data.mode,
        config.model.image_resolution,
        semi_fraction=config.data.semi_fraction,
        parts=config.model.predicts_parts,
        cache_bytes=config.data.cache_bytes,
    )


def make_scene(data: ReconstructionData, device: torch.device) -> Scene:
    """Moves what all images share to a device."""
    return Scene(SphereMesh().to(device), data.templates.to(device), data.selection.to(device))


def make_network(
    config: ReconstructionConfig, data: ReconstructionData, device: torch.device
) -> ReconstructionNetwork:
    """Returns the untrained network of a run; its weights are a function of the seed."""
    seeding.seed_everything(config.seed, "network")
    return _placed(_untrained(config.model, data), device)


def _untrained(options: ModelOptions, data: ReconstructionData) -> ReconstructionNetwork:
    return ReconstructionNetwork(
        num_categories=len(data.detections),
        num_parts=1 + len(data.part_names),
        texture_resolution=options.texture_resolution,
        prediction_type=options.prediction_type,
        norm=options.norm_g,
        image_resolution=options.image_resolution,
        width=options.width,
    )


def _placed(network: ReconstructionNetwork, device: torch.device) -> ReconstructionNetwork:
    # A tenth faster on the CPU
    return network.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]


def predict(
    network: ReconstructionNetwork,
    scene: Scene,
    image: Tensor,
    labels: Labels,
    *,
    bfloat16: bool = False,
) -> Prediction:
    """Estimates meshes and places them under the poses of the labels.

    Args:
        network: the estimator.
        scene: what the images share.
        image: (B, 4, h, h) crops.
        labels: of the B images.
        bfloat16: runs the network, and nothing else, in mixed precision.
    """
    image = image.contiguous(memory_format=torch.channels_last)
    selection = scene.selection[labels.category]
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
        maps = network(image, labels.category, selection)
    texture, displacement_map, parts = (None if x is None else x.to(image.dtype) for x in maps)
    assert displacement_map is not None
    vertices = scene.sphere.deform(displacement_map)
    screen = project(vertices, labels.pose)
    return Prediction(displacement_map, texture, parts, vertices, screen)


def render(
    scene: Scene, prediction: Prediction, labels: Labels, size: int
) -> tuple[Tensor | None, Tensor]:
    """Renders what was predicted.

    Returns:
        The maps (B, C, size, size), zero outside the mesh: part probabilities over the channels of
        the image's category, then colors, as far as they are predicted (None if neither is); and
        the soft silhouette (B, 1, size, size).
    """
    maps = []
    if prediction.parts is not None:
        selection = scene.selection[labels.category]
        maps.append(torch.einsum("bpc,bchw->bphw", selection, prediction.parts))
    if prediction.texture is not None:
        maps.append(prediction.texture)
    if not maps:
        alpha = rasterize(prediction.screen, scene.sphere.faces, size).alpha
        assert alpha is not None
        return None, alpha
    rendering = render_textured(scene.sphere, prediction.screen, torch.cat(maps, 1), size)
    assert rendering.alpha is not None
    return rendering.colors, rendering.alpha


def load_weights(
    network: ReconstructionNetwork, state: Mapping[str, Any], path: Path, data: ReconstructionData
) -> None:
    """Restores the network of a checkpoint, ours or a published one.

    Raises:
        UserError: if the checkpoint belongs to other options, parts or templates.
    """
    if state.get("part_names", data.part_names) != data.part_names:
        raise UserError(
            f"{path} was trained with the parts {', '.join(state['part_names']) or 'none'}; the "
            f"dataset now has {', '.join(data.part_names) or 'none'}. Train it again."
        )
    templates = state.get("templates")  # published checkpoints have none
    if templates is not None and not torch.equal(templates.cpu(), data.templates):
        raise UserError(
            f"{path} was trained with other templates than those in cache/remeshed_templates/. Train "
            f"again with: python run_reconstruction.py --name <another> --dataset {data.dataset}"
        )
    try:
        empty = next(network.parameters()).is_meta
        network.load_state_dict(translate(state["generator"]), assign=empty)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} does not fit this dataset and these options ({reason}). "
            "Use those that it was trained with."
        ) from None


def load_trained(
    config: ReconstructionConfig, device: torch.device
) -> tuple[ReconstructionNetwork, ReconstructionData, ReconstructionConfig, Path]:
    """Reads the checkpoint that --which_epoch names and the data it is to be used on.

    Returns:
        The network in eval mode, the data, the options with the checkpoint's architecture, and
        the checkpoint's path.
    """
    remedy = f"Train it with: python run_reconstruction.py --name {config.name} --dataset {config.data.dataset}"
    path = checkpoint.resolve(config.folder, config.which_epoch, remedy)
    if config.which_epoch == "latest":
        newest = RunDirectory(config.folder).newest_checkpoint()
        assert newest is not None
        path, state = newest
    else:
        state = checkpoint.load(path)
    other = checkpoint.stored_options(path, state, asdict(config.model))
    config = replace(config, model=replace(config.model, **other))
    data = make_data(config)
    with torch.device("meta"):  # takes no memory, whatever sizes the checkpoint asks for
        network = _untrained(config.model, data)
    load_weights(network, state, path, data)
    return _placed(network, device).eval().requires_grad_(False), data, config, path
