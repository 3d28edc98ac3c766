"""No constant of the poses can be changed by a factor of four without a test that notices.

For each constant there is a small case with a recorded result that depends on it. The results were
worked out by hand where a comment says how, and else recorded from cases that other tests judge.
"""

import ast
import importlib
import math
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pipeline.poses
from data.definitions import ViewPrior
from geometry import quaternion
from geometry.camera import Pose, from_vector, to_vector
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import (
    candidates,
    contour_search,
    fitting,
    numba_contour,
    refinement,
    report,
    semantic_template,
    step2,
    survey,
    view_prior,
)
from pipeline.poses.candidates import Candidates, Scored, rank
from pipeline.poses.evidence import (
    appearance,
    calibration,
    clips,
    outlines,
    parts,
    pictures,
    textures,
)
from pipeline.poses.evidence.appearance import AppearanceGuide, Source
from pipeline.poses.evidence.pictures import ColorPicture, FeaturePicture, Likeness
from pipeline.poses.evidence.textures import Textures
from pipeline.poses.photographs import Photographs
from pipeline.poses.shapes import collection, family, fields, learning, polynomials, thin_parts
from pipeline.poses.shapes.family import Family, Fit
from rendering.projection.terms import Rendered
from tests.pipeline.poses import pose_world

LEVEL = ViewPrior(5.0, 3.0, 2.0, 0.0, 0.0)

# Constants that results do not depend on, or that are judged elsewhere
EXEMPT = {
    "candidates._CHUNK": "images at a time",
    "part_discovery._CHUNK": "images at a time",
    "photographs.IMAGES_PER_BATCH": "images at a time",
    "view_prior.GROUP": "poses at a time",
    "part_discovery.SAVE_INTERVAL": "steps between saves",
    "contour_search.VIEW_RADIUS": "drawn views are scaled to the masks",
    "numba_contour.LEAST_DAMPING": "keeps equations solvable that say nothing",
    "numba_contour.STEP": "numbers in a step",
    "refinement.LEAST_ERROR": "keeps a quotient finite",
    "calibration._CHUNK": "images at a time",
    "learning.CHUNK": "images at a time",
    "calibration.STEPS": "how finely temperatures are compared",
    "step2.UV_SIZE": "texels of an exported picture",
    "fitting.NUM_VIEWS": "counts the views of geometry.quaternion",
    "clips._ROUNDS": "of an estimate that has converged; see test_clips",
    "clips._FIRST_CUTS": "where that begins",
    **{
        f"part_discovery.{name}": "of the training; see test_part_discovery"
        for name in ("BATCH", "LEARNING_RATE", "BASIS_RATE", "DECAY", "COMPONENTS", "SIZE")
    },
}


def plain_python(kernel: Any) -> Callable[..., Any]:
    """Returns the function behind a compiled one, which reads the constants of its module."""
    return kernel.py_func


def near(*azimuths: float) -> Candidates:
    """Returns candidates (1, H) of level views."""
    zero = torch.zeros(len(azimuths))
    rotation = quaternion.from_view(zero + torch.tensor(azimuths), zero, zero)[None]
    ones = torch.ones(1, len(azimuths), 1)
    pose = Pose(ones, ones.expand(-1, -1, 2), rotation, ones)
    return Candidates(pose, torch.zeros(1, len(azimuths), dtype=torch.int64))


def equal(*azimuths: float) -> Scored:
    some = near(*azimuths)
    zero = torch.zeros(1, len(azimuths))
    return rank(some, zero, zero + 1, zero)


def temperature_of(first: float, second: float, images: int) -> float:
    """Compares two kinds of evidence that prefer the same one of two views, by so much."""
    views, best = (
        near(0, 180).select(torch.zeros(images, dtype=torch.int64)),
        torch.zeros(images, 2),
    )
    best[:, 0] = 1
    return calibration.temperature(first * best, second * best, views)


def chance_agreement() -> float:
    """Returns the agreement of kinds of evidence that are sure of different views."""
    sure = torch.tensor([[0.0, -900.0]])
    one = torch.ones(1, dtype=torch.float64)
    return calibration.log_agreement(sure, sure.flip(1), torch.eye(2)[None], one).exp().item()


