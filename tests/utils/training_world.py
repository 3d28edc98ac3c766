"""A small task for the training loop, also a program: python -m tests.utils.training_world FOLDER STEPS [SECONDS]."""

import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils import checkpoint, cli, distributed, seeding, training
from utils.run_directory import RunDirectory

CPU = torch.device("cpu")


class World:
    """A linear network that learns to be the identity.

    Attributes:
        rate: learning rate.
        seconds: that a step or an evaluation takes.
        spoil: step at which the weights become infinite.
    """

    def __init__(
        self, folder: Path, *, rate: float = 0.01, seconds: float = 0.0, spoil: int | None = None
    ) -> None:
        self.run = RunDirectory(folder)
        self.rate, self.seconds, self.spoil = rate, seconds, spoil
        seeding.seed_everything(0, "world")
        self.network = nn.Linear(4, 4)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=123.0)

    def batches(self, step: int) -> Generator[Tensor]:
        while True:
            yield torch.randn(8, 4, generator=seeding.torch_generator(0, "batch", step))
            step += 1

    def update(self, step: int, batch: Tensor) -> dict[str, Tensor]:
        time.sleep(self.seconds)
        self.optimizer.param_groups[0]["lr"] = self.rate
        terms = {"square": training.Term((self.network(batch) - batch).square().mean())}
        if step % 3 == 0:  # a loss that only some steps have, as the generator's
            size = self.network.weight.square().mean()
            terms["size"] = training.Term(size + distributed.rank(), 0.01)
        self.optimizer.zero_grad()
        training.weighted_sum(terms).backward()
        distributed.average_gradients(self.network.parameters())
        self.optimizer.step()
        if step == self.spoil:
            self.network.weight.data.fill_(torch.inf)
        return training.values(terms)

    def picture(self, step: int) -> np.ndarray:
        pixels = (100 * self.network.weight.detach()).clamp(0, 255).byte().numpy()
        return np.repeat(pixels[..., None], 3, axis=2)

    def evaluate(self, step: int, writer: Any) -> None:
        time.sleep(self.seconds)
        self.run.record(step=step, score=self.network.bias.detach().norm().item())

    def write_model(self, step: int) -> None:
        checkpoint.save(self.run.path / "model.pth", {"weight": self.network.weight.detach()})

    def task(self) -> training.Task:
        return training.Task(
            members={"network": self.network, "optimizer": self.optimizer},
            batches=self.batches,
            update=self.update,
            rates=lambda step: {"lr": self.rate},
            remedy="Use a smaller --rate.",
            picture=self.picture,
            images=lambda: {"more": self.picture(0)},
            evaluate=self.evaluate,
            score="score",
            write_model=self.write_model,
        )

    def train(self, steps: int, keep: int = 2, tensorboard: Path | None = None) -> None:
        schedule = training.Schedule(steps, picture=6, evaluate=7, save=5, checkpoint=8)
        training.train(
            self.task(),
            schedule,
            self.run,
            {"rate": self.rate, "dataset": "toy"},
            found=self.run.newest_checkpoint(),
            keep=keep,
            tensorboard=tensorboard,
        )


def train(device: torch.device, folder: Path, steps: int, seconds: float) -> None:
    """Trains, and says so when it begins."""
    os.write(1, f"ready {os.getpid()}\n".encode())
    World(folder, seconds=seconds).train(steps)


def main() -> None:
    """Trains in one process, or in as many as the last argument says."""
    folder, steps, seconds, processes = Path(sys.argv[1]), *map(float, sys.argv[2:])
    distributed.launch(train, [CPU] * int(processes), folder, int(steps), seconds)


if __name__ == "__main__":
    cli.run(main)
