"""A step of training: the terms of the loss, and that steps make them smaller."""

import pytest
import torch

import run_reconstruction
from geometry import quaternion
from pipeline.reconstruction.points import model_file, training
from pipeline.reconstruction.points.config import make_config
from pipeline.reconstruction.points.dataset import Batch
from utils.training import make_length

OPTIONS = (
    *("--name", "cars", "--dataset", "cars", "--shape_model", "points", "--image_resolution", "32"),
    *(
        "--point_grid",
        "16",
        "--num_points",
        "400",
        "--width",
        "0.1",
        "--lr",
        "0.003",
        "--iters",
        "60",
    ),
)


def bars() -> Batch:
    """Returns two views of each of two objects: a horizontal bar and an upright one."""
    mask = torch.zeros(2, 2, 32, 32)
    mask[0, :, 13:19, 6:26] = 1
    mask[1, :, 6:26, 13:19] = 1
    image = torch.cat([mask[:, :, None].expand(-1, -1, 3, -1, -1), mask[:, :, None]], 2)
    return Batch(image, mask, torch.arange(4).view(2, 2), torch.tensor([False, True]))


@pytest.fixture
def update() -> training.Update:
    config = make_config(vars(run_reconstruction.build_parser().parse_args([*OPTIONS])))
    torch.manual_seed(0)
    network = model_file.untrained(config.model)
    return training.Update(network, config, make_length(2, 2, 60, 1))


@pytest.mark.slow
def test_steps_explain_the_masks_and_teach_the_student(update):
    losses = [update(step, bars()) for step in range(60)]
    first, last = losses[0], losses[-1]
    assert last["projection"] < 0.5 * first["projection"]
    assert last["student"] < 0.1
    assert last["iou"] > 0.6


def test_the_student_is_compared_with_the_best_candidate_alone(update, monkeypatch):
    """Its term is the mean of 1 - <q, q'>^2 over the views, and moves no candidate."""
    terms, _ = update.terms(0, bars())
    network, batch = update.network, bars()
    code = network.encode(batch.image.flatten(0, 1))
    distance = quaternion.squared_distance(
        network.estimate_pose(code)[:, None], network.propose(code)
    )
    low, high = distance.amin(1).mean(), distance.amax(1).mean()
    assert low <= terms["student"].value <= high
    assert terms["student"].weight == 20
    terms["student"].value.backward()
    assert all(p.grad is None for p in network.candidates.parameters())
    assert all(p.grad is None for p in network.points.parameters())
    assert network.student[0][0].weight.grad.abs().sum() > 0


def test_at_first_few_points_take_part(update, monkeypatch):
    seen = []
    explain = training.explain

    def counted(cloud, *rest):
        seen.append(cloud.points.shape[1])
        return explain(cloud, *rest)

    monkeypatch.setattr(training, "explain", counted)
    for step in (0, 30, 59):
        update.terms(step, bars())
    # At least 280 of the 400; then a share that grows from 7 % to all
    assert seen == [280, 280, 394]


def test_rates_halve_only_on_request(update):
    assert update.rates(59) == {"lr": 0.003}
    config = make_config(
        vars(run_reconstruction.build_parser().parse_args([*OPTIONS, "--lr_decay_every", "10"]))
    )
    halved = training.Update(update.network, config, make_length(4, 2, 60, 1))
    assert [halved.rates(step)["lr"] for step in (0, 19, 20, 40)] == [0.003, 0.003, 0.0015, 0.00075]
