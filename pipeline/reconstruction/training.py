"""Stage 3: trains the network that estimates a textured mesh from one image.

Reads detections, images, estimated poses and remeshed templates; writes checkpoints_recon/<run>/.
Everything random is a function of (seed, step), so the same command continues an interrupted run
and ends with the same weights.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.distances import hard_iou
from geometry.operators import flatness, half_space_penalty
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction import model_file
from pipeline.reconstruction.companions.record import Companions, make_companions
from pipeline.reconstruction.companions.textures import TextureTerms
from pipeline.reconstruction.config import OptimizerOptions, OutputOptions, ReconstructionConfig
from pipeline.reconstruction.dataset import Batch, Labels, ReconstructionData, endless_batches
from pipeline.reconstruction.model import (
    Prediction,
    Scene,
    make_data,
    make_network,
    make_scene,
    predict,
    render,
)
from pipeline.reconstruction.pictures import Shown, draw
from pipeline.reconstruction.pose_corrections import correct, correction_rate
from pipeline.reconstruction.silhouettes import PointSilhouettes, SilhouetteTerm
from pipeline.reconstruction.texture_flow import mirror_flow
from rendering import rasterizer
from rendering.rasterizer import SHARPNESS
from utils import distributed, training
from utils.cli import UserError
from utils.options import flatten
from utils.run_directory import RunDirectory, configure_logging
from utils.training import Schedule, Term

logger = logging.getLogger(__name__)

SEMI_DECAY = 0.99  # per step: all meshes are pinned to templates at first
FLATNESS_START = 5e-4  # keeps the first meshes smooth
FLATNESS_STEPS = 100  # until the warm-up would reach zero
MAPS_WEIGHT = 10.0  # of colors and parts together, each by its share of the channels
TEMPLATE_WEIGHT = 10.0
DEFAULT_EPOCHS = 1000
SAVES_WITH_ITERS = 30  # numbered checkpoints and pictures of a run whose length is given by --iters
DECAYS_WITH_ITERS = 4

Criterion = Callable[[Tensor, Tensor], Tensor]
CRITERIA: dict[str, Criterion] = {"mse": F.mse_loss, "l1": F.l1_loss}


def train(device: torch.device, config: ReconstructionConfig) -> None:
    """Trains until the schedule's end, from the newest checkpoint of the run if there is one.

    Raises:
        UserError: if an artifact of an earlier stage is missing, the batch cannot be split or
            normalized, or the run cannot be continued.
    """
    rasterizer.set_backend(config.rasterizer)
    configure_logging()
    run = RunDirectory(config.folder)
    # The architecture of a checkpoint takes precedence over the options
    found = run.newest_checkpoint()
    if found is not None:
        config = with_architecture(config, *found)
    _check_batch(config.batch_size, config.model.norm_g)
    # Before the run's folder exists, so that a mistake leaves nothing behind
    data = make_data(config, config.data.cache_bytes)
    length = training.make_length(
        len(data),
        config.batch_size,
        config.optimizer.iters,
        config.optimizer.epochs or DEFAULT_EPOCHS,
    )
    network = make_network(config, data, device)
    # Published weights are translated here, since the loop knows our names only
    if found is not None:
        path, state = found
        model_file.check_vocabulary(path, state, data)
        model_file.load_weights(network, state, path)
        found = path, {**state, "generator": network.state_dict()}  # under our names
    criterion = CRITERIA[config.optimizer.loss]
    companions = make_companions(config, data, device, criterion, length.total, found)
    # From here on the folder of the run exists
    configure_logging(config.folder / "log.txt")
    logger.info("training %s: %d images, %d steps", config.name, len(data), length.total)
    if data.capacity < len(data) and not config.data.no_prefetch:
        text = "crops of %d images fit into the memory for them, the others are read at every use"
        logger.info(f"{text} (--cache_gb)", data.capacity)
    if found is not None:
        # Companions that a run gets late begin anew
        fresh = {name: member.state_dict() for name, member in companions.members.items()}
        found = found[0], {**fresh, **found[1]}
    folder = Path("tensorboard_recon") / config.name
    training.train(
        make_task(network, data, config, length, device, companions),
        make_schedule(config.output, length),
        run,
        flatten(config),
        found=found,
        keep=config.output.keep_checkpoints,
        tensorboard=folder if config.output.tensorboard else None,
    )


def with_architecture(
    config: ReconstructionConfig, path: Path, state: Mapping[str, Any]
) -> ReconstructionConfig:
    """Returns the options with the architecture of a checkpoint, and says where that differs."""
    model = model_file.stored_architecture(path, state, config.model)
    training.announce(path, flatten(config), model)
    return replace(config, model=replace(config.model, **model))


def make_schedule(output: OutputOptions, length: training.Length) -> Schedule:
    """Returns the intervals; with --iters, checkpoints and pictures are spread evenly."""
    return Schedule(
        total=length.total,
        picture=length.interval(output.image_freq, 50, SAVES_WITH_ITERS),
        evaluate=length.total,
        save=length.interval(output.save_freq, 10),
        checkpoint=length.interval(output.checkpoint_freq, 100, SAVES_WITH_ITERS),
    )


def make_task(
    network: ReconstructionNetwork,
    data: ReconstructionData,
    config: ReconstructionConfig,
    length: training.Length,
    device: torch.device,
    companions: Companions,
) -> training.Task:
    """Returns what the training loop calls."""
    optimizer = torch.optim.Adam(network.parameters(), lr=config.optimizer.lr)
    scene = make_scene(data.vocabulary, config.model, device, data.modes)
    labels = data.labels.to(device)
    update = Update(
        network, optimizer, scene, labels, config.optimizer, length, companions=companions
    )
    description = model_file.describe(data, config)
    workers = config.data.num_workers if config.data.no_prefetch else 0
    predicts = None if companions.cameras is None else companions.cameras.network
    return training.Task(
        members={"generator": network, "optimizer": optimizer, **companions.members},
        constants=description,
        batches=partial(endless_batches, data, config.batch_size, config.seed, workers, device),
        update=update,
        rates=update.rates,
        remedy="Use smaller rates: --lr, --pose_rate.",
        picture=partial(
            draw, network, Shown(data, scene, device, companions.corrections, predicts)
        ),
        write_model=partial(
            model_file.save_model,
            config.folder,
            network,
            description,
            companions.stored,
        ),
    )


class Update:
    """A step of training."""

    def __init__(
        self,
        network: ReconstructionNetwork,
        optimizer: torch.optim.Optimizer,
        scene: Scene,
        labels: Labels,
        options: OptimizerOptions,
        length: training.Length,
        companions: Companions | None = None,
    ) -> None:
        """Collects what all steps share.

        Args:
            network, optimizer: are changed by every step.
            scene: what the images share.
            labels: of all images.
            options: losses and rates.
            length: of the run.
            companions: are changed by every step; None has none.
        """
        self.network, self.optimizer = network, optimizer
        self.scene, self.labels, self.options = scene, labels, options
        self.points = None
        if options.silhouette != "raster":
            self.points = PointSilhouettes(options.silhouette, options.point_grid, scene)
        companions = companions or Companions()
        self.corrections, self.teaching, self.swaps, self.semantics = companions[:4]
        self.textures, self.masks, self.templates, self.overlap = companions[4:8]
        self.cameras = companions.cameras
        self.decay_interval = decay_interval(options, length)
        self.total = length.total

    def __call__(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Updates the network once and returns its detached losses.

        Args:
            step: number of steps made before this one.
            batch: B crops; `index` says which rows of the labels are theirs.

        Raises:
            FloatingPointError: if the predicted meshes are not finite.
        """
        # The rate is a function of the step, so that a resumed run needs no scheduler
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates(step)["lr"]
        self.network.train()
        own = self.labels.select(batch.index)
        values = None if self.corrections is None else self.corrections.select(batch.index)
        if values is not None:
            own = own._replace(pose=correct(own.pose, values))
        said = None
        if self.cameras is not None:
            said, own = self.cameras.propose(step, batch, own)
        # The mirror image of a symmetric object shows the same mesh: only the input is flipped
        seen = torch.where(batch.flip[:, None, None, None], batch.image.flip(-1), batch.image)
        prediction = predict(self.network, self.scene, seen, own, bfloat16=self.options.bfloat16)
        if prediction.flow is not None:
            # Back to positions in the photograph itself
            prediction = prediction._replace(flow=mirror_flow(prediction.flow, batch.flip))
        silhouette = self._rendered
        if self.points is not None:
            silhouette = self.points.at(step, step / self.total, own.template)
        terms, iou = compute_terms(
            prediction,
            self.scene if self.templates is None else self.templates.scene,
            batch,
            own,
            self.options,
            step,
            silhouette,
            self.textures,
            sharpness=self.sharpness(step),
        )
        if self.swaps is not None:
            terms |= self.swaps.terms(step, batch.index, prediction)
        if self.semantics is not None:
            terms |= self.semantics.terms(prediction, own, batch)
        total = training.weighted_sum(terms)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        distributed.average_gradients(self.network.parameters())
        self.optimizer.step()
        if self.corrections is not None and values is not None:
            assert values.grad is not None
            self.corrections.step(batch.index, values.grad, self.rates(step)["pose_rate"])
        losses = {"total": total.detach(), **training.values(terms), "iou": iou}
        if self.teaching is not None:
            losses |= self.teaching(step, batch, own, prediction, self._share(step))
        if self.overlap is not None:
            self.overlap.observe(iou)
        if self.templates is not None:
            self.templates.observe(step, own, prediction.vertices)
        if self.masks is not None:
            losses |= self.masks(step, batch.index, self._share(step))
        if self.cameras is not None and said is not None:
            losses |= self.cameras(step, batch, own, said, prediction, self._share(step))
        return losses

    def rates(self, step: int) -> dict[str, float]:
        """Returns the learning rates of a step."""
        rates = {"lr": self.options.lr * self._share(step)}
        if self.corrections is not None:
            rates["pose_rate"] = correction_rate(self.options) * self._share(step)
        return rates

    def sharpness(self, step: int) -> float:
        """Returns the sharpness of silhouettes at a step: from the usual to the final one.

        Soft silhouettes reach beyond the mesh, which therefore ends up too small; sharp ones have
        no gradients far from the outline, so that the usual softness comes first.
        """
        return SHARPNESS * (self.options.final_sharpness / SHARPNESS) ** (step / self.total)

    def _rendered(self, prediction: Prediction, alpha: Tensor, mask: Tensor) -> Tensor:
        """Compares the pixels of silhouettes and masks."""
        del prediction  # which has been rendered
        return CRITERIA[self.options.loss](alpha, mask)

    def _share(self, step: int) -> float:
        """Returns what is left of all rates at a step."""
        return 0.5 ** (step // self.decay_interval)


def decay_interval(options: OptimizerOptions, length: training.Length) -> int:
    """Returns the steps between halvings of the rate; --lr_decay_every counts epochs."""
    if options.lr_decay_every is None and length.in_steps:
        return max(1, length.total // DECAYS_WITH_ITERS)
    return (options.lr_decay_every or 250) * length.epoch


def compute_terms(
    prediction: Prediction,
    scene: Scene,
    batch: Batch,
    labels: Labels,
    options: OptimizerOptions,
    step: int,
    silhouette: SilhouetteTerm,
    textures: TextureTerms | None = None,
    *,
    sharpness: float = SHARPNESS,
) -> tuple[dict[str, Term], Tensor]:
    """Compares what was predicted for a batch with its images and templates; labels are the batch's.

    Silhouettes have a sharpness per squared screen unit.

    Returns:
        The terms of the loss, and the mean overlap of the silhouettes.
    """
    # Silhouettes, and colors and parts as far as they are predicted
    maps, alpha = render(scene, prediction, labels, batch.image.shape[-1], sharpness=sharpness)
    mask = batch.image[:, 3:]
    terms = {"silhouette": Term(silhouette(prediction, alpha, mask))}
    if maps is not None:
        terms |= _map_terms(prediction, maps, scene, labels.category, batch, options.loss)
    if textures is not None and maps is not None and prediction.texture is not None:
        terms |= textures(prediction, maps[:, -3:], batch.image, scene)
    # All meshes are pinned to what was fitted to their images at first, some of them for good
    distance = (prediction.vertices - scene.shapes(labels)).square().sum(-1).mean(1)
    weight = (labels.pinned + SEMI_DECAY**step).clamp(max=1)
    terms["template"] = Term((weight * distance).mean(), TEMPLATE_WEIGHT)

    # Regularizers: smooth surfaces, and halves that stay on their side of the mirror plane
    sphere = scene.sphere
    flat = flatness(prediction.vertices, sphere.faces, sphere.neighbors).mean()
    terms["flat"] = Term(flat, flatness_weight(options.mesh_regularization, step))
    terms["half_space"] = Term(half_space_penalty(prediction.vertices, sphere.positive))
    return terms, hard_iou(alpha, mask).mean()


def _map_terms(
    prediction: Prediction, maps: Tensor, scene: Scene, category: Tensor, batch: Batch, loss: str
) -> dict[str, Term]:
    """Compares rendered maps (B, C, h, w) with part maps and colors, so that each channel counts alike."""
    criterion, share = CRITERIA[loss], MAPS_WEIGHT / maps.shape[1]
    terms = {}
    if prediction.parts is not None and scene.has_parts:
        targets = part_targets(batch.parts, scene.selection[category])
        count = targets.shape[1]
        terms["parts"] = Term(criterion(maps[:, :count], targets), share * count)
    if prediction.texture is not None:
        terms["texture"] = Term(criterion(maps[:, -3:], batch.image[:, :3]), share * 3)
    return terms


def part_targets(parts: Tensor, selection: Tensor) -> Tensor:
    """Returns what renderings of the predicted part maps are compared with.

    These are the channels of an image's category without the background, whose probability is
    spread evenly over them; channels of other categories are zero.

    Args:
        parts: (B, P + 1, h, w) with the background first.
        selection: (B, P, Cg).

    Returns:
        (B, P, h, w).
    """
    # The channels that a category has, and an even share of the background for each
    valid = selection.sum(2)[:, :, None, None]
    spread = parts[:, :1] / valid.sum(1, keepdim=True)
    return (parts[:, 1:] + spread) * valid


def flatness_weight(final: float, step: int) -> float:
    """Weight of the flatness loss: falls linearly from 5e-4 to its final value."""
    return max(FLATNESS_START * (1 - step / FLATNESS_STEPS), final)


def _check_batch(batch_size: int, norm: str) -> None:
    distributed.require_even_split(batch_size)
    # Synchronized normalization counts the images of all processes
    counted = batch_size // (distributed.world_size() if norm == "batch" else 1)
    if norm in ("batch", "syncbatch") and counted < 2:
        raise UserError(
            f"--batch_size {batch_size}: --norm_g {norm} needs at least 2 images. "
            "Use a larger batch, or --norm_g none."
        )
