"""Part maps, and masks in their place, as evidence for poses."""

import numpy as np
import pytest
import torch

from data.cache.learned_parts import LearnedParts
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.candidates import Candidates
from pipeline.poses.evidence import outlines
from pipeline.poses.evidence.outlines import Outlines
from pipeline.poses.evidence.parts import FoundParts, GivenParts, PartEvidence, part_overlap
from pipeline.poses.photographs import Photographs
from pipeline.poses.semantic_template import SemanticModel
from tests.oracles import wave
from tests.pipeline.poses import pose_world


def given(*speaks: bool) -> GivenParts:
    """Returns parts of a collection in which only some images show any."""
    return GivenParts(["head", "tail"], torch.tensor(speaks))


def test_part_overlap_equals_the_published_score(shared) -> None:
    with np.load(shared / "reference/golden/rendering.npz") as golden:
        expected = torch.from_numpy(golden["miou"])
    predicted = wave(np.sin, 0.3, 2, 5, 16, 16).abs()
    target = wave(np.sin, 0.23, 2, 5, 16, 16).clamp(min=0)
    target[:, 4] = 0
    torch.testing.assert_close(part_overlap(predicted, target), expected, rtol=1e-5, atol=0)


def test_the_true_pose_overlaps_wholly_and_the_turned_one_does_not() -> None:
    pose = pose_world.poses([30.0, 210.0], [15.0, 15.0])
    masks, parts = pose_world.draw(pose, 64)
    images = torch.cat([masks[:1, None].expand(-1, 3, -1, -1), masks[:1, None]], dim=1)
    photographs = Photographs(torch.tensor([0]), images, parts[:1])
    both = Candidates(pose, torch.zeros(2, dtype=torch.int64)).repeat(1)
    mesh = SphereMesh()
    labels = torch.nn.functional.one_hot(pose_world.part_labels(), 3).float()
    model = SemanticModel(pose_world.body()[None], labels[None], mesh.faces)
    overlap = PartEvidence(given(True), model).measure(photographs, both)["parts"][0]
    iou = Outlines(model.templates, mesh.faces).measure(photographs, both)["iou"][0]
    assert overlap[0] > 0.85
    assert iou[0] > 0.95
    assert overlap[1] < 0.4
    assert iou[1] > 0.5


def test_what_is_measured_does_not_depend_on_the_batch() -> None:
    pose = pose_world.poses([30.0, 210.0, 100.0], [15.0, 15.0, 0.0])
    masks, parts = pose_world.draw(pose, 32)
    images = torch.cat([masks[:, None].expand(-1, 3, -1, -1), masks[:, None]], dim=1)
    photographs = Photographs(torch.arange(3), images, parts)
    some = Candidates(pose, torch.zeros(3, dtype=torch.int64)).repeat(3)
    evidence = Outlines(pose_world.body()[None], SphereMesh().faces)
    together = evidence.measure(photographs, some)["iou"]
    for i in range(3):
        row = torch.tensor([i])
        alone = evidence.measure(photographs.select(row), some.select(row))["iou"]
        assert torch.equal(alone[0], together[i])


def test_overlaps_of_masks_tell_less_where_the_template_fits_badly() -> None:
    verdict = outlines.judge(torch.tensor([[0.9, 0.8], [0.7, 0.6]]))
    torch.testing.assert_close(verdict.noise, torch.tensor([0.02 + 0.015, 0.02 + 0.045]))
    support = verdict.support()
    torch.testing.assert_close(
        support[:, 0] - support[:, 1], torch.tensor([0.1 / 0.035, 0.1 / 0.065])
    )


def test_part_maps_that_no_pose_explains_are_doubted() -> None:
    overlap = torch.tensor([[0.4, 0.2], [0.38, 0.2], [0.39, 0.2], [0.1, 0.05]])
    verdict = given(True, True, True, True).judge(overlap, overlap)
    # A good overlap is the upper quartile of the best ones: 0.39 + a quarter of 0.01
    torch.testing.assert_close(verdict.noise[:3], torch.tensor([0.019625, 0.020875, 0.019875]), atol=1e-5, rtol=0)  # fmt: skip
    assert verdict.noise[3].item() == pytest.approx(0.05 * 0.3925 + 0.1 * 0.2925)


def test_images_without_parts_are_left_to_their_masks() -> None:
    overlap = torch.tensor([[0.3, 0.2], [0.9, 0.1], [0.0, 0.0]])
    iou = torch.tensor([[0.9, 0.8], [0.7, 0.6], [0.9, 0.5]])
    parts, masks = given(True, False, True).judge(overlap, iou), outlines.judge(iou)
    assert parts.speaks.tolist() == [True, False, False]  # no pose meets the parts of the last
    assert (parts.support()[1:] == 0).all()
    both = parts.or_else(masks)
    assert both.speaks.all()
    assert torch.equal(both.support()[1:], masks.support()[1:])
    assert torch.equal(both.support()[0], parts.support()[0])
    assert torch.equal(both.value, torch.stack([overlap[0], iou[1], iou[2]]))
    assert parts.noise[0].item() == pytest.approx(0.05 * 0.3)  # the others are no measure of it


def test_learned_parts_are_mixed_with_masks() -> None:
    learned = LearnedParts(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, dtype=torch.int64))
    overlap, iou = torch.tensor([[0.5, 0.0]]), torch.tensor([[0.8, 0.7]])
    verdict = FoundParts(learned).judge(overlap, iou)
    torch.testing.assert_close(verdict.value, torch.tensor([[0.1 + 0.64, 0.56]]))
    assert torch.equal(verdict.noise, outlines.judge(iou).noise)
