"""Cases of constants of the searches for poses and of their refinement."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import to_vector
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import (
    contour_search,
    fitting,
    numba_contour,
    refinement,
    survey,
)
from pipeline.poses.candidates import Candidates
from pipeline.poses.photographs import Photographs
from rendering.projection.terms import Rendered
from tests.pipeline.poses import pose_world
from tests.pipeline.poses.constants.case import LEVEL, Case, equal, near


def plain_python(kernel: Any) -> Callable[..., Any]:
    """Returns the function behind a compiled one, which reads the constants of its module."""
    return kernel.py_func


def refined(steps: int = 1) -> Tensor:
    """Returns how far refinement moves a pose that is turned by 10 degrees."""
    masks, _ = pose_world.draw(pose_world.poses([30.0], [10.0]), 32)
    start = to_vector(pose_world.poses([40.0], [10.0]))
    painted = refinement.Painted(pose_world.body()[None], SphereMesh().faces, torch.ones(1, 962, 1))
    targets = refinement.Targets(masks, masks[:, None], 1.0)
    return (refinement.refine(painted, targets, start, LEVEL, steps) - start).norm()


def refined_size(monkeypatch: pytest.MonkeyPatch) -> float:
    sizes = []

    def spy(painted: object, targets: refinement.Targets, vectors: Tensor, *_: object) -> Tensor:
        sizes.append(targets.masks.shape[-1])
        return vectors

    monkeypatch.setattr(refinement, "refine", spy)
    photographs = Photographs(torch.tensor([0]), torch.ones(1, 4, 64, 64), torch.ones(1, 1, 64, 64))

    class Blank:
        weight = 1.0

        def maps(self, photographs: Photographs) -> Tensor:
            return photographs.parts

        def expected(self, rows: Tensor, index: Tensor, chosen: Candidates) -> Tensor:
            return torch.ones(1, 1, 962, 1)

    mover = refinement.Refinement(pose_world.body()[None], SphereMesh().faces, LEVEL, 1)
    mover.move(photographs, torch.zeros(1, 1), near(0.0), Blank())
    return float(sizes[0])


def refined_candidates(tmp_path: Path) -> float:
    """Counts the candidates that a pass refines, of 20 far from each other."""

    class Nothing:
        def batches(self, rows: list[int]) -> list[None]:
            return []

    passes = survey.Survey(Nothing(), tmp_path, 1)  # type: ignore[arg-type]
    mover = refinement.Refinement(torch.zeros(1, 4, 3), torch.zeros(1, 3), LEVEL, 1)
    _, index, _ = passes.refine("pass", mover, equal(*range(0, 360, 18)), [], [])
    return float(index.shape[1])


def views() -> Tensor:
    """Returns azimuth, elevation and roll (3, G) of the grid of the search."""
    return torch.stack(quaternion.to_view(contour_search.view_grid(LEVEL)))


def search() -> contour_search.ContourSearch:
    return contour_search.ContourSearch(pose_world.body()[None], SphereMesh().faces, LEVEL)


def body_mask() -> Tensor:
    return pose_world.draw(pose_world.poses([40.0], [5.0]), 128)[0]


def least_angle(some: Candidates) -> float:
    """Returns the smallest angle between the candidates of an image."""
    rotation = some.pose.rotation[0].float()
    apart = quaternion.angle_between(rotation[:, None], rotation)
    return apart.fill_diagonal_(180).min().item()


def starts() -> Candidates:
    found = search()
    return found._starts(contour_search.outlines(body_mask()).masks)


def signature_share() -> float:
    """Returns the share of a signature that a mask fills."""
    vector, _ = contour_search.signatures(body_mask())
    return (vector > 0).float().mean().item()


def equations(distance: float, cosine: float = 1.0) -> np.ndarray:
    """Returns the normal equations of a point whose target lies 0.05 to the right, as (matrix, vector).

    Args:
        distance: of the one sample of the target, upwards.
        cosine: between its normal and that of the point.
    """
    ramp = (np.arange(8) + 0.5) / 4 - 1
    field = np.tile(ramp, (8, 1)) - 0.05
    point = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]])
    sine = math.sqrt(1 - cosine**2)
    samples = np.array([[0.0, distance, cosine, sine]])
    pose = np.array([1.0, 0, 0, 0, 1.0, 0, 0, 2.0])
    row, matrix, vector = np.zeros(7), np.zeros((7, 7)), np.zeros(7)
    plain_python(numba_contour.compare_outlines)(point, pose, field, samples, row, matrix, vector)
    return np.append(matrix[4], vector[4])


def prior_equations() -> np.ndarray:
    pose = np.array([*quaternion.from_view(*torch.tensor([70.0, 5.0, 0.0])).tolist(), 1, 0, 0, 3.0])
    row, matrix, vector = np.zeros(7), np.zeros((7, 7)), np.zeros(7)
    tilts = numba_contour.Tilts(*np.radians(LEVEL.tilts()).tolist())
    plain_python(numba_contour.add_prior)(pose, tilts, row, matrix, vector)
    return np.array([matrix[6, 6], vector[6]])


def moved(index: int, step: float, parameter: int) -> float:
    pose, steps = np.array([1.0, 0, 0, 0, 1.0, 0, 0, 2.0]), np.zeros(7)
    steps[index] = step
    plain_python(numba_contour.move)(pose, steps)
    return float(pose[parameter])


def fitted(steps: int, patch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Fits one pose to a mask; returns how often and how far the first step moved it."""
    lengths = []
    step = numba_contour.move

    def spy(pose: np.ndarray, change: np.ndarray) -> None:
        lengths.append(float(np.linalg.norm(change)))
        step(pose, change)

    meshes = search()._meshes
    start = to_vector(pose_world.poses([43.0], [6.0])).double().numpy()
    problems = numba_contour.Problems(start, np.zeros(1, int), np.zeros(1, int), np.zeros(1))
    tilts = numba_contour.Tilts(*np.radians(LEVEL.tilts()).tolist())
    targets = contour_search.outlines(body_mask())
    with patch.context() as inner:
        inner.setattr(numba_contour, "move", spy)
        plain_python(numba_contour.fit)(problems, 0, 1, meshes, targets, tilts, steps)
    return float(len(lengths)), lengths[0]


