"""Stage 4: trains the GAN in UV space on the pseudo-ground-truth of stage 3.

Reads cache/<dataset>/pseudogt_<R>x<R>_<mode>/ and poses_metadata_<mode>.npz; writes
checkpoints_gan/<run>/. A step updates one network: the generator every 1 + d_steps_per_g steps, the
discriminator otherwise. Everything random is a function of (seed, step), so the same command
continues an interrupted run and ends with the same weights.
"""

import copy
import itertools
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.pseudo_ground_truth import PseudoGroundTruth, UVSample, mirror_samples
from data.samplers import StepSampler, balanced_weights
from geometry.operators import flatness
from geometry.sphere_mesh import SphereMesh
from models.discriminator import MultiScaleDiscriminator
from models.losses import Target, gan_loss, scale_weights
from pipeline.generation import evaluation, sampling
from pipeline.generation.config import DiscriminatorOptions, GenerationConfig, GeneratorOptions
from rendering import rasterizer
from utils import checkpoint, distributed, seeding
from utils.optimizers import update_ema
from utils.options import flatten
from utils.progress import progress
from utils.run_directory import RunDirectory, configure_logging

logger = logging.getLogger(__name__)

LOG_INTERVAL = 10  # steps between records of the losses
WARMUP_COLORS = 10.0  # weight of the distance to the samples' mean texture, at the first step
WARMUP_SHAPE = 1000.0  # the same of the displacement maps, whose values are ten times as small
SAVES_WITH_ITERS = 30  # numbered checkpoints of a run whose length is given by --iters


class Schedule(NamedTuple):
    """Length of a run and its intervals, all in steps."""

    epoch: int
    total: int
    save: int
    checkpoint: int
    evaluate: int


