"""Stage 4: trains the GAN in UV space on the pseudo-ground-truth of stage 3.

Reads cache/<dataset>/pseudogt_<R>x<R>_<mode>/ and poses_metadata_<mode>.npz; writes
checkpoints_gan/<run>/. A step updates one network: the generator every 1 + d_steps_per_g steps, the
discriminator otherwise. Everything random is a function of (seed, step), so the same command
continues an interrupted run and ends with the same weights.
"""

import copy
import itertools
import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.definitions import expand_dataset
from data.loading import load_batches
from data.pseudo_ground_truth import PseudoGroundTruth, UVSample, mirror_samples
from data.samplers import StepSampler, balanced_weights
from geometry.operators import flatness
from geometry.sphere_mesh import SphereMesh
from models.discriminator import MultiScaleDiscriminator
from models.losses import Target, gan_loss, gradient_penalty, scale_weights
from models.optimizers import update_ema
from pipeline.generation import evaluation, measures, model_file, pictures, sampling
from pipeline.generation.augmentation import augment, uniform_numbers
from pipeline.generation.config import GenerationConfig, OutputOptions
from pipeline.generation.linear import stage
from pipeline.generation.linear.generator import LinearGenerator
from pipeline.generation.linear.refined import AnyGenerator, RefinedGenerator, base_of
from rendering import rasterizer
from utils import checkpoint, distributed, seeding, training
from utils.cli import UserError
from utils.options import flatten
from utils.run_directory import RunDirectory, configure_logging
from utils.training import Schedule, Term

logger = logging.getLogger(__name__)

PENALTY_INTERVAL = 16  # discriminator steps, of which one is penalized so many times
WARMUP_COLORS = 10.0  # weight of the distance to the samples' mean texture, at the first step
WARMUP_SHAPE = 1000.0  # the same of the displacement maps, whose values are ten times as small
DEFAULT_EPOCHS = 600
SAVES_WITH_ITERS = 30  # numbered checkpoints of a run whose length is given by --iters


def train(device: torch.device, config: GenerationConfig) -> None:
    """Trains until the schedule's end, from the latest checkpoint of the run if there is one.

    Raises:
        UserError: if there is no pseudo-ground-truth, or the run cannot be continued.
    """
    rasterizer.set_backend(config.rasterizer)
    distributed.require_even_split(config.batch_size)
    configure_logging()
    model_file.refuse_another_kind(config)
    run = RunDirectory(config.folder)
    # The architecture of a checkpoint takes precedence over the options
    found = run.newest_checkpoint()
    if found is not None:
        config = with_architecture(config, *found)
    # Before the run's folder exists, so that a mistake leaves nothing behind
    dataset = sampling.open_dataset(config)
    length = training.make_length(
        len(dataset),
        config.batch_size,
        config.optimizer.iters,
        config.optimizer.epochs or DEFAULT_EPOCHS,
    )
    classes, base = sampling.num_classes(config, dataset), None
    if config.model.start_from == "linear":
        stage.require_enough(dataset)
        base = stage.make_generator(dataset, classes) if found is None else stored_base(*found)
        codes = max(config.model.latent_dim, base.latent_dim)
        config = replace(config, model=replace(config.model, latent_dim=codes))
    gan = Gan(config, classes, sampling.num_parts(config, dataset), device, base)
    task = make_task(gan, dataset, config, length, device)
    configure_logging(config.folder / "log.txt")
    logger.info("training %s: %d samples, %d steps", config.name, len(dataset), length.total)
    folder = Path("tensorboard_gan") / config.name
    training.train(
        task,
        make_schedule(config.output, length),
        run,
        flatten(config),
        found=found,
        keep=config.output.keep_checkpoints,
        tensorboard=folder if config.output.tensorboard else None,
    )


def stored_base(path: Path, state: Mapping[str, Any]) -> LinearGenerator:
    """Returns the statistical generator that a checkpoint has begun from."""
    try:
        return base_of(state["generator"])
    except (KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} holds no statistical generator ({error}).") from None