def color_weight(monkeypatch: pytest.MonkeyPatch) -> float:
    """Returns the weight of colors where there are features."""
    stage, shape = step2.Stage.__new__(step2.Stage), torch.zeros(1, 962, 3)
    stage._network, stage._mesh = pose_world.Network(), SphereMesh()
    stage._blank = semantic_template.SemanticModel(shape, shape, stage._mesh.faces)
    stage.detections = stage._device = None  # type: ignore[assignment] - not looked at
    monkeypatch.setattr(step2, "feature_picture", lambda *_: features())
    return stage._paint()[0].source(None).weight  # type: ignore[arg-type] - nothing is read


def uncovered() -> Scored:
    """Returns one candidate that covers half of a mask."""
    zero = torch.zeros(1, 1)
    return rank(near(0.0), zero, zero + 0.5, zero)


def pairs(chances: list[float], azimuths: list[float]) -> Scored:
    """Returns images with two opposite views each, the first of them right with a chance."""
    views = [near(azimuth, azimuth + 180) for azimuth in azimuths]
    rotation = torch.cat([view.pose.rotation for view in views])
    ones = torch.ones(len(views), 2, 1)
    pose = Pose(ones, ones.expand(-1, -1, 2), rotation, ones)
    odds = torch.tensor([[math.log(chance / (1 - chance)), 0.0] for chance in chances])
    return rank(
        Candidates(pose, torch.zeros(len(views), 2, dtype=torch.int64)),
        odds,
        torch.ones_like(odds),
        odds,
    )


def trusted(chances: list[float], azimuths: list[float]) -> float:
    usable = torch.ones(len(chances), dtype=torch.bool)
    return float(len(candidates.side_views(pairs(chances, azimuths), usable)))


def confident_images() -> float:
    usable = torch.arange(10) < 8
    return float(len(step2.confident_rows(pairs(10 * [0.9], 10 * [0.0]), usable)))


def kept_by_the_rule() -> float:
    overlap = torch.linspace(0.1, 1, 40)[:, None]
    rotation = near(0).pose.rotation.expand(40, 1, 4)
    ones = torch.ones(40, 1, 1)
    pose = Pose(ones, ones.expand(-1, -1, 2), rotation, ones)
    some = Candidates(pose, torch.zeros(40, 1, dtype=torch.int64))
    return float(len(candidates.accept(rank(some, overlap, overlap, overlap), 1.0, 0.3)))


def spread_of_overlaps() -> float:
    rotation = near(0, 180).pose.rotation
    return report.agreement(torch.tensor([[0.51, 0.5]]), rotation).item()


def motion(near: float, squares: float) -> clips.Motion:
    """Returns how objects turn, from ten pairs of frames of which `near` belong together."""
    return clips._maximize([clips._Pairs(near, squares)], 10)


def density_after_a_cut() -> float:
    clip = clips.Clip(torch.arange(2), torch.ones(1, dtype=torch.int64))
    opposite = torch.full((1, 1, 1), math.pi**2)
    return next(clips._transitions(opposite, clip, clips.Motion(10.0, 0.5)))[0].exp().item()


def first_overlap(word: str) -> float:
    """Returns the least overlap, in hundredths, whose verdict has a word; 0 if none has."""
    found = (x / 100 for x in range(101) if word in report.verdict(x / 100))
    return next(found, 0.0)


def largest_conflict() -> float:
    """Returns the largest conflict, in hundredths, with which a template of overlap 1 fits."""
    return max(x / 100 for x in range(101) if "fits" in report.verdict(1.0, x / 100))


def least_confidence() -> float:
    """Returns the least confidence, in hundredths, with which a template of overlap 1 fits."""
    return min(x / 100 for x in range(101) if "fits" in report.verdict(1.0, 0.0, x / 100))


def given(*speaks: bool) -> parts.GivenParts:
    return parts.GivenParts(["head"], torch.tensor(speaks))


def part_noise(best: list[float], row: int) -> float:
    overlap = torch.tensor(best)[:, None]
    return given(*[True] * len(best)).judge(overlap, overlap).noise[row].item()


def learned_value() -> float:
    found = parts.FoundParts.__new__(parts.FoundParts)
    found.speaks = torch.ones(1, dtype=torch.bool)
    return found.judge(torch.tensor([[1.0]]), torch.tensor([[0.0]])).value.item()


