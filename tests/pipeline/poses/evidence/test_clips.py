"""Frames of clips: names, and the forward-backward algorithm against enumeration and known motion."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from pipeline.poses.evidence import clips
from pipeline.poses.evidence.clips import Clip, Motion, find_clips, join_frames
from utils.cli import UserError

UP = torch.tensor([0.0, 1.0, 0.0])


def turned(*degrees: float) -> Tensor:
    """Returns rotations about the vertical axis."""
    return quaternion.from_axis_angle(UP.expand(len(degrees), 3), torch.tensor(degrees))


def test_clips_are_found_by_name_and_ordered_by_number():
    paths = ["d/b_10.jpg", "d/b_9.jpg", "d/a_b_007.png", "d/a_b_9.png", "d/cover.jpg"]
    paths += ["e/b_8.jpg", "d/one_1.jpg", "d/b_11.jpg", "d/b_11.jpg"]  # the last shows two objects
    found = find_clips(paths)
    assert [(clip.rows.tolist(), clip.gaps.tolist()) for clip in found] == [
        ([1, 0], [1]),
        ([2, 3], [2]),
    ]


@pytest.mark.parametrize("paths", [["a.jpg", "b.jpg"], ["a_1.jpg", "b_1.jpg"], ["a_1.jpg"] * 2])
def test_photographs_that_are_no_frames_are_told(paths: list[str]):
    with pytest.raises(UserError, match=r"--clips: no two photographs.*<clip>_<number>"):
        find_clips(paths)


def test_probabilities_are_those_of_all_paths_through_the_candidates(
    monkeypatch: pytest.MonkeyPatch,
):
    """The sum over all 3^4 choices of one candidate per frame, written out."""
    motion = Motion(turn=20.0, cuts=0.1)
    monkeypatch.setattr(clips, "_maximize", lambda sums, count: motion)
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    score[1, 2] = -torch.inf
    rotation = quaternion.normalize(torch.randn(5, 3, 4, generator=generator, dtype=torch.float64))
    clip = Clip(torch.tensor([3, 0, 1, 4]), torch.tensor([1, 2, 1]))
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for path in itertools.product(range(3), repeat=4):
        probability = 1.0
        for t, h in enumerate(path):
            probability *= math.exp(score[clip.rows[t], h])
            if t > 0:
                ends = (rotation[clip.rows[t - 1], path[t - 1]], rotation[clip.rows[t], h])
                angle = math.radians(quaternion.angle_between(*ends))
                variance = math.radians(20.0) ** 2 * int(clip.gaps[t - 1])
                walk = math.exp(-(angle**2) / 2 / variance) / (2 * math.pi * variance) ** 1.5
                probability *= 0.9 * walk + 0.1 / (8 * math.pi**2)
        for t, h in enumerate(path):
            expected[t, h] += probability
    joined = join_frames(score, rotation, [clip])
    torch.testing.assert_close(
        joined[clip.rows].exp(), expected / expected.sum(dim=1, keepdim=True)
    )
    assert torch.equal(joined[2], score[2])


def test_one_frame_does_not_turn_round_within_its_clip():
    """Each frame has the true pose and its opposite; frame 4 prefers the wrong one by much."""
    azimuth = torch.arange(8.0) * 6
    rotation = torch.stack([turned(*azimuth.tolist()), turned(*(azimuth + 180).tolist())], dim=1)
    score = torch.zeros(8, 2)
    score[:, 0] = 2.0
    score[4, 0] = -1.5
    joined = join_frames(score, rotation, [Clip(torch.arange(8), torch.ones(7, dtype=torch.long))])
    assert joined.argmax(dim=1).tolist() == [0] * 8
    assert joined[4].exp()[0] > 0.99


def test_the_motion_of_clips_is_estimated(caplog: pytest.LogCaptureFixture):
    """Random walks of 8 degrees a frame; in one pair of frames of twenty the camera is cut."""
    generator = torch.Generator().manual_seed(1)
    found, rotations, start = [], [], 0
    for _ in range(30):
        pose = quaternion.normalize(torch.randn(4, generator=generator))
        for _ in range(21):
            axis = torch.randn(3, generator=generator)
            angle = 8 * axis.norm()
            step = quaternion.from_axis_angle(axis[None] / axis.norm(), angle[None])[0]
            pose = quaternion.multiply(step, pose)
            if torch.rand(1, generator=generator) < 0.05:
                pose = quaternion.normalize(torch.randn(4, generator=generator))
            rotations.append(pose)
        found.append(Clip(torch.arange(start, start + 21), torch.ones(20, dtype=torch.long)))
        start += 21
    rotation = torch.stack(rotations)[:, None]
    with caplog.at_level("INFO"):
        join_frames(torch.zeros(len(rotation), 1), rotation, found)
    turn, cuts = (float(caplog.text.split(word)[1].split(end)[0]) for word, end in (
        ("turn by ", "°"), ("axis, ", " %")
    ))  # fmt: skip
    assert turn == pytest.approx(8, rel=0.1)
    assert cuts == pytest.approx(5, abs=2)


def test_scores_without_motion_to_judge_by_stay_probabilities():
    """Frames that all jump: nothing is learned from neighbors, and nothing is lost."""
    generator = torch.Generator().manual_seed(2)
    rotation = quaternion.normalize(torch.randn(40, 1, 4, generator=generator)).repeat(1, 2, 1)
    score = torch.randn(40, 2, generator=generator)
    clip = Clip(torch.arange(40), torch.ones(39, dtype=torch.long))
    joined = join_frames(score, rotation, [clip])
    torch.testing.assert_close(joined, score.log_softmax(dim=1), atol=1e-5, rtol=0)