def with_architecture(
    config: GenerationConfig, path: Path, state: Mapping[str, Any]
) -> GenerationConfig:
    """Returns the options with the architecture of a checkpoint, and says where that differs."""
    model = model_file.stored_architecture(path, state, config.model)
    discriminator = checkpoint.stored_options(path, dict(state), asdict(config.discriminator))
    data = checkpoint.stored_options(path, dict(state), {"held_out": config.data.held_out})
    training.announce(path, flatten(config), {**model, **discriminator, **data})
    return replace(
        config,
        data=replace(config.data, **data),
        model=replace(config.model, **model),
        discriminator=replace(config.discriminator, **discriminator),
    )


def make_schedule(output: OutputOptions, length: training.Length) -> Schedule:
    """Returns the intervals; with --iters, checkpoints and evaluations are spread evenly."""
    numbered = length.interval(output.checkpoint_freq, 20, SAVES_WITH_ITERS)
    return Schedule(
        total=length.total,
        picture=numbered,
        evaluate=length.interval(output.evaluate_freq, 20, SAVES_WITH_ITERS),
        save=length.interval(output.save_freq, 5),
        checkpoint=numbered,
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
        self,
        config: GenerationConfig,
        num_classes: int | Sequence[int],
        num_parts: int,
        device: torch.device,
        base: LinearGenerator | None = None,
    ) -> None:
        # The initial weights depend on the seed alone, and on the base, where there is one
        seeding.seed_everything(config.seed, "networks")
        network = sampling.make_generator(config.model, num_classes, num_parts)
        generator = network if base is None else RefinedGenerator(base, network)
        self.generator: AnyGenerator = generator.to(device)
        self.generator_ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.discriminator = MultiScaleDiscriminator(
            texture_resolution=config.model.texture_resolution,
            num_discriminators=config.discriminator.num_discriminators,
            num_classes=num_classes,
            num_parts=num_parts,
            norm=config.discriminator.norm_d,
            texture_only=config.model.texture_only,
            width=config.model.width,
            mesh_resolution=config.model.mesh_resolution,
        ).to(device)
        for convolutional in (network, self.discriminator):
            convolutional.to(
                memory_format=torch.channels_last
            )  # a tenth faster on CPUs, more on GPUs
        # No momentum: the target of each network moves with the other network
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), betas=(0.0, 0.99))
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), betas=(0.0, 0.99))

    def members(self) -> dict[str, training.Stateful]:
        """Returns networks and optimizers under the names of the published checkpoints."""
        return {
            "generator": self.generator,
            "generator_running_avg": self.generator_ema,
            "discriminator": self.discriminator,
            "optimizer_g": self.optimizer_g,
            "optimizer_d": self.optimizer_d,
        }


def make_task(
    gan: Gan,
    dataset: PseudoGroundTruth,
    config: GenerationConfig,
    length: training.Length,
    device: torch.device,
) -> training.Task:
    """Returns what the training loop calls."""
    template = sampling.make_sphere(config.model).to(device)
    shown = pictures.Shown(template, dataset, config)
    wanted = measures.make_measures_or_explain(config, device)
    update = Update(gan, template, config, length)
    description = model_file.describe(dataset, config)

    def evaluate(step: int, writer: Any) -> None:
        for measure in wanted:
            scores = evaluation.compute_scores(
                gan.generator_ema, measure, dataset.metadata, dataset, config, device
            )
            evaluation.report(scores, measure, RunDirectory(config.folder), writer, step)

    return training.Task(
        members=gan.members(),
        constants=description,
        batches=partial(endless_batches, dataset, config, device),
        update=update,
        rates=update.rates,
        remedy="Use smaller rates: --lr_g, --lr_d.",
        picture=partial(pictures.draw_samples, gan.generator_ema, shown),
        images=partial(pictures.draw_details, gan.generator_ema, shown),
        evaluate=evaluate if wanted else None,
        write_model=partial(model_file.save_model, config.folder, gan.generator_ema, description),
        score=wanted[0].key if wanted else None,
    )


