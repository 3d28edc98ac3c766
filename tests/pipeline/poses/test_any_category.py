"""A category that is not among the 13, from photographs to poses: prepare, step 1, step 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pose_optimization_step1
import pose_optimization_step2
from data import prepare
from data.cache import pose_files, template_files
from data.definitions import VIEWS
from data.detections import load_detections
from pipeline.poses import step1, step2
from tests.pipeline.poses import pose_world
from utils.cli import UserError

COMMON = ["--dataset", "toy", "--mode", "singletpl", "--image_resolution", "32"]
COMMON += ["--num_workers", "0", "--gpu_ids", "cpu"]


@pytest.mark.slow
def test_a_new_category_borrows_a_template_and_has_views_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pose_world.write_dataset(pose_world.poses([20.0, 200.0, 330.0], [10.0, 0.0, 25.0]))
    dragon = ["--dataset", "toy", "--category", "dragon", "--views", "flying"]
    priors = []

    def recorded(function: Callable) -> Callable:
        return lambda *args: (priors.append(args[-1]), function(*args))[1]

    monkeypatch.setattr(step1, "ContourSearch", recorded(step1.ContourSearch))
    monkeypatch.setattr(step2, "log_prior", recorded(step2.log_prior))

    # Without template it is told so
    prepare.main(dragon)
    with pytest.raises(UserError, match=r"dragon has no template .*--template_of horse"):
        pose_optimization_step1.main([*COMMON, "--refine_steps", "3"])
    prepare.main([*dragon, "--template_of", "bird"])
    pose_optimization_step1.main([*COMMON, "--refine_steps", "3"])
    pose_optimization_step2.main([*COMMON, "--semantic_rounds", "1", "--refine_steps", "2"])
    assert len(priors) > 1
    assert set(priors) == {VIEWS["flying"]}

    # The poses are those of the borrowed template; another one makes them invalid
    detections = load_detections("toy")
    bird = template_files.load_templates("bird", "singletpl")
    origin = pose_files.origin_of(detections, bird)
    assert len(pose_files.load_estimated_poses("toy", "singletpl", origin).indices) > 0
    template_files.save_templates("dragon", "singletpl", bird * 0.9, own=True)
    prepare.main(dragon)
    assert torch.equal(template_files.templates_of(detections, "singletpl"), bird * 0.9)
    with pytest.raises(UserError, match="other templates"):
        pose_optimization_step2.main(COMMON)
