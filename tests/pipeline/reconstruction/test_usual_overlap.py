"""What a model remembers of its overlaps: a mean of the last steps, in the model file."""

from pathlib import Path

import pytest
import torch

from pipeline.reconstruction.companions.usual_overlap import DECAY, UsualOverlap
from pipeline.reconstruction.meshes.own_photographs import least_overlap
from pipeline.reconstruction.model_file import load_model
from tests.pipeline.reconstruction.toy import run, state
from utils import checkpoint
from utils.cli import UserError

CPU = torch.device("cpu")
MODEL = Path("checkpoints_recon/toy_singletpl/model.pth")


def test_the_last_steps_count_most() -> None:
    overlap, values = UsualOverlap(CPU), [0.2, 0.9, 0.5, 0.7]
    assert overlap.value == 0
    for value in values:
        overlap.observe(torch.tensor(value))
    weights = [DECAY**age for age in (3, 2, 1, 0)]
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
    assert overlap.value == pytest.approx(mean)
    # What is stored continues
    again = UsualOverlap(CPU)
    again.load_state_dict(overlap.state_dict())
    for one in (overlap, again):
        one.observe(torch.tensor(0.1))
    assert again.value == overlap.value < mean


def test_photographs_are_compared_with_what_a_model_reaches() -> None:
    assert least_overlap(0.9) == pytest.approx(0.675)
    assert least_overlap(None) == pytest.approx(0.5625)


@pytest.mark.usefixtures("toy")
def test_a_model_file_holds_the_overlap_and_older_ones_do_without() -> None:
    run("--iters", "2", "--lr_decay_every", "9")
    run("--iters", "3", "--lr_decay_every", "9")
    content, sums = checkpoint.load(MODEL), state()["usual_overlap"]["sums"]
    assert float(sums[1]) == pytest.approx(1 + DECAY + DECAY**2)
    model = load_model(MODEL, CPU)
    assert model.usual_overlap == pytest.approx(float(sums[0] / sums[1]))
    assert 0 < content["usual_overlap"] < 1
    for damage in (1.5, "much", float("nan")):
        checkpoint.save(MODEL, content | {"usual_overlap": damage})
        with pytest.raises(UserError, match=r"model\.pth: its usual_overlap is .*from 0 to 1"):
            load_model(MODEL, CPU)
    del content["usual_overlap"]
    checkpoint.save(MODEL, content)
    assert load_model(MODEL, CPU).usual_overlap is None