def steps_of_the_search(monkeypatch: pytest.MonkeyPatch) -> float:
    taken = []
    with monkeypatch.context() as inner:
        inner.setattr(numba_contour, "fit", lambda *args: taken.append(args[-1]))
        search().find(body_mask())
    return float(taken[0])


def one_step() -> float:
    """Returns how far one step of the refinement of stage 1 moves a pose that is turned by 10 degrees."""
    some = Candidates(pose_world.poses([50.0], [5.0]), torch.zeros(1, dtype=torch.int64)).repeat(1)
    body = pose_world.body()[None]
    found = fitting._refine(some, body_mask(), body, Rendered(SphereMesh().faces), 1, None, None)
    return (found[0] - to_vector(some.pose)[0]).norm().item()


def count_hypotheses() -> float:
    found = fitting.search_poses(
        body_mask(), search(), pose_world.body()[None], SphereMesh().faces, steps=1
    )
    return float(found.iou.shape[1])


# Twenty measurements, whose noise is 0.01^2 and half the weighted square of the distance that is left. A
# distance of 0.05 has the weight 1 / (1 + (0.05 / 0.15)^2) = 0.9, one of 0.3 that of 0.2
SCALE = 20 / (0.01**2 + 0.9 * 0.05**2 / 2)


SCHEDULE = fitting.Schedule(steps=100, decay_after=80, prune=False)


CASES: list[Case] = [
    (refinement, "LEARNING_RATE", lambda: refined().item(), 0.04551),
    (refinement, "GRADIENT_SCALE", lambda: refined().item(), 0.04551),
    (refinement, "SHRINKAGE", refined_size, 16),
    (survey, "REFINED", refined_candidates, 4),
    (contour_search, "SPACING", lambda: len(views()[0]), 24 * 3 * 3),
    (contour_search, "REACH", lambda: (views()[1].max() - 5).item(), 6.0),
    (contour_search, "NUM_STARTS", lambda: starts().choice.shape[1], 32),
    (contour_search, "START_SEPARATION", lambda: least_angle(starts().select((slice(None), slice(8)))), 20.26),
    (contour_search, "NUM_MODES", lambda: search().find(body_mask()).choice.shape[1], 8),
    (contour_search, "MODE_SEPARATION", lambda: least_angle(search().find(body_mask()).select((slice(None), slice(5)))), 13.96),
    (contour_search, "FIELD_SIZE", lambda: contour_search.outlines(body_mask()).fields.shape[1], 128),
    (contour_search, "MASK_SIZE", lambda: contour_search.outlines(body_mask()).masks.shape[1], 64),
    (contour_search, "NUM_SAMPLES", lambda: contour_search.outlines(body_mask()).samples.shape[1], 96),
    (contour_search, "SIGNATURE_SIZE", lambda: contour_search.signatures(body_mask())[0].shape[1], 576),
    (contour_search, "SIGNATURE_REACH", signature_share, 0.1719),
    (numba_contour, "EVIDENCE", lambda: equations(0.0)[4], 1.9 * SCALE),
    (numba_contour, "LEAST_NOISE", lambda: equations(0.0)[7], 0.9 * 0.05 * SCALE),
    (numba_contour, "OUTLIER", lambda: equations(0.3)[4], 1.1 * SCALE),
    (numba_contour, "LEAST_COSINE", lambda: equations(0.0, 0.5)[4] + equations(0.0, 0.29)[4], 2.05 * SCALE),
    (numba_contour, "Z0_SPREAD", lambda: prior_equations()[0], 1.0),
    (numba_contour, "EXPECTED_Z0", lambda: prior_equations()[1], -1.0),
    # Turned by 0.4 at the most: the quaternion holds the cosine of half of it
    (numba_contour, "LARGEST_TURN", lambda: moved(0, 3.0, 1), math.sin(0.2)),
    (numba_contour, "LARGEST_Z0", lambda: moved(6, 9.0, 7), 4.0),
    (numba_contour, "DAMPING", lambda monkeypatch: fitted(1, monkeypatch)[1], 1.357),
    (numba_contour, "CONVERGED", lambda monkeypatch: fitted(50, monkeypatch)[0], 12),
    (fitting, "LEARNING_RATE", lambda: SCHEDULE.learning_rate(80), 0.1),
    (fitting, "SHARPNESS", lambda: SCHEDULE.sharpness(0), 7000),
    (fitting, "FINAL_SHARPNESS", lambda: SCHEDULE.sharpness(99), 70000),
    (fitting, "INITIAL_Z0", lambda: fitting.initial_hypotheses(pose_world.body()[None])[0][0, 7].item(), 2.0),
    (fitting, "LARGEST_Z0", lambda: fitting.constrain(torch.full((1, 8), 90.0))[0, 7].item(), 4.0),
    (fitting, "INITIAL_EXTENT", lambda: fitting.initial_hypotheses(pose_world.body()[None])[0][0, 4].item(), 0.8991),
    (fitting, "REFINEMENT_RATE", lambda: one_step(), 0.03),
    (fitting, "NUM_FREE", count_hypotheses, 10),
    (contour_search, "STEPS", steps_of_the_search, 12),
]  # fmt: skip