def make_schedule(config: GenerationConfig, num_samples: int) -> Schedule:
    """Turns epochs into steps; with --iters, checkpoints and evaluations are spread evenly."""
    epoch = max(1, num_samples // config.batch_size)
    total = config.optimizer.iters or (config.optimizer.epochs or 600) * epoch
    default = max(1, -(-total // SAVES_WITH_ITERS)) if config.optimizer.iters else 20 * epoch

    def interval(epochs: int | None) -> int:
        return epochs * epoch if epochs else default

    return Schedule(
        epoch=epoch,
        total=total,
        save=(config.output.save_freq or 5) * epoch,
        checkpoint=interval(config.output.checkpoint_freq),
        evaluate=interval(config.output.evaluate_freq),
    )


def ema_decay(generator_steps: int, decay: float) -> float:
    """Decay of the averaged generator after some generator steps: grows from 0.1 to `decay`.

    A function of steps, where the reference counts epochs and so averages differently for every
    size of collection.
    """
    return min(decay, (1 + generator_steps) / (10 + generator_steps))


def learning_rate_factor(epoch: float, decay_after: int, epochs: float) -> float:
    """1 until `decay_after`, then linear to 0 at the end of training."""
    if epoch < decay_after:
        return 1.0
    return max(0.0, (epochs - epoch) / max(epochs - decay_after, 1e-9))


class Gan:
    """The networks and optimizers of a run.

    Attributes:
        generator, discriminator: trained against each other.
        generator_ema: moving average of the generator, used for everything but training.
    """

    def __init__(
        self, config: GenerationConfig, num_classes: int, num_parts: int, device: torch.device
    ) -> None:
        seeding.seed_everything(config.seed, "networks")
        self.generator = sampling.make_generator(config.model, num_classes, num_parts).to(device)
        self.generator_ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.discriminator = MultiScaleDiscriminator(
            texture_resolution=config.model.texture_resolution,
            num_discriminators=config.discriminator.num_discriminators,
            num_classes=num_classes,
            num_parts=num_parts,
            norm=config.discriminator.norm_d,
            texture_only=config.model.texture_only,
            width=config.model.width,
        ).to(device)
        for network in (self.generator, self.discriminator):
            network.to(memory_format=torch.channels_last)  # a tenth faster on CPUs, more on GPUs
        self.optimizer_g = torch.optim.Adam(
            self.generator.parameters(), lr=config.optimizer.lr_g, betas=(0.0, 0.99)
        )
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.optimizer.lr_d, betas=(0.0, 0.99)
        )

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "generator_running_avg": self.generator_ema,
            "discriminator": self.discriminator,
            "optimizer_g": self.optimizer_g,
            "optimizer_d": self.optimizer_d,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns the states under the names of the published checkpoints."""
        return {key: part.state_dict() for key, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        for key, part in self._parts().items():
            part.load_state_dict(state[key])


def train(device: torch.device, config: GenerationConfig) -> None:
    """Trains until the schedule's end, from the latest checkpoint of the run if there is one.

    Raises:
        UserError: if there is no pseudo-ground-truth, or the run's checkpoints have another
            architecture.
    """
    rasterizer.set_backend(config.rasterizer)
    # Before the run's folder exists, so that a mistake leaves nothing behind
    dataset = sampling.open_dataset(config)
    metadata = dataset.metadata
    num_classes = sampling.num_classes(config, metadata)
    num_parts = sampling.num_parts(config, dataset)
    schedule = make_schedule(config, len(dataset))

    run = RunDirectory(config.folder)
    fixed = [f.name for piece in (GeneratorOptions, DiscriminatorOptions) for f in fields(piece)]
    run.check_same(flatten(config), fixed)
    configure_logging(config.folder / "log.txt")
    gan = Gan(config, num_classes, num_parts, device)
    step = _restore(gan, config, run)
    if step >= schedule.total:
        logger.info("%s is already trained for %d steps", config.folder, step)
        return
    run.write_config(flatten(config))
    measure = evaluation.make_measure_or_explain(config, device)
    writer = run.tensorboard(
        f"tensorboard_gan/{config.name}" if config.output.tensorboard else None, step
    )
    template = SphereMesh(sampling.rings_of(config.model.mesh_path)).to(device)
    batches = _batches(dataset, config, step, device)

    logger.info("training %s: %d samples, %d steps", config.name, len(dataset), schedule.total)
    start, first = time.monotonic(), step
    with progress(total=schedule.total, initial=step, description="training") as bar:
        for batch in batches:
            losses = train_step(gan, batch, template, config, schedule, step)
            step += 1
            bar.update(1)
            if step % LOG_INTERVAL == 0 or step == schedule.total:
                seconds = (time.monotonic() - start) / (step - first)
                _log(run, writer, step, {k: v.item() for k, v in losses.items()}, seconds)
            done = step == schedule.total
            if done or step % schedule.checkpoint == 0:
                _save(gan, checkpoint.path_of(config.folder, step), step, config)
                sampling.save_preview(gan.generator_ema, template, metadata, dataset, config, step)
            elif step % schedule.save == 0:
                _save(gan, config.folder / "checkpoint_latest.pth", step, config)
            if measure and (done or step % schedule.evaluate == 0):
                scores = evaluation.compute_scores(
                    gan.generator_ema, measure, metadata, dataset, config, device
                )
                evaluation.report(scores, measure, run, writer, step)
            if config.output.tensorboard and (done or step % schedule.evaluate == 0):
                sampling.add_images(
                    writer, gan.generator_ema, template, batch, config, metadata, step
                )
            if done:
                break
    logger.info("finished %s after %d steps", config.name, step)


def train_step(
    gan: Gan,
    batch: UVSample,
    template: SphereMesh,
    config: GenerationConfig,
    schedule: Schedule,
    step: int,
) -> dict[str, Tensor]:
    """Updates one network and returns its detached losses."""
    cycle = 1 + config.optimizer.d_steps_per_g
    factor = learning_rate_factor(
        step / schedule.epoch, config.optimizer.lr_decay_after, schedule.total / schedule.epoch
    )
    device = batch.texture.device
    noise = _noise(config, step, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.optimizer.bfloat16):
        if step % cycle:
            return _discriminator_step(gan, batch, noise, config, factor)
        warmth = (
            max(0.0, 1 - step / config.optimizer.warmup_steps)
            if config.optimizer.warmup_steps
            else 0.0
        )
        losses = _generator_step(gan, batch, noise, template, config, factor, warmth)
    update_ema(
        gan.generator_ema,
        gan.generator,
        ema_decay(step // cycle, config.optimizer.g_running_average_alpha),
    )
    return losses


def _generator_step(
    gan: Gan,
    batch: UVSample,
    noise: Tensor,
    template: SphereMesh,
    config: GenerationConfig,
    factor: float,
    warmth: float,
) -> dict[str, Tensor]:
    conditions = sampling.conditions(gan.generator, batch)
    texture, displacement = gan.generator(noise, *conditions)
    gan.discriminator.requires_grad_(False)
    fake = torch.cat([texture * batch.alpha, batch.alpha], dim=1)
    outputs, masks = gan.discriminator(fake, displacement, *conditions)
    adversarial = _adversarial_loss(config, outputs, masks, "generator")
    vertices = template.deform(displacement.float())
    flat = flatness(vertices, template.faces, template.neighbors).mean()
    loss = (
        adversarial
        + (0.0 if config.model.texture_only else config.optimizer.mesh_regularization) * flat
    )
    if warmth:
        # The samples have nothing to do with the codes, so this leads to their mean
        color = (texture * batch.alpha - batch.texture).square().mean()
        shape = (displacement - batch.mesh).square().mean()
        loss = loss + warmth * (WARMUP_COLORS * color + WARMUP_SHAPE * shape)
    _update(gan.optimizer_g, loss, config.optimizer.lr_g * factor)
    gan.discriminator.requires_grad_(True)
    return {"loss_g": adversarial.detach(), "flat": flat.detach()}


def _discriminator_step(
    gan: Gan, batch: UVSample, noise: Tensor, config: GenerationConfig, factor: float
) -> dict[str, Tensor]:
    conditions = sampling.conditions(gan.generator, batch)
    with torch.no_grad():
        texture, displacement = gan.generator(noise, *conditions)
    fake = torch.cat([texture * batch.alpha, batch.alpha], dim=1)
    real = torch.cat([batch.texture, batch.alpha], dim=1)
    twice = [None if c is None else torch.cat([c, c]) for c in conditions]
    outputs, masks = gan.discriminator(
        torch.cat([fake, real]), torch.cat([displacement, batch.mesh]), *twice
    )
    half = len(fake)
    on_fake = _adversarial_loss(
        config, [x[:half] for x in outputs], [x[:half] for x in masks], "fake"
    )
    on_real = _adversarial_loss(
        config, [x[half:] for x in outputs], [x[half:] for x in masks], "real"
    )
    _update(gan.optimizer_d, on_fake + on_real, config.optimizer.lr_d * factor)
    return {"loss_d_fake": on_fake.detach(), "loss_d_real": on_real.detach()}


def _adversarial_loss(
    config: GenerationConfig, outputs: list[Tensor], masks: list[Tensor], target: Target
) -> Tensor:
    if not config.optimizer.mask_output:
        masks = [torch.ones_like(mask) for mask in masks]
    weights = scale_weights(config.model.texture_resolution, len(outputs))
    return gan_loss(config.optimizer.loss, [x.float() for x in outputs], masks, target, weights)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    distributed.average_gradients(p for g in optimizer.param_groups for p in g["params"])
    optimizer.step()


def _noise(config: GenerationConfig, step: int, device: torch.device) -> Tensor:
    """This process's rows of the step's latent codes, which don't depend on the processes."""
    generator = seeding.torch_generator(config.seed, "noise", step)
    noise = torch.randn(config.batch_size, config.model.latent_dim, generator=generator)
    rows = distributed.shard(config.batch_size)
    return noise[rows.start : rows.stop].to(device)


def _batches(
    dataset: PseudoGroundTruth,
    config: GenerationConfig,
    step: int,
    device: torch.device,
) -> Iterator[UVSample]:
    """Yields this process's batches from `step` on, without end."""
    categories = dataset.metadata.category
    weights = balanced_weights(categories) if config.data.dataset == "all" else None
    sampler = StepSampler(
        len(dataset),
        config.batch_size,
        config.seed,
        weights=weights,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        start_step=step,
    )
    workers = min(config.data.num_workers, os.cpu_count() or 1)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers)
    for number, batch in zip(itertools.count(step), loader, strict=False):
        batch = UVSample(*(x.to(device, non_blocking=True) for x in batch))
        yield mirror_samples(batch, sampler.coins(number))


def _save(gan: Gan, path: Path, step: int, config: GenerationConfig) -> None:
    if distributed.is_main():
        checkpoint.save(path, {**gan.state_dict(), "iteration": step, "args": flatten(config)})
    distributed.barrier()


def _restore(gan: Gan, config: GenerationConfig, run: RunDirectory) -> int:
    """Loads the newest state and returns its step; 0 where the run is new."""
    files = [path for _, path in checkpoint.numbered(config.folder)[-1:]]
    latest = config.folder / "checkpoint_latest.pth"
    states = [checkpoint.load(p) for p in [*files, latest] if p.exists()]
    states = [state for state in states if "optimizer_g" in state]
    if not states:
        return 0
    state = max(states, key=lambda s: s["iteration"])
    gan.load_state_dict(state)
    run.rewind(state["iteration"])
    logger.info("continuing %s after step %d", config.folder, state["iteration"])
    return state["iteration"]


def _log(run: RunDirectory, writer: Any, step: int, losses: dict, seconds: float) -> None:
    run.record(step=step, **losses, seconds_per_step=round(seconds, 4))
    for key, value in losses.items():
        writer.add_scalar(key, value, step)
    if step % (10 * LOG_INTERVAL) == 0:
        text = "  ".join(f"{key} {value:.4f}" for key, value in losses.items())
        logger.info("step %d  %s  %.2f s/step", step, text, seconds)