class Update:
    """A training step, which updates one of the two networks."""

    def __init__(
        self, gan: Gan, template: SphereMesh, config: GenerationConfig, length: training.Length
    ) -> None:
        self.gan, self.template, self.length = gan, template, length
        self.options, self.model = config.optimizer, config.model
        self.batch_size, self.seed = config.batch_size, config.seed

    def __call__(self, step: int, batch: UVSample) -> dict[str, Tensor]:
        """Updates one network and returns its detached losses."""
        gan, options = self.gan, self.options
        # One generator step per cycle, discriminator steps otherwise
        cycle = 1 + options.d_steps_per_g
        rates, noise = self.rates(step), self._noise(step).to(batch.texture)
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=options.bfloat16):
            if step % cycle:
                terms = self.discriminator_terms(batch, noise, step)
                _descend(gan.optimizer_d, terms, rates["lr_d"])
                return training.values(terms)
            # Gradients flow through the discriminator, whose own would be wasted
            gan.discriminator.requires_grad_(False)
            terms = self.generator_terms(batch, noise, step)
            _descend(gan.optimizer_g, terms, rates["lr_g"])
            gan.discriminator.requires_grad_(True)
        decay = ema_decay(step // cycle, options.g_running_average_alpha)
        update_ema(gan.generator_ema, gan.generator, decay)
        return training.values(terms)

    def rates(self, step: int) -> dict[str, float]:
        """Returns the learning rates of a step."""
        epoch, epochs = step / self.length.epoch, self.length.total / self.length.epoch
        factor = learning_rate_factor(epoch, self.options.lr_decay_after, epochs)
        return {"lr_g": self.options.lr_g * factor, "lr_d": self.options.lr_d * factor}

    def generator_terms(self, batch: UVSample, noise: Tensor, step: int) -> dict[str, Term]:
        """Returns the losses of the generator: of its samples, and of what these look like."""
        gan, options = self.gan, self.options
        conditions = sampling.conditions_of(gan.generator, batch)
        texture, displacement = gan.generator(noise, conditions)
        # Texels that the photograph does not show are hidden in real and generated textures alike
        fake = torch.cat([texture * batch.alpha, batch.alpha], dim=1)
        maps = self._augmented((fake, displacement), step, ["generated"])
        outputs, masks = gan.discriminator(*maps, conditions)
        # With given meshes the flatness is recorded, but has no weight
        vertices = self.template.deform(displacement.to(batch.mesh.dtype))
        flat = flatness(vertices, self.template.faces, self.template.neighbors).mean()
        weight = 0.0 if self.model.texture_only else options.mesh_regularization
        terms = {
            "loss_g": Term(self._adversarial(outputs, masks, "generator")),
            "flat": Term(flat, weight),
        }
        if options.warmup_steps:
            # The samples have nothing to do with the codes, so this leads to their mean
            warmth = max(0.0, 1 - step / options.warmup_steps)
            with torch.set_grad_enabled(warmth > 0):
                color = (texture * batch.alpha - batch.texture).square().mean()
                shape = (displacement - batch.mesh).square().mean()
            terms["mean_color"] = Term(color, warmth * WARMUP_COLORS)
            terms["mean_shape"] = Term(shape, warmth * WARMUP_SHAPE)
        return terms

    def discriminator_terms(self, batch: UVSample, noise: Tensor, step: int) -> dict[str, Term]:
        """Returns the losses of the discriminator on generated and on real samples."""
        gan = self.gan
        conditions = sampling.conditions_of(gan.generator, batch)
        with torch.no_grad():
            texture, displacement = gan.generator(noise, conditions)
        # Real and generated samples pass through together, half and half
        fake = torch.cat([texture * batch.alpha, batch.alpha], dim=1)
        real = torch.cat([batch.texture, batch.alpha], dim=1)
        maps = torch.cat([fake, real]), torch.cat([displacement, batch.mesh])
        maps = self._augmented(maps, step, ["fake", "real"])
        penalized = self._is_penalized(step)
        inputs = [x.requires_grad_(penalized) for x in maps[: 1 if self.model.texture_only else 2]]
        outputs, masks = gan.discriminator(
            *maps, conditions.map(lambda condition: torch.cat([condition, condition]))
        )
        half = len(fake)
        on_real = [x[half:] for x in outputs], [x[half:] for x in masks]
        terms = {
            "loss_d_fake": Term(
                self._adversarial([x[:half] for x in outputs], [x[:half] for x in masks], "fake")
            ),
            "loss_d_real": Term(self._adversarial(*on_real, "real")),
        }
        if penalized:
            # The gradient of generated samples, of which nothing is scored here, is zero
            penalty = 2 * gradient_penalty(*self._weighted(*on_real), inputs)
            terms["r1"] = Term(penalty, PENALTY_INTERVAL * self.options.r1_weight)
        return terms

    def _is_penalized(self, step: int) -> bool:
        """Returns whether real samples' gradients are penalized at a discriminator step: every few do."""
        number = step - step // (1 + self.options.d_steps_per_g) - 1
        return self.options.r1_weight > 0 and number % PENALTY_INTERVAL == 0

    def _augmented(
        self, maps: tuple[Tensor, Tensor], step: int, kinds: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Returns textures and displacement maps, some of them changed; `kinds` names the batches in them."""
        if not self.options.augment:
            return maps
        # Numbers are drawn for the whole batch, then shared among processes
        rows, numbers = distributed.shard(self.batch_size), []
        for kind in kinds:
            generator = seeding.torch_generator(self.seed, f"augment {kind}", step)
            numbers.append(uniform_numbers(self.batch_size, generator)[rows.start : rows.stop])
        return augment(*maps, torch.cat(numbers), self.options.augment)

    def _weighted(
        self, outputs: list[Tensor], masks: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], tuple[float, ...]]:
        """Returns scores, in single precision at least, their masks, and weights of the discriminators."""
        if not self.options.mask_output:
            masks = [torch.ones_like(mask) for mask in masks]
        scores = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in outputs]
        return scores, masks, scale_weights(self.model.texture_resolution, len(outputs))

    def _adversarial(self, outputs: list[Tensor], masks: list[Tensor], target: Target) -> Tensor:
        scores, masks, weights = self._weighted(outputs, masks)
        return gan_loss(self.options.loss, scores, masks, target, weights)

    def _noise(self, step: int) -> Tensor:
        """This process's rows of the step's latent codes, which don't depend on the processes."""
        generator = seeding.torch_generator(self.seed, "noise", step)
        noise = torch.randn(self.batch_size, self.model.latent_dim, generator=generator)
        rows = distributed.shard(self.batch_size)
        return noise[rows.start : rows.stop]


def _descend(optimizer: torch.optim.Optimizer, terms: Mapping[str, Term], rate: float) -> None:
    # The rate is a function of the step, so that a resumed run needs no scheduler
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    training.weighted_sum(terms).backward()
    distributed.average_gradients(p for g in optimizer.param_groups for p in g["params"])
    optimizer.step()


def endless_batches(
    dataset: PseudoGroundTruth, config: GenerationConfig, device: torch.device, step: int
) -> Generator[UVSample]:
    """Yields this process's batches from `step` on, without end."""
    # Several datasets are drawn from equally often, whatever their sizes
    categories = dataset.metadata.category
    several = len(expand_dataset(config.data.dataset)) > 1
    sampler = StepSampler(
        len(dataset),
        config.batch_size,
        config.seed,
        weights=balanced_weights(categories) if several else None,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        start_step=step,
    )
    with closing(load_batches(dataset, sampler, config.data.num_workers)) as loaded:
        for number, batch in zip(itertools.count(step), loaded, strict=False):
            batch = UVSample(*(x.to(device, non_blocking=True) for x in batch))
            yield mirror_samples(batch, sampler.coins(number))