def supporting_images() -> float:
    """Counts the images that the semantic template asks for, of 450."""
    asked: list[int] = []

    class Empty:
        def batches(self, rows: list[int]) -> list[None]:
            asked.extend(rows)
            return []

    one = equal(0.0).best()
    best = Scored(
        one.candidates.select(torch.zeros(450, dtype=torch.int64)), *[torch.zeros(450)] * 3
    )
    model = semantic_template.SemanticModel(
        torch.zeros(1, 4, 3), torch.ones(1, 4, 2), torch.zeros(1, 3)
    )
    parts.collect_parts(given(*[True] * 450), model, Empty(), best, torch.arange(450))  # type: ignore[arg-type]
    return float(len(asked))


def overlap_with_traces() -> float:
    """Compares a part that is met, and two of 2e-6 and 5e-7 pixels that are not."""
    target, predicted = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    target[0] = predicted[0] = 1
    target[1, 0, 0], target[2, 0, 0] = 2e-6, 5e-7
    return parts.part_overlap(predicted, target).item()


def plain(value: float, weight: float = 1.0, count: int = 1, cells: int = 12) -> Textures:
    shape = (count, 1, cells)
    return Textures(torch.full((*shape, 3), value), torch.full(shape, weight))


def distance(weight: float) -> float:
    first, second = (plain(v, weight, cells=5).select((torch.tensor(0),)) for v in (0.0, 0.2))
    first, second = appearance.moments(first), appearance.moments(second)
    return appearance.squared_distances(first, second, 0.35).item()


def features() -> FeaturePicture:
    return FeaturePicture(torch.ones(1, 1, 2, 2))


def kernel_of(value: float, likeness: Likeness) -> float:
    """Compares textures of 12 cells that differ by a value in each of 3 channels."""
    own = plain(0.0).select((torch.tensor(0),))
    return appearance.kernels(own, 0, bank(plain(value), likeness)).item()


def expected_distance(likeness: Likeness) -> float:
    """Compares textures that show nothing in common."""
    unseen = appearance.moments(plain(0.0, 0.0).select((torch.tensor(0),)))
    return appearance.squared_distances(unseen, unseen, likeness.expected).item()


def component() -> float:
    """Returns what is drawn of a component of 1, the root of the mean square."""
    ones = torch.ones(1, 4, 2, 2)
    return features().draw(Photographs(torch.tensor([0]), ones, ones)).mean().item()


def components() -> float:
    generator = torch.Generator().manual_seed(0)
    maps = torch.cat([torch.randn(3, 80, 7, 7, generator=generator), torch.ones(3, 1, 7, 7)], 1)
    return float(pictures.strongest_components(maps).shape[1])


def bank(textures: Textures, likeness: Likeness) -> appearance.Bank:
    """Returns a bank of one candidate of image 1."""
    moments = appearance.moments(textures.select((torch.tensor(0),)))
    first = torch.tensor([0])
    return appearance.Bank(first + 1, first, torch.ones(1), moments, likeness)


def density_elsewhere(azimuth: float) -> float:
    """Compares a view from ahead with two others: one that is turned by an azimuth and alike, one from behind."""
    images, sides = (
        torch.arange(1, 3),
        appearance.sides_of(near(90, 90 + azimuth, 270).pose.rotation[0]),
    )
    nothing = appearance.moments(plain(0.0).select((torch.tensor(0),)))
    both = appearance.Bank(
        images, images * 0, torch.full((2,), 0.5), nothing, ColorPicture().likeness
    )
    kernel = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    return appearance.elsewhere(kernel, 0, both, sides[:, None]).item()


