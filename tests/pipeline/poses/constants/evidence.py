"""Cases of constants of the evidence for poses: parts, outlines, colors, features."""

import math
from collections.abc import Sequence

import pytest
import torch

from geometry.sphere_mesh import SphereMesh
from pipeline.poses import semantic_template, step2
from pipeline.poses.candidates import Candidates, Scored
from pipeline.poses.evidence import appearance, outlines, parts, pictures, textures
from pipeline.poses.evidence.appearance import AppearanceGuide, Source
from pipeline.poses.evidence.pictures import ColorPicture, FeaturePicture, Likeness
from pipeline.poses.evidence.textures import Textures
from pipeline.poses.photographs import Photographs
from tests.pipeline.poses import pose_world
from tests.pipeline.poses.constants.case import Case, equal, near


def color_weight(monkeypatch: pytest.MonkeyPatch) -> float:
    """Returns the weight of colors where there are features."""
    stage, shape = step2.Stage.__new__(step2.Stage), torch.zeros(1, 962, 3)
    stage._network, stage._mesh = pose_world.Network(), SphereMesh()
    stage._blank = semantic_template.SemanticModel(shape, shape, stage._mesh.faces)
    stage.detections = stage._device = None  # type: ignore[assignment] - not looked at
    monkeypatch.setattr(step2, "feature_picture", lambda *_: features())
    return stage._paint()[0].source(None).weight  # type: ignore[arg-type] - nothing is read


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


CASES: list[Case] = [
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
    (parts, "GUIDE_WEIGHT", lambda: parts.PartEvidence.__new__(parts.PartEvidence).weight, 2.0),
    (appearance, "GUIDE_WEIGHT", lambda: AppearanceGuide.__new__(AppearanceGuide).weight, 1.0),
    (step2, "COLOR_WEIGHT", color_weight, 0.5),
]  # fmt: skip
