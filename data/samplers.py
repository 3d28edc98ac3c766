"""Samples of each training step, as a pure function of (seed, step)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from utils.seeding import numpy_generator, torch_generator


class StepSampler(Sampler[list[int]]):
    """Endless batches of indices; use it as `batch_sampler` of a DataLoader, or call `batch`.

    Without weights the stream is a sequence of shuffled passes over the data. A batch may span several
    passes, so that no sample is dropped and batches may be larger than the data. With weights every
    step samples with replacement. A run that resumes at step n continues exactly, and the union over
    the ranks does not depend on their number.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        weights: Tensor | None = None,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        """Describes the stream.

        Args:
            size: number of samples.
            batch_size: samples of a step over all ranks; a multiple of world_size.
            seed: seed of shuffling and sampling.
            weights: (size,) relative probabilities, for sampling with replacement.
            rank: number of this process.
            world_size: number of processes.
            start_step: step at which iteration begins.
        """
        if size < 1 or batch_size < 1 or batch_size % world_size:
            raise ValueError(
                "size, batch_size: expected positive numbers, batch_size a multiple of "
                f"{world_size} processes, got {size} and {batch_size}."
            )
        if weights is not None and weights.shape != (size,):
            raise ValueError(f"weights: expected shape ({size},), got {tuple(weights.shape)}.")
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        # Ranks take consecutive shares of the batch
        share = batch_size // world_size
        self._mine = slice(rank * share, (rank + 1) * share)
        self._chances = (
            None if weights is None else (weights.double() / weights.sum()).cpu().numpy()
        )
        self._passes: dict[int, np.ndarray] = {}

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> list[int]:
        """Returns the indices of this rank at a step (0, 1, ...)."""
        if self._chances is None:
            indices = self._shuffled(step)
        else:
            generator = numpy_generator(self.seed, "weighted batch", step)
            indices = generator.choice(self.size, self.batch_size, p=self._chances)
        return indices[self._mine].tolist()

    def coins(self, step: int) -> Tensor:
        """Returns a fair coin (b,) bool for every sample of this rank at a step, for augmentation."""
        # Coins are drawn for the whole batch, then shared among ranks
        generator = torch_generator(self.seed, "coins", step)
        return (torch.rand(self.batch_size, generator=generator) < 0.5)[self._mine]

    def epoch(self, step: int) -> int:
        """Returns the number of complete passes over the data before a step."""
        return step * self.batch_size // self.size

    def _shuffled(self, step: int) -> np.ndarray:
        # Positions of this batch in the endless sequence of passes
        first = step * self.batch_size
        numbers = np.arange(first, first + self.batch_size)
        passes = np.unique(numbers // self.size)
        orders = {int(number): self._order(int(number)) for number in passes}
        self._passes = orders  # the next step needs the last of them again
        return np.concatenate([orders[int(n)] for n in passes])[numbers - passes[0] * self.size]

    def _order(self, number: int) -> np.ndarray:
        if number in self._passes:
            return self._passes[number]
        return numpy_generator(self.seed, "pass", number).permutation(self.size)


def balanced_weights(categories: Tensor) -> Tensor:
    """Returns weights (N,) under which every category (N,) int64 present is drawn equally often."""
    # Inverse class frequency, of mean 1
    _, inverse, counts = torch.unique(categories, return_inverse=True, return_counts=True)
    return len(categories) / (counts[inverse] * len(counts)).double()
