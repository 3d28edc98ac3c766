"""Passes over the photographs of a collection that can be interrupted: measuring and refining."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from geometry.camera import VECTOR_SIZE, from_vector, to_vector
from pipeline.poses.candidates import Candidates, Scored
from pipeline.poses.evidence.interface import Evidence, Guide
from pipeline.poses.photographs import Photographs, Reader
from pipeline.poses.refinement import Refinement
from utils import distributed
from utils.progress import progress
from utils.row_files import Column, Table

REFINED = 4  # candidates of an image that are refined

Work = Callable[[Photographs], Mapping[str, Tensor]]


class Survey:
    """Works through a collection, each process through its part of the images.

    Every pass writes its rows to a table on disk as it goes; begun again, it goes on behind them.
    """

    def __init__(self, reader: Reader, folder: Path, count: int) -> None:
        """Takes photographs of `count` images; tables go to the folder."""
        self._reader, self._folder, self._count = reader, folder, count

    def measure(self, name: str, evidence: Sequence[Evidence], candidates: Candidates) -> Table:
        """Measures all candidates (N, H) in a pass of that name."""

        def work(photographs: Photographs) -> Mapping[str, Tensor]:
            return measure_all(evidence, photographs, candidates.select(photographs.rows))

        return self.run(name, columns(evidence, candidates.choice.shape[1]), work)

    def refine(
        self,
        name: str,
        refinement: Refinement,
        scored: Scored,
        guides: Sequence[tuple[Guide, Tensor]],
        evidence: Sequence[Evidence],
    ) -> tuple[Table, Tensor, Candidates]:
        """Refines the best candidates of each image in a pass of that name, and measures them.

        Args:
            name: of the pass.
            refinement: what moves them.
            scored: all candidates.
            guides: each with the images (N,) that it speaks for; the first that does guides an image.
            evidence: measures the moved candidates.

        Returns:
            Measurements, positions (N, R) of the candidates that were moved, and where to.
        """
        index = scored.leading(REFINED)

        def work(photographs: Photographs) -> Mapping[str, Tensor]:
            # Move each photograph's candidates by the first guide that speaks for it
            where = index[photographs.rows]
            chosen = scored.candidates.select(photographs.rows).gather(where)
            vectors = to_vector(chosen.pose)
            left = torch.ones(len(where), dtype=torch.bool)
            for guide, speaks in guides:
                at = (left & speaks[photographs.rows]).nonzero()[:, 0]
                left[at] = False
                if len(at):
                    some = photographs.select(at), where[at], chosen.select(at)
                    vectors[at] = to_vector(refinement.move(*some, guide).pose)
            # Measure them where they are now
            moved = Candidates(from_vector(vectors), chosen.choice)
            return {"pose": vectors, **measure_all(evidence, photographs, moved)}

        shape = (index.shape[1], VECTOR_SIZE)
        table = self.run(name, {"pose": Column(shape), **columns(evidence, shape[0])}, work)
        # Also those that other processes have moved
        pose = from_vector(table.columns["pose"].read(range(self._count)))
        return table, index, Candidates(pose, scored.candidates.gather(index).choice)

    def run(self, name: str, layout: Mapping[str, Column], work: Work) -> Table:
        """Works through the rows of this process that are not finished yet, in a pass of that name."""
        # What an earlier run has finished stays
        table = Table(self._folder / name, self._count, layout)
        shard = distributed.shard(self._count)
        rows = table.unfinished(shard)
        start = len(shard) - len(rows)
        with progress(total=len(shard), initial=start, description=name) as bar:
            for photographs in self._reader.batches(rows):
                table.write(photographs.rows.tolist(), work(photographs))
                bar.update(len(photographs.rows))
        # From here on all rows may be read
        distributed.barrier()
        return table


def columns(evidence: Sequence[Evidence], count: int) -> dict[str, Column]:
    """Returns what some kinds of evidence measure of `count` candidates of an image."""
    return {name: column for kind in evidence for name, column in kind.columns(count).items()}


def measure_all(
    evidence: Sequence[Evidence], photographs: Photographs, candidates: Candidates
) -> dict[str, Tensor]:
    """Returns what some kinds of evidence measure of the candidates (n, H) of n photographs."""
    found = (kind.measure(photographs, candidates) for kind in evidence)
    return {name: values for measured in found for name, values in measured.items()}