def bank_size(images: int, share: float = 1.0) -> float:
    """Counts the members of a bank of images that have two candidates, 19 to 1 or 149 to 1."""
    odds = torch.tensor([[math.log(19.0), 0.0], [math.log(149.0), 0.0]])
    score = odds.repeat(-(-images // 2), 1)[:images]
    both = plain(0.0, count=images)
    source = Source(
        lambda rows: Textures(
            *(x.expand(len(rows), 2, *x.shape[2:]) for x in both.select(torch.tensor(rows)))
        ),
        ColorPicture().likeness,
    )
    return float(len(appearance.choose_bank(source, score, share).image))


def banks_asked_for() -> list[int]:
    """Returns how many images each round of expectation-maximization compares with, of 40."""
    asked: list[int] = []

    def fetch(rows: Sequence[int]) -> Textures:
        if len(rows) > 1:
            asked.append(len(rows))
        return plain(0.0, count=len(rows))

    appearance.densities([Source(fetch, ColorPicture().likeness)], torch.zeros(40, 1))
    return asked


def density_of_the_unlike() -> float:
    values = torch.linspace(-1, 1, 2)[:, None, None, None].expand(2, 1, 12, 3)
    both = Textures(values, torch.ones(2, 1, 12))
    source = Source(lambda rows: both.select(torch.tensor(rows)), ColorPicture().likeness)
    return appearance.densities([source], torch.zeros(2, 1)).exp()[0, 0, 0].item()


def value_of_what_is_hardly_seen() -> float:
    """Expects a color of 0.1 that the bank saw with weight 0.05, and of its own mean 0."""
    own = plain(0.0).select((torch.tensor(0),))
    seen = bank(plain(0.1, 0.05), ColorPicture().likeness)
    return appearance.expected_values(own, 0, seen)[0, 0, 0].item()


def seen_weight() -> float:
    pose = pose_world.poses([0.0], [0.0])
    mask, _ = pose_world.draw(pose, 256)
    photographs = Photographs(torch.tensor([0]), mask[:, None].expand(-1, 4, -1, -1), mask[:, None])
    kind = appearance.Appearance(ColorPicture(), pose_world.body()[None], SphereMesh())
    some = Candidates(pose, torch.zeros(1, dtype=torch.int64)).repeat(1)
    stored = kind.measure(photographs, some)["colors"]
    return (stored[..., 3] == 255).float().mean().item()


def rounding() -> float:
    """Stores 0.3 in bytes, and returns by how much it has changed, in thousandths."""
    found = textures.from_bytes(plain(0.3).to_bytes()).values.flatten()[0].item()
    return 1000 * abs(found - 0.3)


def cells() -> float:
    return float(textures.surface_cells(SphereMesh()).max() + 1)


def smoothed() -> float:
    """Normalizes a part that was seen on 3e-6 pixels beside one that was not seen."""
    sums = torch.tensor([[[3e-6, 0.0]]]).expand(1, 962, 2)
    return semantic_template.normalize_parts(sums, SphereMesh())[0, 0, 1].item()


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


def log_prior(elevation: float, roll: float) -> float:
    rotation = quaternion.from_view(*torch.tensor([70.0, elevation, roll]))
    return view_prior.log_prior(rotation, LEVEL).item()


def posterior_mean(penalize: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Fits the mean of measurements 1, whose variance is 2, under a normal distribution around 0.

    The penalty is that of a parameter whose energy is half its square.
    """
    mean = torch.ones((), dtype=torch.float64)
    for _ in range(200):
        mean = mean.detach().requires_grad_()
        error = (mean - 1).square() + 2
        (slope,) = torch.autograd.grad(penalize(error[None], mean).sum(), mean)
        mean = mean - 0.2 * slope
    return mean.item()


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


def view_penalty(error: Tensor, mean: Tensor, patch: pytest.MonkeyPatch) -> Tensor:
    with patch.context() as inner:
        inner.setattr(view_prior, "log_prior", lambda rotation, prior: -rotation.square() / 2)
        return view_prior.with_prior(error, mean[None], LEVEL)


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
Quantity = Callable[..., float]

# Module, constant, what depends on it, and its value
CASES: list[tuple[ModuleType, str, Quantity, float]] = [
    # Two of three equally likely views lie within 30 degrees of the first
    (candidates, "SAME_POSE", lambda: equal(0, 25, 45).confidence().item(), 2 / 3),
    # Views of 0 and 3 degrees are one, that of 12 another, that of 180 the third
    (candidates, "DUPLICATE", lambda: equal(0, 3, 12, 180).confidence().item(), 2 / 3),
    (calibration, "COLDEST", lambda: temperature_of(1.0, 1.0, 1000), 0.25),
    (calibration, "HOTTEST", lambda: temperature_of(9.0, -9.0, 1000), 4.0),
    (calibration, "SPREAD", lambda: temperature_of(1.0, 1.0, 1), 0.8409),
    (calibration, "LEAST_AGREEMENT", chance_agreement, 1e-3),
    (candidates, "MISFIT_DOUBT", lambda: uncovered().confidence().item(), 0.925),
    (candidates, "LEAST_SIDE_VIEW", lambda: trusted(17 * [0.999], 14 * [0.0] + 3 * [45.0]), 14),
    (candidates, "LEAST_SUPPORT", lambda: trusted(50 * [0.999], 50 * [80.0]), 10),
    # Two opposite views with chances p spread by 2 p (1 - p): 0.15 is trusted, 0.45 is not
    (candidates, "AGREEMENT", lambda: trusted([*12 * [0.999], 0.9183, 0.658], 14 * [0.0]), 13),
    (candidates, "DISCARDED_SHARE", kept_by_the_rule, 36),
    # Without a pair to learn from it stays where it began; without turns or cuts it stays possible
    (clips, "_FIRST_TURN", lambda: motion(0, 0).turn, 15),
    (clips, "_LEAST_TURN", lambda: motion(10, 0).turn, 3),
    (clips, "_LEAST_CUTS", lambda: motion(10, 1).cuts, 1e-4),
    (clips, "_MOST_CUTS", lambda: motion(0, 0).cuts, 0.5),
    (clips, "_VOLUME", density_after_a_cut, 0.5 / (8 * math.pi**2)),
    # Chances e / (1 + e) and 1 / (1 + e)
    (report, "TEMPERATURE", spread_of_overlaps, 2 * math.e / (1 + math.e) ** 2),
    (report, "FITTING", lambda: first_overlap("fits"), 0.8),
    (report, "LARGEST_CONFLICT", largest_conflict, 0.1),
    (report, "LEAST_CONFIDENCE", least_confidence, 0.65),
    (report, "UNLIKE", lambda: first_overlap("resembles"), 0.65),
    (outlines, "LEAST_NOISE", lambda: outlines.judge(torch.ones(1, 1)).noise.item(), 0.02),
    (outlines, "MISFIT_NOISE", lambda: outlines.judge(torch.zeros(1, 1)).noise.item(), 0.17),
    (parts, "LEAST_NOISE", lambda: part_noise([0.4, 0.4], 0), 0.02),
    (parts, "MISFIT_NOISE", lambda: part_noise([0.4, 0.4, 0.4, 0.4, 1e-9], 4), 0.02 + 0.04),
    (parts, "GOOD_QUANTILE", lambda: part_noise([0.1, 0.2, 0.3, 0.4, 0.5], 4), 0.05 * 0.4),
    (parts, "LEARNED_SHARE", learned_value, 0.2),
    (parts, "LARGEST_SUPPORT", supporting_images, 100),
    (parts, "LEAST_MASS", overlap_with_traces, 1 / 2),
    (appearance, "PAINTED_SIZE", seen_weight, 0.664),
    # A squared difference of .03 in each of 12 cells, 5 cells of .35 beside them
    (pictures, "COLOR_BANDWIDTH", lambda: kernel_of(0.1, ColorPicture().likeness), math.exp(-(12 * 0.03 + 5 * 0.35) / 17 / 0.02)),
    (pictures, "COLOR_DISTANCE", lambda: expected_distance(ColorPicture().likeness), 0.35),
    # The same of .12 in units of the root mean square, 5 cells of .9 beside them
    (pictures, "FEATURE_BANDWIDTH", lambda: kernel_of(0.05, features().likeness), math.exp(-(12 * 0.12 + 5 * 0.9) / 17 / 0.08)),
    (pictures, "FEATURE_DISTANCE", lambda: expected_distance(features().likeness), 0.9 / 16),
    (pictures, "REACH", component, 0.25),
    (pictures, "COMPONENTS", components, 16),
    (appearance, "EXPECTED_CELLS", lambda: distance(1.0), (5 * 0.12 + 5 * 0.35) / 10),
    (appearance, "LARGEST_BANK", lambda: bank_size(2400), 500),
    # The worse candidate of 5 % counts, that of 0.7 % does not
    (appearance, "LEAST_PROBABILITY", lambda: bank_size(8), 12),
    (appearance, "FIRST_SHARE", lambda: banks_asked_for()[0], 10),
    (appearance, "ROUNDS", lambda: len(banks_asked_for()), 6),
    (appearance, "BACKGROUND", density_of_the_unlike, 1.5e-4),
    (appearance, "LEAST_WEIGHT", value_of_what_is_hardly_seen, 0.05),
    # 1 - exp((cos 30 - 1) / 30^2) = .3866 of the one that is alike counts, and all of the other one
    (appearance, "SAME_SIDE", lambda: density_elsewhere(30.0), 0.5 * (0.3866 + 0.03) / (0.5 * 1.3866 + 0.03)),
    (appearance, "LEAST_ELSEWHERE", lambda: density_elsewhere(0.0), 0.5 * 0.03 / 0.53),
    (textures, "RINGS_PER_CELL", cells, 137),
    (textures, "SEGMENTS_PER_CELL", cells, 137),
    (textures, "LEVELS", rounding, 1000 * (2 * 166 / 255 - 1.3)),
    (semantic_template, "SMOOTHING", smoothed, 1 / 5),
    (refinement, "LEARNING_RATE", lambda: refined().item(), 0.04551),
    (refinement, "GRADIENT_SCALE", lambda: refined().item(), 0.04551),
    (refinement, "SHRINKAGE", refined_size, 16),
    (parts, "GUIDE_WEIGHT", lambda: parts.PartEvidence.__new__(parts.PartEvidence).weight, 2.0),
    (appearance, "GUIDE_WEIGHT", lambda: AppearanceGuide.__new__(AppearanceGuide).weight, 1.0),
    (survey, "REFINED", refined_candidates, 4),
    (view_prior, "LEAST_DENSITY", lambda: log_prior(5.0, 180.0), -10.0),
    # The mean of 20 measurements of variance 2, and one of variance 1 that says 0
    (view_prior, "NOISE", lambda monkeypatch: posterior_mean(lambda e, m: view_penalty(e, m, monkeypatch)), 10 / 11),
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
    (step2, "CONFIDENT_SHARE", confident_images, 4),
    (step2, "COLOR_WEIGHT", color_weight, 0.5),
    # An elevation of 0 where 5 is expected, with a spread of 3
    (step2, "PRIOR_WEIGHT", lambda: step2.prior_support(near(0.0), LEVEL).item(), -0.5 * (5 / 3) ** 2 / 2),
]  # fmt: skip


def evaluate(quantity: Quantity, request: pytest.FixtureRequest) -> float:
    """Calls a quantity with the fixtures that it names."""
    code = quantity.__code__
    wanted = code.co_varnames[: code.co_argcount]
    return float(quantity(**{name: request.getfixturevalue(name) for name in wanted}))


def names(case: tuple[ModuleType, str, Quantity, float]) -> str:
    return f"{case[0].__name__.rsplit('.')[-1]}.{case[1]}"


@pytest.mark.parametrize("case", CASES, ids=names)
def test_a_constant_that_changes_is_noticed(
    case: tuple[ModuleType, str, Quantity, float],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, name, quantity, recorded = case
    assert evaluate(quantity, request) == pytest.approx(recorded, rel=0.01)
    value = getattr(module, name)
    for factor in (4, 1 / 4):
        changed = value * factor
        monkeypatch.setattr(
            module, name, max(1, round(changed)) if isinstance(value, int) else changed
        )
        try:
            found = evaluate(quantity, request)
        except (ValueError, RuntimeError):
            continue  # noticed as well
        assert found != pytest.approx(recorded, rel=0.03), f"{name} times {factor} changes nothing"


def test_every_constant_has_a_case() -> None:
    known = {names(case) for case in CASES} | EXEMPT.keys()
    found = set()
    for info in pkgutil.walk_packages(pipeline.poses.__path__, "pipeline.poses."):
        module = importlib.import_module(info.name)
        short = info.name.rsplit(".")[-1]
        if info.ispkg or short in ("contact_sheet", "step1"):
            continue
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, int | float) and _defined_in(module, name):
                found.add(f"{short}.{name}")
    assert found - known == set()
    assert known - found == set()


def _defined_in(module: ModuleType, name: str) -> bool:
    """Tells whether a module assigns a name, rather than importing it."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return any(isinstance(e, ast.Name) and e.id == name for e in flat)
