"""The evaluation of estimates that are known to be right, in a frame of their own, and of wrong ones."""

from pathlib import Path

import pytest
import torch

import run_reconstruction
from data.ground_truth import load_ground_truth
from data.multiview.objects import load_true_points
from data.preparation.options import PrepareConfig
from data.preparation.preparation import prepare
from data.synthetic.multiview import MultiviewConfig, make_renderings
from geometry import quaternion
from pipeline.reconstruction.points import evaluation
from pipeline.reconstruction.points.config import PointModelOptions, make_config
from pipeline.reconstruction.points.dataset import PointData
from pipeline.reconstruction.points.evaluation import Estimates
from pipeline.reconstruction.points.model_file import PointModel, untrained

FRAME = quaternion.normalize(torch.tensor([0.3, -0.5, 0.7, 0.2]))  # of the estimates
OPTIONS = ["--name", "cars", "--dataset", "cars", "--shape_model", "points", "--evaluate"]


@pytest.fixture
def _right(tmp_path, monkeypatch) -> None:
    """3 cars, and a network that knows their true points and cameras."""
    monkeypatch.chdir(tmp_path)
    make_renderings(MultiviewConfig("cars", "car", 3, 2, 64, seed=1), 9.0)
    prepare(PrepareConfig("cars", None, 16, False))
    options = PointModelOptions(32, 100, 4, 0.1, 32, "free")
    model = PointModel(untrained(options), options, "car", Path("model.pth"), 1)
    monkeypatch.setattr(evaluation, "load_model", lambda config, device: model)
    monkeypatch.setattr(evaluation, "estimate", known)


def known(network: object, data: PointData, device: torch.device) -> Estimates:
    truth, shapes = load_ground_truth(data.detections), load_true_points("cars")
    assert truth is not None
    owners = [each.name for each in data.objects for _ in each.rows]
    points = torch.stack([torch.from_numpy(shapes[name]) for name in owners])
    turned = quaternion.rotate(quaternion.conjugate(FRAME), points)
    rotation = quaternion.multiply(truth.rotation[data.source], FRAME)
    return Estimates(turned, torch.ones(len(points)), rotation)


def figures() -> dict[str, float]:
    config = make_config(vars(run_reconstruction.build_parser().parse_args(OPTIONS)))
    return evaluation.evaluate(torch.device("cpu"), config)


@pytest.mark.usefixtures("_right")
def test_the_truth_in_another_frame_is_perfect():
    found = figures()
    assert found["images"] == 2
    assert found["pose_under_30"] == 1
    assert found["pose_median"] < 0.1
    assert found["chamfer"] < 1.5  # the solver rounds corners off
    assert found["iou"] > 0.75  # points of a surface leave gaps
    assert found["chamfer"] < found["chamfer_typical_shape"]
    assert Path("output/cars_points.png").exists()


@pytest.mark.usefixtures("_right")
def test_one_wrong_pose_of_two_is_half_of_the_poses(monkeypatch):
    def turned(network: object, data: PointData, device: torch.device) -> Estimates:
        right = known(network, data, device)
        if len(data.objects) > 1:
            return right
        about = quaternion.from_axis_angle(torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 50.0]))
        return right._replace(rotation=quaternion.multiply(right.rotation, about))

    monkeypatch.setattr(evaluation, "estimate", turned)
    found = figures()
    assert found["pose_under_30"] == 0.5
    assert found["pose_median"] == pytest.approx(25, abs=0.1)
