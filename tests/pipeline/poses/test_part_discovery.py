"""Parts without labels: what teaches them, training, and their use by stage 2."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

import pose_optimization_step2
from data.cache import pose_files
from data.cache.learned_parts import LearnedParts, load_learned_parts, save_learned_parts
from data.detections import load_detections
from geometry.camera import Pose, to_vector
from geometry.sphere_mesh import SphereMesh
from models.backbones import load_backbone
from pipeline.poses import part_discovery
from pipeline.poses.evidence import networks
from pipeline.poses.options import PartsConfig
from pipeline.poses.part_discovery import (
    SIZE,
    ConfidentSet,
    TrainingSet,
    learn_parts,
    predict,
    surface_features,
    train,
)
from pipeline.poses.semantic_template import SemanticModel
from tests.pipeline.poses import pose_world
from tests.pipeline.poses.test_step2 import AZIMUTHS, COMMAND, ELEVATIONS, chosen, write_hypotheses
from utils.cli import UserError

LEARNED = [
    *COMMAND, "--parts_source", "learned", "--num_parts", "3", "--parts_iters", "2",
    "--semantic_rounds", "1", "--refine_steps", "1",
]  # fmt: skip
FILE = Path("cache/toy/parts_learned_K3_singletpl.npz")
CONFIG = PartsConfig("toy", "singletpl", num_parts=2, parts_iters=4, seed=0)
CPU = torch.device("cpu")


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pose:
    monkeypatch.chdir(tmp_path)
    pose = pose_world.poses(AZIMUTHS, ELEVATIONS)
    pose_world.write_dataset(pose)
    write_hypotheses(pose)
    return pose


def true_poses(pose: Pose) -> ConfidentSet:
    return ConfidentSet(torch.arange(6), pose, torch.zeros(6, dtype=torch.int64))


def body_model() -> SemanticModel:
    body = pose_world.body()[None]
    return SemanticModel(body, torch.ones(1, 962, 1), SphereMesh().faces)


def mean_in(maps: Tensor, region: Tensor) -> Tensor:
    """Returns the mean (K,) of maps (N, K, h, w) in regions (N, h, w)."""
    return (maps * region[:, None]).sum(dim=(0, 2, 3)) / region.sum()


def test_surface_features_are_the_same_places_in_all_views(truth: Pose) -> None:
    features = surface_features(true_poses(truth), body_model())
    values, weight = features[:, :-1], features[:, -1:]
    assert features.shape == (6, 4, SIZE, SIZE)
    mean = (values * weight).sum(dim=(0, 2, 3)) / weight.sum()
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-4, rtol=0)
    _, parts = pose_world.draw(truth, SIZE)
    for image in range(6):
        along = values[image : image + 1, 1:2]
        head, tail = (mean_in(along, parts[image : image + 1, part]) for part in (1, 2))
        assert not head >= 0
        assert not tail <= 0


@pytest.mark.slow
def test_parts_tell_the_ends_of_the_object_apart(truth: Pose) -> None:
    masks, parts = pose_world.draw(truth, SIZE)
    images = torch.cat([masks[:, None].expand(-1, 3, -1, -1), masks[:, None]], dim=1)
    features = surface_features(true_poses(truth), body_model())
    config = replace(CONFIG, parts_iters=40)
    network = train(config, TrainingSet(images, torch.arange(6), features), "settings", CPU)
    maps = predict(network, images, CPU).float()
    difference = mean_in(maps, parts[:, 1]) - mean_in(maps, parts[:, 2])
    assert difference.abs().max() > 40, difference  # of 255
    torch.testing.assert_close(maps.sum(dim=1), 255 * masks, atol=2, rtol=0)


def test_stage_2_takes_the_learned_parts_and_keeps_their_file(truth: Pose) -> None:
    pose_optimization_step2.main(LEARNED)
    template = pose_files.load_semantic_template("toy", "singletpl", pose_world.origin())
    assert template.part_names == ["part_1", "part_2", "part_3"]
    first, written, content = chosen(), FILE.stat().st_mtime_ns, FILE.read_bytes()
    pose_optimization_step2.main([*LEARNED, "--batch_size", "1"])
    assert FILE.stat().st_mtime_ns == written
    assert torch.equal(to_vector(chosen().pose), to_vector(first.pose))
    assert torch.equal(chosen().miou, first.miou)
    pose_optimization_step2.main([*LEARNED, "--seed", "2"])
    assert FILE.read_bytes() != content


@pytest.mark.slow
def test_two_processes_learn_and_choose_the_same_as_one(truth: Pose) -> None:
    results = []
    for devices in ("cpu", "cpu,cpu"):
        pose_optimization_step2.main([*LEARNED, "--gpu_ids", devices])
        results.append((to_vector(chosen().pose), FILE.read_bytes()))
        FILE.unlink()
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_interrupted_training_ends_with_the_same_file(
    truth: Pose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_discovery, "SAVE_INTERVAL", 2)
    arguments = (CONFIG, load_detections("toy"), true_poses(truth), body_model(), None, CPU)
    whole = learn_parts(*arguments)
    path = Path("cache/toy/parts_learned_K2_singletpl.npz")
    content = path.read_bytes()
    path.unlink()
    steps = []

    def interrupted(*args: Any) -> dict[str, Tensor]:
        steps.append(args)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return train_step(*args)

    train_step = part_discovery.train_step
    monkeypatch.setattr(part_discovery, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn_parts(*arguments)
    assert torch.equal(learn_parts(*arguments).maps, whole.maps)
    assert len(steps) == 4 + 2  # it went on after the second step
    with np.load(path) as resumed:
        assert path.stat().st_size == len(content)
        assert resumed["maps"].tobytes() == whole.maps.numpy().tobytes()
    assert not list(Path("cache/toy").glob(".parts*"))


def test_parts_that_share_features_do_not_depend_on_poses(truth: Pose) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None, num_classes=2)
    torch.save(network.state_dict(), "weights.pth")
    backbone, detections = load_backbone("weights.pth"), load_detections("toy")
    other = true_poses(truth._replace(rotation=truth.rotation.flip(0)))
    for features, same in ((backbone, True), (None, False)):
        maps = [
            learn_parts(CONFIG, detections, confident, body_model(), features, CPU).maps
            for confident in (true_poses(truth), other)
        ]
        assert torch.equal(*maps) is same


def test_a_missing_file_of_features_is_told_in_one_line(truth: Pose) -> None:
    with pytest.raises(UserError, match=r"absent\.pth does not exist"):
        pose_optimization_step2.main([*LEARNED, "--parts_features", "absent.pth"])


def test_networks_of_timm_give_features_too(truth: Pose, monkeypatch: pytest.MonkeyPatch) -> None:
    network = pose_world.Network()
    monkeypatch.setattr(networks, "load_features", lambda choice: network)
    assert networks.choose_backbone("name") is network
    assert networks.choose_backbone("name:file.pth") is network
    found = part_discovery.backbone_features(network, load_detections("toy"), CPU)
    values, weight = found[:, :-1], found[:, -1:]
    assert values.shape[1:] == (part_discovery.COMPONENTS, 7, 7)
    mean_square = (values.square() * weight).sum() / weight.sum() / values.shape[1]
    assert mean_square.item() == pytest.approx(1, rel=1e-4)


def test_part_maps_fill_the_mask_at_any_resolution() -> None:
    maps = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    parts = LearnedParts(maps.to(torch.uint8), torch.zeros(2, 3, dtype=torch.int64))
    masks = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(1))
    targets = parts.targets(torch.tensor([1]), masks)
    assert targets.shape == (1, 4, 20, 20)
    assert (targets[:, 0] == 0).all()
    torch.testing.assert_close(targets.sum(dim=1), masks)


def test_files_of_other_detections_or_settings_are_not_read(tmp_path: Path) -> None:
    maps = torch.full((2, 3, 4, 4), 85, dtype=torch.uint8)
    parts = LearnedParts(maps, torch.tensor([[1, 2, 3], [4, 5, 6]]))
    path = save_learned_parts(tmp_path / "parts.npz", parts, "fingerprint", "settings")
    found = load_learned_parts(path, "fingerprint", "settings")
    assert found is not None
    assert torch.equal(found.maps, parts.maps)
    assert torch.equal(found.boxes, parts.boxes)
    assert load_learned_parts(path, "another", "settings") is None
    assert load_learned_parts(path, "fingerprint", "others") is None
    assert load_learned_parts(tmp_path / "absent.npz", "fingerprint", "settings") is None


def test_weights_without_learned_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        pose_optimization_step2.main([*COMMAND, "--parts_features", "resnet18.pth"])
    assert stop.value.code == 2
    assert "--parts_features needs --parts_source learned" in capsys.readouterr().err
