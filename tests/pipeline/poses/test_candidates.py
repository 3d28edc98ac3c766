"""Candidate poses: near duplicates, confidence, and the images that are kept."""

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose
from pipeline.poses import candidates
from pipeline.poses.candidates import (
    Candidates,
    Scored,
    accept,
    distinct,
    rank,
    side_views,
    without_duplicates,
)


def candidates_of(rotation: Tensor, choice: Tensor | None = None) -> Candidates:
    """Returns candidates (N, H) of which only the rotations (N, H, 4) matter."""
    shape = rotation.shape[:2]
    zero = rotation.new_zeros(*shape, 1)
    pose = Pose(zero + 1, zero.expand(*shape, 2), rotation, zero)
    return Candidates(pose, torch.zeros(shape, dtype=torch.int64) if choice is None else choice)


def azimuths(degrees: list[float]) -> Tensor:
    """Returns rotations (1, H, 4) of level views."""
    zero = torch.zeros(len(degrees))
    return quaternion.from_view(torch.tensor(degrees), zero, zero)[None]


def scored(rotation: Tensor, score: Tensor) -> Scored:
    """Returns candidates that cover the masks, their parts a twentieth of their scores."""
    return rank(candidates_of(rotation), score, torch.ones_like(score), score / 20)


def front_and_back(count: int) -> Tensor:
    """Returns two rotations (count, 2, 4) for each image."""
    return quaternion.initial_views()[[2, 12]].expand(count, -1, -1)


def test_confidence_is_the_probability_of_the_best_rotation() -> None:
    found = scored(azimuths([0.0, 180.0]), torch.tensor([[0.0, -1.0]]))
    assert found.confidence().item() == pytest.approx(0.7311, abs=1e-4)  # 1 / (1 + 1 / e)


def test_candidates_that_do_not_cover_the_mask_may_all_be_wrong() -> None:
    some, score = candidates_of(azimuths([0.0, 180.0])), torch.tensor([[0.0, -1.0]])
    poor = rank(some, score, torch.tensor([[0.5, 0.3]]), score)
    expected = 0.7311 * (1 - 0.5 * candidates.MISFIT_DOUBT)
    assert poor.confidence().item() == pytest.approx(expected, abs=1e-4)
    assert rank(some, score, score + 2, score).confidence().item() <= 1


def test_confidence_is_low_where_the_choice_contradicts_the_outlines() -> None:
    some, score = candidates_of(azimuths([0.0, 180.0])), torch.tensor([[9.0, 0.0]])
    agreeing = rank(some, score, torch.tensor([[0.92, 1.0]]), score)
    contradicting = rank(some, score, torch.tensor([[0.88, 1.0]]), score)
    assert agreeing.conflict() == pytest.approx(0.08)
    assert agreeing.confidence().item() > 0.99
    assert 0.49 < contradicting.confidence().item() < 0.5


def test_near_duplicates_count_once() -> None:
    score = torch.tensor([[0.0, -1.0, -0.1, -0.2]])
    found = scored(azimuths([0.0, 180.0, 3.0, -4.0]), score)
    assert found.confidence().item() == pytest.approx(0.7311, abs=1e-4)
    apart = scored(azimuths([0.0, 180.0, 8.0, -9.0]), score)
    assert apart.confidence().item() > 0.87


def test_duplicated_candidates_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    rotation = quaternion.normalize(torch.randn(9, 6, 4, generator=generator))
    score = torch.randn(9, 6, generator=generator)
    once, twice = scored(rotation, score), scored(rotation.repeat(1, 2, 1), score.repeat(1, 2))
    torch.testing.assert_close(once.confidence(), twice.confidence())
    torch.testing.assert_close(once.spread(), twice.spread())
    assert torch.equal(once.leading(3), twice.leading(3))
    for threshold in (None, 0.5):
        assert torch.equal(accept(once, 0.5, threshold), accept(twice, 0.5, threshold))


