"""Trains the network that estimates points and a pose from one image, from several views and no camera.

L = 1/2 sum of squared errors of the best candidate + student_weight * (1 - <q_best, q_student>^2), means
over the views (Insafutdinov and Dosovitskiy 2018, equations 5 and 7). Points come from one view of each object;
they are compared with the masks of all of them.
"""

import logging
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from geometry import quaternion
from models.point_clouds import Cloud, Code, PointCloudNetwork, UprightNetwork
from pipeline.reconstruction.points import model_file
from pipeline.reconstruction.points.common_shape import FINE
from pipeline.reconstruction.points.config import PointConfig
from pipeline.reconstruction.points.dataset import Batch, PointData, batches, num_views
from pipeline.reconstruction.points.model_file import PointNetwork
from pipeline.reconstruction.points.pictures import draw
from pipeline.reconstruction.points.projection import explain
from pipeline.reconstruction.points.upright import Poses, teach
from rendering.projection.schedule import keep, share_at, sigma_at
from utils import distributed, seeding, training
from utils.options import flatten
from utils.run_directory import RunDirectory, configure_logging
from utils.training import Term

DEFAULT_EPOCHS = 1000
WEIGHT_DECAY = 1e-3
LEAST_POINTS = 280  # that take part at first: the paper's share of its smallest clouds
SHARES = 30  # pictures and numbered checkpoints of a run whose length is given by --iters

logger = logging.getLogger(__name__)


def train(device: torch.device, config: PointConfig) -> None:
    """Trains until the schedule's end, from the newest checkpoint of the run if there is one.

    Raises:
        UserError: if the renderings are not prepared, or the run cannot be continued.
    """
    configure_logging()
    run = RunDirectory(config.folder)
    # The architecture of a checkpoint takes precedence over the options
    found = run.newest_checkpoint()
    if found is not None:
        config = model_file.with_architecture(config, *found)
    distributed.require_even_split(config.batch_size)
    data = PointData(config.dataset, "train", config.model.image_resolution)
    seeding.seed_everything(config.seed, "points")
    network = model_file.untrained(config.model).to(device)
    poses = None
    if isinstance(network, UprightNetwork):
        poses = Poses(len(data.images)).to(device)
        if found is None:
            poses.initialize(network, data, config.seed)
    count = len(data.objects)
    epochs = config.epochs or DEFAULT_EPOCHS
    length = training.make_length(count, config.batch_size, config.iters, epochs)
    # From here on the folder of the run exists
    configure_logging(config.folder / "log.txt")
    text = "training %s: %d objects, %d views of each in a step, %d steps"
    logger.info(text, config.name, count, num_views(data.objects), length.total)
    training.train(
        make_task(network, poses, data, config, length, device),
        make_schedule(config, length),
        run,
        flatten(config),
        found=found,
        keep=config.output.keep_checkpoints,
        tensorboard=Path("tensorboard_recon") / config.name if config.output.tensorboard else None,
    )


def make_schedule(config: PointConfig, length: training.Length) -> training.Schedule:
    """Returns the intervals of a run."""
    output = config.output
    return training.Schedule(
        total=length.total,
        picture=length.interval(output.image_freq, 50, SHARES),
        evaluate=length.total,
        save=length.interval(output.save_freq, 10, SHARES),
        checkpoint=length.interval(output.checkpoint_freq, 100, SHARES),
    )


def make_task(
    network: PointNetwork,
    poses: Poses | None,
    data: PointData,
    config: PointConfig,
    length: training.Length,
    device: torch.device,
) -> training.Task:
    """Returns what the training loop calls; poses of the views are those of an upright network."""
    members: dict[str, training.Stateful] = {"generator": network}
    if poses is None:
        update = Update(network, config, length)
    else:
        assert isinstance(network, UprightNetwork)
        update, members["poses"] = UprightUpdate(network, config, length, poses), poses
    members["optimizer"] = update.optimizer
    description = model_file.describe(config, data.detections.category)
    return training.Task(
        members=members,
        constants=description,
        batches=partial(batches, data, config.batch_size, config.seed, device),
        update=update,
        rates=update.rates,
        remedy="Use a smaller rate: --lr.",
        picture=partial(draw, network, data, config.model.point_grid, device),
        write_model=partial(model_file.save_model, config.folder, network, description),
    )


