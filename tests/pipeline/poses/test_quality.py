"""Poses of a small collection are right, whatever kind of evidence there is, and however it is shown."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pose_optimization_step1
import pose_optimization_step2
from data.cache import pose_files
from data.cache.pose_files import EstimatedPoses, Hypotheses
from geometry.camera import Pose, mirror
from tests.pipeline.poses import pose_world
from tests.pipeline.poses.small_collection import COUNT, Collection, errors, make_collection

COMMON = [
    "--mode",
    "singletpl",
    "--image_resolution",
    "96",
    "--num_workers",
    "0",
    "--gpu_ids",
    "cpu",
]
SOURCES = ("maps", "appearance", "learned")
# Share of all images within 30 degrees, at least, and median error in degrees, at most
FLOORS = {"maps": (0.9, 12), "appearance": (0.8, 14), "learned": (0.8, 14)}
FAR = 45.0  # degrees

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def collection() -> Collection:
    return make_collection()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, collection: Collection) -> Path:
    """Returns a folder with collections `plain`, `mirrored` and `shuffled` after step 1."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shuffled = collection.select(order())
        for name, some in {
            "plain": collection,
            "mirrored": collection.mirrored(),
            "shuffled": shuffled,
        }.items():
            some.write(name)
            pose_optimization_step1.main(["--dataset", name, *COMMON, "--refine_steps", "10"])
    return folder


@pytest.fixture
def work(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in a copy of the folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def order() -> Tensor:
    return torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))


def hypotheses(name: str) -> Hypotheses:
    return pose_files.load_hypotheses(name, "singletpl", pose_world.origin(name))


def choose(name: str, source: str, steps: int = 10) -> EstimatedPoses:
    """Runs step 2 and returns the poses of all images."""
    options = ["--parts_source", source, "--keep_share", "1", "--refine_steps", str(steps)]
    options += ["--features", "none"]
    learning = ["--num_parts", "3", "--parts_iters", "60"]
    pose_optimization_step2.main(["--dataset", name, *COMMON, *options, *learning])
    return pose_files.load_estimated_poses(name, "singletpl", pose_world.origin(name))


def nearest(found: Hypotheses, truth: Pose) -> Tensor:
    """Returns the error of the nearest hypothesis (COUNT,) in degrees."""
    apart = [errors(Pose(*(m[:, h] for m in found.pose)), truth) for h in range(found.iou.shape[1])]
    return torch.stack(apart).amin(dim=0)


def test_step_1_finds_the_right_pose_among_its_hypotheses(
    work: None, collection: Collection
) -> None:
    found = hypotheses("plain")
    assert found.iou.amax(dim=1).mean() > 0.88
    apart = nearest(found, collection.pose)
    assert (apart < 30).float().mean() >= 0.9
    assert apart.median() < 12


@pytest.mark.parametrize("source", SOURCES)
def test_step_2_chooses_the_right_pose_and_knows_how_sure_it_is(
    work: None, collection: Collection, source: str
) -> None:
    found = choose("plain", source)
    apart = errors(found.pose, collection.pose)
    share, median = FLOORS[source]
    right = (apart < 30).float()
    assert right.mean() >= share
    assert apart.median() <= median
    assert abs(found.confidence.mean() - right.mean()) < 0.12


@pytest.mark.parametrize("source", ["maps", "appearance"])
def test_mirrored_photographs_get_mirrored_poses(work: None, source: str) -> None:
    plain, flipped = choose("plain", source), choose("mirrored", source)
    apart = errors(mirror(plain.pose), flipped.pose)
    assert apart.median() < 10
    assert (apart < FAR).float().mean() >= 0.85


@pytest.mark.parametrize("source", ["maps", "appearance"])
def test_the_order_of_the_photographs_does_not_matter(work: None, source: str) -> None:
    # Refinement amplifies rounding errors to some degrees
    plain, shuffled = choose("plain", source, steps=0), choose("shuffled", source, steps=0)
    apart = errors(Pose(*(member[order()] for member in plain.pose)), shuffled.pose)
    assert apart.max() < 0.1
    torch.testing.assert_close(plain.confidence[order()], shuffled.confidence, atol=1e-3, rtol=0)


@pytest.mark.parametrize("source", ["maps", "appearance"])
def test_hypotheses_that_are_there_twice_change_nothing(work: None, source: str) -> None:
    once, found = choose("plain", source, steps=0), hypotheses("plain")
    pose = Pose(*(member.repeat(1, 2, 1) for member in found.pose))
    doubled = Hypotheses(pose, found.template_weights.repeat(1, 2, 1), found.iou.repeat(1, 2))
    pose_files.save_hypotheses("plain", "singletpl", doubled, pose_world.origin("plain"))
    twice = choose("plain", source, steps=0)
    assert errors(once.pose, twice.pose).max() < 0.1
    torch.testing.assert_close(once.confidence, twice.confidence, atol=1e-3, rtol=0)
