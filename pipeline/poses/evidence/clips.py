"""Frames of a clip: from one to the next, an object hardly turns.

The poses of a clip are a hidden Markov chain. The scores of a frame are the log-likelihoods of its
candidates; from frame to frame the rotation moves by a Gaussian random walk on SO(3), or, after a cut,
anywhere. The forward-backward algorithm gives the probability of each candidate given all frames, and
the spread of the walk and the share of cuts are estimated from the clips by expectation-maximization
(Rabiner, A tutorial on hidden Markov models, Proceedings of the IEEE 1989).
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple

import torch
from torch import Tensor

from geometry import quaternion
from utils.cli import UserError

_FRAME = re.compile(r"(?P<clip>.+)_(?P<number>\d+)")
_ROUNDS = 10  # of expectation-maximization, which hardly moves after five
_FIRST_TURN, _FIRST_CUTS = 15.0, 0.05  # where it starts: degrees per frame, share
_LEAST_TURN = 3.0  # degrees: the walk needs width where a candidate lies beside the true pose
_LEAST_CUTS, _MOST_CUTS = 1e-4, 0.5  # no pair of frames is sure to belong together, nor to be apart
_VOLUME = 8 * math.pi**2  # of SO(3), whose distance is the angle in radians

logger = logging.getLogger(__name__)


class Clip(NamedTuple):
    """Photographs of one object in the order of time.

    Attributes:
        rows: (T,) rows of the collection.
        gaps: (T - 1,) frames from each to the next.
    """

    rows: Tensor
    gaps: Tensor


class Motion(NamedTuple):
    """How objects turn in clips.

    Attributes:
        turn: standard deviation about each axis, in degrees per square root of a frame.
        cuts: share of neighboring frames that have nothing to do with each other.
    """

    turn: float
    cuts: float


class _Pairs(NamedTuple):
    """What expectation-maximization sums over pairs of candidates in neighboring frames.

    Attributes:
        weight: expected number of pairs that are no cut.
        squares: their squared angles in radians per frame, summed.
    """

    weight: float
    squares: float


def find_clips(paths: Sequence[str]) -> list[Clip]:
    """Returns the clips among photographs named <clip>_<number>, such as dog/walk_0012.jpg.

    Photographs that show several objects are left out, since nothing says which is which.

    Args:
        paths: photographs of the N objects of a collection.

    Raises:
        UserError: if no two photographs belong to one clip.
    """
    objects = Counter(paths)
    # Frames by clip
    clips: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, path in enumerate(paths):
        match = _FRAME.fullmatch(PurePath(path).stem)
        if match and objects[path] == 1:
            key = (str(PurePath(path).parent), match["clip"])
            clips.setdefault(key, []).append((int(match["number"]), row))
    # In the order of time
    found = []
    for frames in clips.values():
        if len(frames) > 1:
            numbers, rows = torch.tensor(sorted(frames)).T
            found.append(Clip(rows, numbers.diff().clamp(min=1)))
    if not found:
        raise UserError(
            "--clips: no two photographs with one object each are named <clip>_<number>, such as "
            f"walk_0001.jpg and walk_0002.jpg; the first one is {PurePath(paths[0]).name}. Rename "
            "the frames and prepare the collection again, or leave --clips out."
        )
    return found


def join_frames(score: Tensor, rotation: Tensor, clips: Sequence[Clip]) -> Tensor:
    """Returns scores that know the other frames of their clip.

    Args:
        score: (N, H) log-likelihoods of candidates up to a constant of each image; -inf for those
            that are left out.
        rotation: (N, H, 4).
        clips: of the collection.

    Returns:
        (N, H) logarithms of the probabilities given all frames, up to a constant of each image; the
        scores of images that belong to no clip as they are.
    """
    angles = [_squared_angles(rotation[clip.rows]) for clip in clips]
    scores = [score[clip.rows].double() for clip in clips]
    # The spread of the walk and the share of cuts
    motion = Motion(_FIRST_TURN, _FIRST_CUTS)
    for _ in range(_ROUNDS):
        sums = [_expect(*frames, motion) for frames in zip(scores, angles, clips, strict=True)]
        motion = _maximize(sums, sum(len(clip.gaps) for clip in clips))
    logger.info(
        "clips: %d, with %d frames that turn by %.1f° per frame and axis, %.1f %% cuts",
        *(len(clips), sum(len(clip.rows) for clip in clips), motion.turn, 100 * motion.cuts),
    )
    # What all frames say together
    joined = score.clone()
    for frames, squares, clip in zip(scores, angles, clips, strict=True):
        steps = [step for step, _ in _transitions(squares, clip, motion)]
        before, after = _forward(frames, steps), _backward(frames, steps)
        joined[clip.rows] = (before + after).log_softmax(dim=1).to(score)
    return joined


def _squared_angles(rotation: Tensor) -> Tensor:
    """Returns the squared angles (T - 1, H, H) in radians between candidates of successive frames."""
    apart = quaternion.angle_between(rotation[:-1, :, None].double(), rotation[1:, None].double())
    return apart.deg2rad().square()


def _transitions(squares: Tensor, clip: Clip, motion: Motion) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields log-densities (H, H) from each frame to the next, and the part in it that is no cut."""
    for square, gap in zip(squares, clip.gaps.tolist(), strict=True):
        variance = gap * math.radians(motion.turn) ** 2
        walk = -square / (2 * variance) - 1.5 * math.log(2 * math.pi * variance)
        walk = walk + math.log(1 - motion.cuts)
        # Wide walks go round: nowhere is less probable than after a cut
        cut = torch.full_like(walk, math.log(motion.cuts / _VOLUME))
        both = torch.logaddexp(walk, cut)
        yield both, walk - both