def test_candidates_of_other_templates_are_no_duplicates() -> None:
    some = candidates_of(azimuths([0.0, 0.0]), torch.tensor([[0, 1]]))
    score = torch.tensor([[1.0, 0.5]])
    assert torch.equal(without_duplicates(score, some), score)


def test_of_equal_duplicates_the_first_stays() -> None:
    found = without_duplicates(torch.zeros(1, 3), candidates_of(azimuths([0.0, 1.0, 90.0])))
    assert found.tolist() == [[0.0, -torch.inf, 0.0]]


def test_distinct_candidates_suppress_their_neighbors() -> None:
    some = candidates_of(azimuths([0.0, 5.0, 90.0, 96.0, 180.0]))
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.75, 0.1]])
    assert distinct(scores, some, 3, 12.0).tolist() == [[0, 3, 4]]
    assert distinct(scores, some, 4, 12.0).tolist() == [[0, 3, 4, 1]]
    other = some._replace(choice=torch.tensor([[0, 1, 0, 0, 0]]))
    assert distinct(scores, other, 2, 12.0).tolist() == [[0, 1]]


def test_candidates_that_join_stand_behind_the_others() -> None:
    some, moved = candidates_of(azimuths([0.0, 90.0, 180.0])), candidates_of(azimuths([45.0, 30.0]))
    found = some.extend(moved)
    assert torch.equal(found.gather(torch.tensor([[0, 1, 2]])).pose.rotation, some.pose.rotation)
    assert torch.equal(found.gather(torch.tensor([[3, 4]])).pose.rotation, moved.pose.rotation)


def test_a_moved_candidate_takes_the_place_of_its_origin_only_if_it_is_better() -> None:
    some = azimuths([0.0, 90.0, 180.0, 270.0, 30.0, 120.0])
    score = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.5, 2.5]])
    found = scored(some, score).accept_moves(torch.tensor([[0, 1]]))
    out = -torch.inf
    assert found.score.tolist() == [[1.0, out, 3.0, 4.0, out, 2.5]]
    assert found.alive.tolist() == [[True, False, True, True, False, True]]


def test_worst_tenth_and_doubtful_images_are_dropped() -> None:
    overlap = torch.stack([torch.linspace(0.3, 0.8, 20), torch.zeros(20)], dim=1)
    overlap[7, 1] = overlap[7, 0]  # two rotations fit equally
    kept = accept(scored(front_and_back(20), 20 * overlap), keep_share=1.0, threshold=0.05)
    assert kept.tolist() == [2, 3, 4, 5, 6, *range(8, 20)]


def test_small_collections_are_not_thinned_out() -> None:
    score = torch.tensor([[2.0], [4.0], [6.0]])
    found = scored(quaternion.initial_views()[:3, None], score)
    assert accept(found, keep_share=1.0, threshold=0.3).tolist() == [0, 1, 2]


def test_the_most_confident_share_is_kept() -> None:
    score = 20 * torch.tensor([[0.5, 0.3], [0.5, 0.5], [0.3, 0.5], [0.5, 0.49]])
    found = scored(front_and_back(4), score)
    assert accept(found, keep_share=0.5, threshold=None).tolist() == [0, 2]
    assert found.confidence()[1] == pytest.approx(0.5)
    assert found.confidence()[0] > 0.9


def test_candidates_of_one_view_do_not_compete() -> None:
    found = scored(azimuths([10.0, 25.0]), torch.tensor([[10.0, 10.0]]))
    assert found.confidence().item() == pytest.approx(1)


def test_the_first_template_is_made_of_sure_side_views() -> None:
    away = 12 * [0.0] + 4 * [75.0]
    rotation = torch.stack([azimuths([degrees, degrees + 180.0])[0] for degrees in away])
    score = torch.tensor([[9.0, 0.0]]).repeat(16, 1)
    score[:2] = 0  # two side views that may be turned round
    usable = torch.ones(16, dtype=torch.bool)
    usable[2] = False
    rows = side_views(scored(rotation, score), usable)
    assert sorted(rows.tolist()) == [*range(3, 12), rows[-1]]  # nine, and one more to make ten
    assert rows[-1] >= 12
