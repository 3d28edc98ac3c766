"""Cases of constants of the shapes that are fitted with poses, and of learning them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from geometry.camera import from_vector, to_vector
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.candidates import Candidates
from pipeline.poses.photographs import Photographs
from pipeline.poses.shapes import collection, family, fields, learning, polynomials, thin_parts
from pipeline.poses.shapes.family import Family, Fit
from tests.pipeline.poses import pose_world
from tests.pipeline.poses.constants.case import Case, near, posterior_mean


def shape_penalty(error: Tensor, mean: Tensor) -> Tensor:
    return polynomials.with_shape(error, mean[None, None])


def energy_penalty(error: Tensor, mean: Tensor) -> Tensor:
    return family.with_energy(error, mean.square()[None] / 2)


def stretched_body() -> tuple[Family, thin_parts.Targets, Fit]:
    """Returns bodies of any width, a mask of the narrowest, and where its fit begins."""
    body = pose_world.body()
    vectors = to_vector(pose_world.poses([90.0], [0.0]))
    width = Family(body, body[None] * torch.tensor([0.5, 0, 0]), SphereMesh().faces)
    mask, _ = pose_world.draw(pose_world.poses([90.0], [0.0]))
    return width, thin_parts.make_targets(mask.roll(16, 2)), Fit(vectors, torch.zeros(1, 1))


def turn_energy() -> float:
    """Returns the cost of a turn by 2 degrees."""
    level = to_vector(near(0.0).flatten().pose)
    return family._energy(level, torch.zeros(1, 1), near(2.0).flatten().pose.rotation).item()


def first_coefficient() -> float:
    return family.fit_shapes(*stretched_body(), steps=1).coefficients.abs().item()


def estimated_variance(monkeypatch: pytest.MonkeyPatch) -> float:
    """Returns the variance of a coefficient that is 0 in each of 20 images."""
    return _estimate(monkeypatch)[0][0, 0].item()


def _estimate(patch: pytest.MonkeyPatch) -> tuple[Tensor, list[int]]:
    """Returns the covariance that is estimated from 20 images, and the steps of each fit."""
    width, targets, start = stretched_body()
    steps = []

    def fit(family: Family, targets: thin_parts.Targets, start: Fit, count: int) -> Fit:
        steps.append(count)
        return start

    rows = torch.zeros(20, dtype=torch.int64)
    examples = learning.Examples(targets.select(rows), start.vectors[rows], torch.ones(20))
    with patch.context() as inner:
        inner.setattr(learning, "fit_shapes", fit)
        _, covariance = learning._estimate(width.mean, width.faces, width.modes, examples)
    return covariance, steps


def fits_of_a_photograph(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Returns steps of the fit of a photograph, and the size of its mask there."""
    width, _, start = stretched_body()
    seen = []

    def fit(family: Family, targets: thin_parts.Targets, start: Fit, count: int) -> Fit:
        seen.append((count, targets.masks.shape[-1]))
        return start

    photograph = Photographs(
        torch.tensor([0]), torch.ones(1, 4, 256, 256), torch.ones(1, 0, 256, 256)
    )
    with monkeypatch.context() as inner:
        inner.setattr(collection, "fit_shapes", fit)
        chosen = Candidates(from_vector(start.vectors), torch.zeros(1, dtype=torch.int64))
        collection.ShapeFit([width], chosen).measure(photograph)
    return seen[0]


def sampled_photographs(monkeypatch: pytest.MonkeyPatch) -> int:
    """Returns how many of 1000 photographs modes are learned from."""
    width, _, start = stretched_body()
    rows: list[int] = []

    class Reader:
        def batches(self, asked: list[int]) -> list[Photographs]:
            rows.extend(asked)
            return [
                Photographs(torch.tensor(asked), torch.ones(len(asked), 4, 64, 64), torch.ones(1))
            ]

    many = torch.zeros(1000, dtype=torch.int64)
    chosen = Candidates(from_vector(start.vectors[many]), many)
    with monkeypatch.context() as inner:
        inner.setattr(collection, "learn_family", lambda *_: width)
        reader: Any = Reader()
        collection.learn_families(
            reader, width.mean[None], SphereMesh(), chosen, torch.ones(1000), 1
        )
    return len(rows)


CASES: list[Case] = [
    (polynomials, "NOISE", lambda: posterior_mean(shape_penalty), 10 / 11),
    # The mean of 64 measurements of variance 2, and one of variance 1 that says 0: off by 1 / 33
    (family, "NOISE", lambda: 1 - posterior_mean(energy_penalty), 1 / 33),
    (family, "TURN", turn_energy, 0.5),
    (family, "FIRST_SHARPNESS", lambda: family.sharpness_at(0.0), 5000),
    (family, "LAST_SHARPNESS", lambda: family.sharpness_at(1.0), 70000),
    (family, "THIN_PARTS", lambda: family.fit_error(*stretched_body(), sharpness=7e4).item(), 1.5712),
    (family, "RATE", first_coefficient, 0.36135),
    (family, "STRIDE", first_coefficient, 0.36135),
    (collection, "SIZE", lambda monkeypatch: fits_of_a_photograph(monkeypatch)[1], 64),
    (fields, "NUM_EVEN", lambda: len(fields.smooth_fields(pose_world.body(), SphereMesh())), 32),
    (fields, "NUM_ODD", lambda: len(fields.smooth_fields(pose_world.body(), SphereMesh())), 32),
    (thin_parts, "OUTLINE_POINTS", lambda: stretched_body()[1].outline.shape[1], 64),
    # Nothing deviates in 20 images, which count as much as what was believed before
    (learning, "SPREAD", estimated_variance, 0.1**2 / 2),
    (learning, "BELIEF", estimated_variance, 0.1**2 / 2),
    (learning, "ROUNDS", lambda monkeypatch: len(_estimate(monkeypatch)[1]), 3),
    (learning, "STEPS", lambda monkeypatch: _estimate(monkeypatch)[1][0], 20),
    (collection, "STEPS", lambda monkeypatch: fits_of_a_photograph(monkeypatch)[0], 30),
    (collection, "LARGEST_SAMPLE", sampled_photographs, 128),
]  # fmt: skip