class Update:
    """A step of training; the best of several candidates for the pose of a view counts."""

    def __init__(self, network: PointNetwork, config: PointConfig, length: training.Length) -> None:
        """Makes the optimizer of a network, whose every step depends on nothing but its number."""
        self.network, self.config, self.total = network, config, length.total
        # Fused: else its step takes a third of the time on a CPU
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.lr, weight_decay=WEIGHT_DECAY, fused=True
        )
        every = config.lr_decay_every
        self.decay_interval = every * length.epoch if every else length.total

    def __call__(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Updates the network once and returns its detached losses.

        Args:
            step: number of steps made before this one.
            batch: views of B objects.

        Raises:
            FloatingPointError: if the points are not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates(step)["lr"]
        self.network.train()
        terms, iou = self.terms(step, batch)
        total = training.weighted_sum(terms)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        distributed.average_gradients(self.network.parameters())
        self.optimizer.step()
        return {"total": total.detach(), **training.values(terms), "iou": iou}

    def terms(self, step: int, batch: Batch) -> tuple[dict[str, Term], Tensor]:
        """Returns the terms of the loss, and the mean overlap of silhouettes and masks."""
        count, views = batch.image.shape[:2]
        share, sigma = self.schedule(step)
        code = self.network.encode(batch.image.flatten(0, 1))
        cloud = self.network.decode(type(code)(*(x[::views] for x in code)))
        # Few points at first, the same ones of all objects
        number = cloud.points.shape[1]
        share = min(1.0, max(share, LEAST_POINTS / number))
        drawn = keep(number, share, seeding.torch_generator(self.config.seed, "points", step))
        cloud = cloud._replace(points=cloud.points[:, drawn.to(cloud.points.device)])
        owner = torch.arange(count, device=batch.image.device).repeat_interleave(views)
        return self.compare(code, cloud, owner, batch, sigma)

    def schedule(self, step: int) -> tuple[float, float]:
        """Returns the share of the points that take part, and the width of the Gaussian in cells."""
        return share_at(step / self.total), sigma_at(step / self.total)

    def compare(
        self, code: Code, cloud: Cloud, owner: Tensor, batch: Batch, sigma: float
    ) -> tuple[dict[str, Term], Tensor]:
        """Compares all views with points under their best candidates, and these with the student."""
        assert isinstance(self.network, PointCloudNetwork)
        candidates, masks = self.network.propose(code), batch.mask.flatten(0, 1)
        explained = explain(cloud, owner, candidates, masks, self.config.model.point_grid, sigma)
        student = self.network.estimate_pose(code)
        distance = quaternion.squared_distance(student, explained.rotation)
        return {
            "projection": Term(explained.loss.mean()),
            "student": Term(distance.mean(), self.config.student_weight),
        }, explained.iou.mean()

    def rates(self, step: int) -> dict[str, float]:
        """Returns the learning rate of a step."""
        return {"lr": self.config.lr * 0.5 ** (step // self.decay_interval)}


class UprightUpdate(Update):
    """A step of training with a table of poses. All points take part, and silhouettes are sharp from the start."""

    def __init__(
        self, network: UprightNetwork, config: PointConfig, length: training.Length, poses: Poses
    ) -> None:
        """Makes the optimizer."""
        super().__init__(network, config, length)
        self.upright, self.poses = network, poses

    def schedule(self, step: int) -> tuple[float, float]:
        """See `Update`."""
        return 1.0, FINE.sigma[1]

    def compare(
        self, code: Code, cloud: Cloud, owner: Tensor, batch: Batch, sigma: float
    ) -> tuple[dict[str, Term], Tensor]:
        """Compares all views with points under the likeliest pose of each, and these with the student."""
        mirrored = batch.mirrored[:, None].expand_as(batch.row)
        lesson = teach(self.upright, code, *self.poses(batch.row.flatten(), mirrored.flatten()))
        size, masks = self.config.model.point_grid, batch.mask.flatten(0, 1)
        explained = explain(cloud, owner, lesson.rotation[:, None], masks, size, sigma)
        return {
            "projection": Term(explained.loss.mean()),
            "student": Term(lesson.distance.mean(), self.config.student_weight),
            "azimuth": Term(lesson.entropy.mean()),
        }, explained.iou.mean()
