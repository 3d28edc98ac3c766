"""Neighbor swaps: which neighbors are chosen, what is compared, and what learns from it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction import training
from pipeline.reconstruction.companions import swaps
from pipeline.reconstruction.companions.swaps import Memory, NeighborSwaps
from pipeline.reconstruction.dataset import Labels
from pipeline.reconstruction.model import Prediction, Scene
from rendering.texture import render_textured
from tests.pipeline.reconstruction.toy import RUN, run, state
from tests.runs import assert_equal, die_at, left_behind
from utils.cli import UserError
from utils.seeding import torch_generator

SIZE, COUNT = 48, 12
CPU = torch.device("cpu")
SCENE = Scene(SphereMesh(), torch.zeros(1, 962, 3), torch.zeros(0), torch.zeros(0))


def labels_at(azimuth: Tensor) -> Labels:
    count = len(azimuth)
    zeros = torch.zeros(count)
    pose = Pose(
        torch.full((count, 1), 0.8),
        torch.zeros(count, 2),
        quaternion.from_view(azimuth, zeros, zeros),
        torch.full((count, 1), 4.0),
    )
    number = zeros.long()
    return Labels(pose, number, number, number.bool(), torch.zeros(count, 0))


def predicted(displacement: Tensor, texture: Tensor) -> Prediction:
    vertices = SCENE.sphere.deform(displacement)
    return Prediction(displacement, texture, None, vertices, vertices)


def random_prediction(count: int, seed: int) -> Prediction:
    generator = torch_generator(seed)
    coarse = 0.1 * torch.randn(count, 3, 4, 4, generator=generator)
    displacement = F.interpolate(coarse, (32, 32), mode="bilinear")
    texture = torch.rand(count, 3, 64, 64, generator=generator) * 2 - 1
    return predicted(displacement, texture)


def test_neighbors_are_those_of_a_loop_over_all_images() -> None:
    azimuth = 360 * torch.rand(COUNT, generator=torch_generator(0))
    labels, prediction = labels_at(azimuth), random_prediction(COUNT, 1)
    labels = labels._replace(category=torch.arange(COUNT) % 2)
    memory = Memory(COUNT, 64, 32, CPU)
    seen = torch.arange(COUNT - 2)  # two images are not known yet
    memory.remember(seen, Prediction(*(None if x is None else x[seen] for x in prediction)))  # type: ignore[arg-type]
    numbers = torch.rand(COUNT, generator=torch_generator(2))
    found = memory.neighbors(torch.arange(COUNT), prediction, labels, numbers)
    assert 0 < found.found.sum() < COUNT
    for i in range(COUNT):
        low = 20 + 32 * int(5 * numbers[i])
        best: dict[str, tuple[float, int]] = {}
        for j in range(COUNT - 2):
            gap = abs(float(azimuth[i] - azimuth[j]))
            if not low <= min(gap, 360 - gap) <= low + 32 or (i - j) % 2:
                continue
            for name, maps in (
                ("shape", prediction.displacement_map),
                ("texture", prediction.texture),
            ):
                assert maps is not None
                pooled = F.avg_pool2d(maps, maps.shape[-1] // 8)
                distance = float((pooled[i] - pooled[j]).norm())
                best[name] = min(best.get(name, (9e9, 0)), (distance, j))
        assert bool(found.found[i]) == bool(best)
        if best:
            assert (int(found.shape[i]), int(found.texture[i])) == (
                best["shape"][1],
                best["texture"][1],
            )


def photographs(labels: Labels, prediction: Prediction) -> Tensor:
    assert prediction.texture is not None
    shown = render_textured(
        SCENE.sphere, project(prediction.vertices, labels.pose), prediction.texture, SIZE
    )
    return torch.cat([shown.colors, shown.coverage], dim=1)


def two_views() -> tuple[Labels, Prediction, Tensor]:
    """Returns one object, seen from two sides that are 100 degrees apart, and its photographs."""
    labels, one = labels_at(torch.tensor([30.0, 130.0])), random_prediction(1, 3)
    assert one.texture is not None
    smooth = F.interpolate(F.avg_pool2d(one.texture, 16), (64, 64), mode="bilinear")
    both = predicted(one.displacement_map.expand(2, -1, -1, -1), smooth.expand(2, -1, -1, -1))
    return labels, both, photographs(labels, both)


def swaps_of(labels: Labels, images: Tensor, seed: int = 0) -> NeighborSwaps:
    memory = Memory(len(images), 64, 32, CPU)
    return NeighborSwaps(
        memory, SCENE, labels, lambda row: images[row], F.mse_loss, weight=1, seed=seed
    )


def terms_after_a_look(
    labels: Labels, prediction: Prediction, images: Tensor
) -> tuple[dict[str, float], NeighborSwaps]:
    """Returns the terms of a step whose range of azimuths has the neighbors in it."""
    index = torch.arange(len(images))
    for seed in range(100):
        found = swaps_of(labels, images, seed)
        found.memory.remember(index, prediction)
        terms = found.terms(0, index, prediction)
        if float(terms["neighbor_silhouette"].value) > 0:
            return {name: float(term.value) for name, term in terms.items()}, found
    raise AssertionError("no seed whose range has neighbors")


def test_the_truth_explains_neighbors_and_a_wrong_far_side_does_not() -> None:
    labels, truth, images = two_views()
    right, _ = terms_after_a_look(labels, truth, images)
    # A texture that is inverted, as no neighbor has it, and a shape that is too fat
    assert truth.texture is not None
    inverted, _ = terms_after_a_look(labels, truth._replace(texture=-truth.texture), images)
    fat = predicted(truth.displacement_map + 0.2, truth.texture)
    wrong, _ = terms_after_a_look(labels, fat, images)
    assert right["neighbor_colors"] < 0.05 * inverted["neighbor_colors"]
    assert right["neighbor_silhouette"] < 0.2 * wrong["neighbor_silhouette"]


def test_images_without_neighbors_count_nothing() -> None:
    labels, truth, images = two_views()
    terms = swaps_of(labels, images).terms(0, torch.arange(2), truth)  # nothing is known yet
    assert all(float(term.value) == 0 for term in terms.values())


def test_the_neighbors_values_carry_no_gradient() -> None:
    labels, truth, images = two_views()
    assert truth.texture is not None

    def leaves() -> tuple[Tensor, Tensor]:
        displacement = (truth.displacement_map + 0.05).clone().requires_grad_()
        return displacement, (0.5 * truth.texture).clone().requires_grad_()  # type: ignore[operator]

    _, found = terms_after_a_look(labels, truth, images)
    other, own = leaves(), leaves()
    found.memory.remember(torch.arange(2), predicted(*other))
    terms = found.terms(0, torch.arange(2), predicted(*own))
    sum(term.weight * term.value for term in terms.values()).backward()  # type: ignore[union-attr]
    assert all(leaf.grad is None for leaf in other)
    assert all(leaf.grad is not None and leaf.grad.abs().max() > 0 for leaf in own)


@pytest.mark.usefixtures("toy")
def test_a_run_that_was_killed_remembers_what_it_knew(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--iters", "5", "--checkpoint_freq", "2", "--neighbor_weight", "0.5")
    run(*options)
    whole, expected = state(), left_behind(RUN)
    assert whole[swaps.KEY]["known"].any()
    RUN.rename("first")
    die_at(3, training.Update, lambda: run(*options), monkeypatch)
    run(*options)
    assert_equal(whole, state())
    assert left_behind(RUN) == expected


@pytest.mark.usefixtures("toy")
def test_without_textures_there_is_nothing_to_swap() -> None:
    with pytest.raises(
        UserError, match=r"--neighbor_weight 1: .*--prediction_type texture or both"
    ):
        run("--iters", "1", "--neighbor_weight", "1", "--prediction_type", "none")
    run("--iters", "1", "--student_weight", "0")  # and no swaps
    assert swaps.KEY not in state()
    run("--iters", "2", "--neighbor_weight", "1")
    assert state()[swaps.KEY]["known"].any()
