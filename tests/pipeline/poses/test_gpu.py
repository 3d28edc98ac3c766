"""Both pose steps on a GPU find what they find on a processor."""

import pytest
import torch

import pose_optimization_step1
import pose_optimization_step2
from data.cache import pose_files
from geometry import quaternion
from pipeline.poses.photographs import ON_GPU, images_per_batch
from tests.pipeline.poses import test_step1, test_step2
from tests.pipeline.poses.test_step1 import world
from tests.pipeline.poses.test_step2 import truth

__all__ = ["truth", "world"]  # fixtures


def test_a_gpu_gets_larger_batches_unless_their_size_is_given() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert images_per_batch(-1, 4, cpu) == 4
    assert images_per_batch(-1, 4, gpu) == 4 * ON_GPU
    assert images_per_batch(6, 4, cpu) == images_per_batch(6, 4, gpu) == 6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("search", ["contour", "reference"])
def test_step_1_finds_the_same_overlaps(world: None, search: str) -> None:
    found = []
    for device in ("cpu", "0"):
        pose_optimization_step1.main([*test_step1.COMMAND, "--search", search, "--gpu_ids", device])
        found.append(test_step1.read())
    # Equally good poses may change places, so that only their overlaps are compared
    best = [x.iou.amax(1) for x in found]
    torch.testing.assert_close(*best, atol=0.02, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [[], ["--shape_modes", "2"]])
def test_step_2_chooses_the_same_poses(truth: object, options: list[str]) -> None:
    found = []
    for device in ("cpu", "0"):
        pose_optimization_step2.main([*test_step2.COMMAND, *options, "--gpu_ids", device])
        found.append(test_step2.chosen())
    ours, theirs = found
    assert isinstance(ours, pose_files.EstimatedPoses)
    assert torch.equal(ours.indices, theirs.indices)
    angle = quaternion.angle_between(ours.pose.rotation, theirs.pose.rotation)
    assert angle.max() < 3