def _forward(score: Tensor, steps: Sequence[Tensor]) -> Tensor:
    """Returns log-probabilities (T, H) of candidates and all frames up to theirs."""
    found = [score[0].log_softmax(dim=0)]
    for frame, step in zip(score[1:], steps, strict=True):
        reached = torch.logsumexp(found[-1][:, None] + step, dim=0)
        found.append((frame + reached).log_softmax(dim=0))
    return torch.stack(found)


def _backward(score: Tensor, steps: Sequence[Tensor]) -> Tensor:
    """Returns log-probabilities (T, H) of all later frames given each candidate."""
    found = [torch.zeros_like(score[-1])]
    for frame, step in zip(score[1:].flip(0), reversed(steps), strict=True):
        later = torch.logsumexp(step + frame + found[-1], dim=1)
        found.append(later - later.logsumexp(dim=0))
    return torch.stack(found[::-1])


def _expect(score: Tensor, squares: Tensor, clip: Clip, motion: Motion) -> _Pairs:
    """Returns the expectations over the pairs of neighboring frames of one clip."""
    transitions = list(_transitions(squares, clip, motion))
    steps = [step for step, _ in transitions]
    before, after = _forward(score, steps), _backward(score, steps)
    weight = total = 0.0
    for t, (step, walk) in enumerate(transitions):
        # The probability of each pair of candidates given all frames, and that it is no cut
        pair = before[t][:, None] + step + score[t + 1] + after[t + 1]
        near = (pair - pair.logsumexp(dim=(0, 1)) + walk).exp()
        weight += near.sum().item()
        total += (near * squares[t]).sum().item() / int(clip.gaps[t])
    return _Pairs(weight, total)


def _maximize(sums: Sequence[_Pairs], count: int) -> Motion:
    """Returns the motion under which `count` pairs of frames are most probable."""
    weight = sum(some.weight for some in sums)
    total = sum(some.squares for some in sums)
    cuts = min(max(1 - weight / count, _LEAST_CUTS), _MOST_CUTS)
    turn = math.degrees(math.sqrt(total / (3 * weight))) if weight > 0 else _FIRST_TURN
    return Motion(max(turn, _LEAST_TURN), cuts)
