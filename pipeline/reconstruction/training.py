"""Stage 3: trains the network that estimates a textured mesh from one image.

Reads detections, images, estimated poses and remeshed templates; writes checkpoints_recon/<run>/.
Everything random is a function of (seed, step), so the same command continues an interrupted run
and ends with the same weights.
"""

import logging
import time
from dataclasses import fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.samplers import StepSampler, balanced_weights
from geometry.distances import hard_iou
from geometry.operators import flatness, half_space_penalty
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.config import ModelOptions, ReconstructionConfig
from pipeline.reconstruction.dataset import Batch, Labels, ReconstructionData, endless_batches
from pipeline.reconstruction.model import (
    Prediction,
    Scene,
    load_weights,
    make_data,
    make_network,
    make_scene,
    newest_state,
    predict,
    render,
    save_state,
)
from rendering import rasterizer
from utils import checkpoint, distributed
from utils.cli import UserError
from utils.options import flatten
from utils.pictures import make_grid, part_palette, save_image, to_uint8
from utils.progress import progress
from utils.run_directory import RunDirectory, configure_logging

logger = logging.getLogger(__name__)

LOG_INTERVAL = 10  # steps between records of the losses
SEMI_DECAY = 0.99  # per step: all meshes are pinned to templates at first
FLATNESS_START = 5e-4  # keeps the first meshes smooth
FLATNESS_STEPS = 100  # until the warm-up would reach zero
_PICTURE_COLUMNS = 8
DEFAULT_EPOCHS = 1000
SAVES_WITH_ITERS = 30  # numbered checkpoints and pictures of a run whose length is given by --iters
DECAYS_WITH_ITERS = 4


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
    total = config.optimizer.iters or (config.optimizer.epochs or DEFAULT_EPOCHS) * epoch

    def interval(epochs: int | None, default: int, shares: int) -> int:
        if epochs is None and config.optimizer.iters:
            return max(1, total // shares)
        return (epochs or default) * epoch

    return Schedule(
        epoch=epoch,
        total=total,
        save=(config.output.save_freq or 10) * epoch,
        checkpoint=interval(config.output.checkpoint_freq, 100, SAVES_WITH_ITERS),
        picture=interval(config.output.image_freq, 50, SAVES_WITH_ITERS),
        lr_decay=interval(config.optimizer.lr_decay_every, 250, DECAYS_WITH_ITERS),
    )


class Losses(NamedTuple):
    """Losses of a step and the overlap of the silhouettes, scalars."""

    total: Tensor
    reconstruction: Tensor
    flat: Tensor
    iou: Tensor


def train(device: torch.device, config: ReconstructionConfig) -> None:
    """Trains until the schedule's end, from the newest checkpoint of the run if there is one.

    Raises:
        UserError: if an artifact of an earlier stage is missing, the batch cannot be split or
            normalized, or the run was begun with another architecture.
    """
    rasterizer.set_backend(config.rasterizer)
    _check_batch(config)
    # Before the run's folder exists, so that a mistake leaves nothing behind
    data = make_data(config)
    schedule = make_schedule(config, len(data))
    run = RunDirectory(config.folder)
    fixed = [field.name for field in fields(ModelOptions)]
    run.check_same(flatten(config), (*fixed, "dataset", "mode"))
    configure_logging(config.folder / "log.txt")
    network = make_network(config, data, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.optimizer.lr)
    step = _restore(network, optimizer, data, config, run)
    if step >= schedule.total:
        logger.info("%s is already trained for %d steps", config.folder, step)
        return
    run.write_config(flatten(config))
    folder = f"tensorboard_recon/{config.name}" if config.output.tensorboard else None
    writer = run.tensorboard(folder, step)
    scene, labels = make_scene(data, device), data.labels.to(device)
    sampler = make_sampler(data, config, step)
    workers = config.data.num_workers if config.data.no_prefetch else 0
    batches = endless_batches(data, sampler, workers, device)

    logger.info("training %s: %d images, %d steps", config.name, len(data), schedule.total)
    start, first = time.monotonic(), step
    with progress(total=schedule.total, initial=step, description="training") as bar:
        while step < schedule.total:
            batch = next(batches)
            flips = sampler.coins(step).to(device)
            losses, shown = train_step(
                network, optimizer, scene, batch, labels, flips, config, schedule, step
            )
            step += 1
            bar.update(1)
            done = step == schedule.total
            if done or step % LOG_INTERVAL == 0:
                _log(run, writer, config, step, losses, (time.monotonic() - start) / (step - first))
            if done or step % schedule.picture == 0:
                _save_picture(shown, scene, batch, labels, config, writer, step)
            if done or step % schedule.checkpoint == 0:
                path = checkpoint.path_of(config.folder, step)
                save_state(path, network, optimizer, step, data, config)
            elif step % schedule.save == 0:
                path = config.folder / "checkpoint_latest.pth"
                save_state(path, network, optimizer, step, data, config)
    batches.close()
    writer.close()
    logger.info("finished %s after %d steps", config.name, step)


def make_sampler(data: ReconstructionData, config: ReconstructionConfig, step: int) -> StepSampler:
    """Returns this process's stream of batches: balanced over categories if there are several."""
    several = len(data.detections) > 1
    return StepSampler(
        len(data),
        config.batch_size,
        config.seed,
        weights=balanced_weights(data.labels.category) if several else None,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        start_step=step,
    )


def train_step(
    network: ReconstructionNetwork,
    optimizer: torch.optim.Optimizer,
    scene: Scene,
    batch: Batch,
    labels: Labels,
    flips: Tensor,
    config: ReconstructionConfig,
    schedule: Schedule,
    step: int,
) -> tuple[Losses, Prediction]:
    """Updates the network once.

    Args:
        network, optimizer: are changed.
        scene: what the images share.
        batch: B crops; `index` says which rows of the labels are theirs.
        labels: of all images.
        flips: (B,) bool, images that the network sees mirrored; the mesh of a symmetric object
            stays the same.
        config, schedule: options.
        step: number of steps made before this one.
    """
    for group in optimizer.param_groups:
        group["lr"] = config.optimizer.lr * 0.5 ** (step // schedule.lr_decay)
    network.train()
    own = labels.select(batch.index)
    seen = torch.where(flips[:, None, None, None], batch.image.flip(-1), batch.image)
    prediction = predict(network, scene, seen, own, bfloat16=config.optimizer.bfloat16)
    losses = compute_losses(prediction, scene, batch, own, config, step)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    distributed.average_gradients(network.parameters())
    optimizer.step()
    return losses, prediction


def compute_losses(
    prediction: Prediction,
    scene: Scene,
    batch: Batch,
    labels: Labels,
    config: ReconstructionConfig,
    step: int,
) -> Losses:
    """Compares what was predicted for a batch with its images and templates; labels are the batch's."""
    criterion = F.mse_loss if config.optimizer.loss == "mse" else F.l1_loss
    maps, alpha = render(scene, prediction, labels, config.model.image_resolution)
    mask = batch.image[:, 3:]
    reconstruction = criterion(alpha, mask)
    if maps is not None:
        targets = target_maps(batch, scene.selection[labels.category], config)
        reconstruction = reconstruction + 10 * criterion(maps, targets)
    templates = scene.templates[labels.template]
    distance = (prediction.vertices - templates).square().sum(-1).mean(1)
    weight = (labels.pinned + SEMI_DECAY**step).clamp(max=1)
    reconstruction = reconstruction + 10 * (weight * distance).mean()

    sphere = scene.sphere
    flat = flatness(prediction.vertices, sphere.faces, sphere.neighbors).mean()
    total = reconstruction + flatness_weight(config.optimizer.mesh_regularization, step) * flat
    total = total + half_space_penalty(prediction.vertices, sphere.positive)
    return Losses(total, reconstruction.detach(), flat.detach(), hard_iou(alpha, mask).mean())


def target_maps(batch: Batch, selection: Tensor, config: ReconstructionConfig) -> Tensor:
    """Returns what renderings of the predicted maps are compared with.

    Parts (if predicted): the channels of the image's category without the background, whose
    probability is spread evenly over them; channels of other categories are zero. Then colors.

    Args:
        batch: crops with part maps.
        selection: (B, P, Cg).
        config: options.

    Returns:
        (B, C, h, w).
    """
    targets = []
    if config.model.predicts_parts:
        valid = selection.sum(2)[:, :, None, None]
        spread = batch.parts[:, :1] / valid.sum(1, keepdim=True)
        targets.append((batch.parts[:, 1:] + spread) * valid)
    if config.model.predicts_texture:
        targets.append(batch.image[:, :3])
    return torch.cat(targets, 1)


def flatness_weight(final: float, step: int) -> float:
    """Weight of the flatness loss: falls linearly from 5e-4 to its final value."""
    return max(FLATNESS_START * (1 - step / FLATNESS_STEPS), final)


def _check_batch(config: ReconstructionConfig) -> None:
    processes = distributed.world_size()
    if config.batch_size % processes:
        raise UserError(
            f"--batch_size {config.batch_size}: cannot be split evenly over {processes} processes. "
            f"Use a multiple of {processes}."
        )
    counted = config.batch_size // (processes if config.model.norm_g == "batch" else 1)
    if config.model.norm_g in ("batch", "syncbatch") and counted < 2:
        raise UserError(
            f"--batch_size {config.batch_size}: --norm_g {config.model.norm_g} needs at least 2 images. "
            "Use a larger batch, or --norm_g none."
        )


def _restore(
    network: ReconstructionNetwork,
    optimizer: torch.optim.Optimizer,
    data: ReconstructionData,
    config: ReconstructionConfig,
    run: RunDirectory,
) -> int:
    """Loads the newest state and returns its step; 0 where the run is new."""
    newest = newest_state(config.folder)
    if newest is None:
        return 0
    path, state = newest
    load_weights(network, state, path, data)
    if "optimizer" not in state or "iteration" not in state:
        raise UserError(
            f"{path} holds weights only, so training cannot continue from it. Use another --name."
        )
    optimizer.load_state_dict(state["optimizer"])
    run.rewind(state["iteration"])
    logger.info("continuing %s after step %d", config.folder, state["iteration"])
    return state["iteration"]


def _log(
    run: RunDirectory,
    writer: Any,
    config: ReconstructionConfig,
    step: int,
    losses: Losses,
    seconds: float,
) -> None:
    values = {name: value.item() for name, value in losses._asdict().items()}
    run.record(step=step, **values, seconds_per_step=round(seconds, 4))
    writer.add_scalar(f"{config.optimizer.loss}/train", values["reconstruction"], step)
    writer.add_scalar("flat/train", values["flat"], step)
    writer.add_scalar("iou/train", values["iou"], step)
    if step % (10 * LOG_INTERVAL) == 0:
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        logger.info("step %d  %s  %.2f s/step", step, text, seconds)


@torch.no_grad()
def _save_picture(
    prediction: Prediction,
    scene: Scene,
    batch: Batch,
    labels: Labels,
    config: ReconstructionConfig,
    writer: Any,
    step: int,
) -> None:
    """Saves photographs and true parts above what is rendered in their place."""
    if not distributed.is_main():
        return
    maps, alpha = render(
        scene, prediction, labels.select(batch.index), config.model.image_resolution
    )
    rows = [batch.image[:, :3], 2 * alpha.expand(-1, 3, -1, -1) - 1]
    if maps is not None and config.model.predicts_texture:
        rows.append(maps[:, -3:])
    if maps is not None and config.model.predicts_parts:
        rows += [_paint(batch.parts[:, 1:]), _paint(maps[:, : scene.selection.shape[1]])]
    columns = min(_PICTURE_COLUMNS, len(alpha))
    grid = make_grid(torch.cat([row[:columns] for row in rows]), columns)
    save_image(config.folder / "samples" / f"{step:07d}.png", to_uint8(grid))
    writer.add_image("image_train/grid", (grid.clamp(-1, 1) + 1) / 2, step)


def _paint(parts: Tensor) -> Tensor:
    """Colors part probabilities (B, P, h, w) as (B, 3, h, w) in [-1, 1]."""
    palette = torch.from_numpy(part_palette(parts.shape[1])).to(parts) / 127.5 - 1
    return torch.einsum("bphw,pc->bchw", parts, palette)
