"""Corrections of poses: closed forms, PyTorch's Adam as an oracle, and their way through a run."""

import logging

import pytest
import torch

from data.cache import pose_files, pseudo_files, template_files
from data.detections import load_detections
from geometry import camera, quaternion
from geometry.camera import Pose
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.model_file import load_trained
from pipeline.reconstruction.pose_corrections import MAX_TURN, PoseCorrections, correct
from tests.pipeline.reconstruction.toy import RUN, config, run, state
from utils import checkpoint
from utils.cli import UserError

CPU = torch.device("cpu")


def poses(count: int) -> Pose:
    generator = torch.manual_seed(count)
    rotation = quaternion.normalize(torch.randn(count, 4, generator=generator))
    sizes = torch.rand(count, 4, generator=generator)
    return Pose(0.5 + sizes[:, :1], sizes[:, 1:3], rotation, sizes[:, 3:])


def test_corrections_turn_scale_and_shift() -> None:
    pose, nothing = poses(3), torch.zeros(3, 7)
    for member, same in zip(pose, correct(pose, nothing), strict=True):
        torch.testing.assert_close(same, member)
    # A turn of 2 tan(10 degrees) about the viewing axis, twice the size, to the right and down
    change = torch.tensor(
        [[0, 0, 2 * torch.tan(torch.tensor(torch.pi / 18)), 0.6931472, 0.1, 0.2, 3]]
    )
    result = correct(pose, change.expand(3, -1))
    turn = quaternion.from_axis_angle(torch.tensor([0.0, 0, 1]), torch.tensor(20.0))
    torch.testing.assert_close(
        result.rotation, quaternion.multiply(turn.expand(3, -1), pose.rotation)
    )
    torch.testing.assert_close(result.scale, 2 * pose.scale)
    torch.testing.assert_close(result.translation, pose.translation + torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(result.z0, pose.z0 + 3)


def test_every_image_has_an_adam_of_its_own() -> None:
    """Each row moves as a parameter that PyTorch's optimizer sees only when its image is shown."""
    corrections = PoseCorrections(poses(4))
    rows = [torch.zeros(7, requires_grad=True) for _ in range(4)]
    adams = [torch.optim.Adam([row], lr=1e-3, eps=1e-4) for row in rows]
    generator = torch.manual_seed(0)
    for shown in ([0, 2], [2, 3], [2, 2], [0, 3], [3, 0]):
        index = torch.tensor(shown)
        leaf = corrections.select(index)
        (leaf * torch.randn(2, 7, generator=generator)).sum().backward()
        assert leaf.grad is not None
        corrections.step(index, leaf.grad, 1e-3)
        # The loss is a mean over two images; one that is shown twice has the sum of its gradients
        for row in set(shown):
            rows[row].grad = 2 * leaf.grad[index == row].sum(0)
            adams[row].step()
    torch.testing.assert_close(corrections.values, torch.stack(rows).detach())
    assert not corrections.values[1].any()
    assert corrections.steps[:, 0].tolist() == [3, 0, 3, 3]


def test_no_pose_turns_round() -> None:
    pose = poses(2)
    corrections = PoseCorrections(pose)
    for _ in range(60):
        corrections.step(
            torch.arange(2), torch.tensor([[1.0, 2, 3, 0, 0, 0, 0]]).expand(2, -1), 0.1
        )
    turned = correct(pose, corrections.values).rotation
    angles = quaternion.angle_between(turned, pose.rotation)
    torch.testing.assert_close(angles, torch.full((2,), MAX_TURN))


def shift_poses(offset: float) -> torch.Tensor:
    """Moves the stored poses of the toy birds to the right; returns their pose vectors."""
    templates = template_files.load_templates("bird", "singletpl")
    origin = pose_files.origin_of(load_detections("toy"), templates)
    stored = pose_files.load_estimated_poses("toy", "singletpl", origin)
    shifted = stored.pose._replace(translation=stored.pose.translation + torch.tensor([offset, 0]))
    pose_files.save_estimated_poses("toy", "singletpl", stored._replace(pose=shifted), origin)
    return camera.to_vector(shifted)


@pytest.mark.usefixtures("toy")
def test_shifted_poses_are_pulled_back_and_exported() -> None:
    """Disks in the middle of their crops, spheres as meshes: translations should become zero."""
    before = shift_poses(0.2)
    # Spheres, and silhouettes soft enough to say where disks of a few pixels are
    plain = ("--shape_head", "convolution", "--final_sharpness", "7000")
    run("--iters", "20", "--pose_rate", "0.02", "--lr", "1e-9", "--lr_decay_every", "100", *plain)
    data = load_trained(config("--evaluate"), CPU)[1]
    learned = data.labels.pose.translation
    assert learned.norm(dim=1).max() < 0.1
    # The GAN reads the corrected poses
    run("--generate_pseudogt", "--pseudogt_resolution", "64")
    metadata = pseudo_files.load_metadata("toy", "singletpl")
    torch.testing.assert_close(metadata.translation[:, :2], learned)
    torch.testing.assert_close(metadata.rotation, data.labels.pose.rotation)
    assert not torch.equal(metadata.rotation, before[:, :4])


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("options", "free"),
    [
        (["--optimize_deltas"], [3, 4, 5]),
        (["--optimize_z0"], [6]),
        (["--optimize_deltas", "--optimize_z0"], [3, 4, 5, 6]),
    ],
)
def test_named_numbers_alone_are_learned_with_their_own_rate(
    options: list[str], free: list[int]
) -> None:
    run("--iters", "1", "--lr_decay_every", "9", *options)
    moved = state()["pose_corrections"]["values"].abs().amax(0)
    assert moved.nonzero()[:, 0].tolist() == free
    torch.testing.assert_close(moved[free], torch.full((len(free),), 1e-4), atol=2e-5, rtol=0)


@pytest.mark.usefixtures("toy")
def test_photographs_that_were_not_trained_on_get_the_mean_of_the_others() -> None:
    """The first three of four poses are known, with offsets of their own."""
    shift_poses(0.2)
    run("--iters", "8", "--optimize_deltas", "--pose_rate", "0.02")
    path = RUN / "model.pth"
    content = checkpoint.load(path)
    known = content["pose_corrections"]
    part = {"poses": known["poses"][:3], "values": known["values"][:3], "free": known["free"]}
    checkpoint.save(path, {**content, "pose_corrections": part})
    pose = load_trained(config("--evaluate"), CPU)[1].labels.pose
    before = camera.from_vector(known["poses"])
    mean = known["values"][:3].mean(0)
    for i in range(4):
        values = known["values"][i] if i < 3 else mean
        torch.testing.assert_close(pose.translation[i], before.translation[i] + values[4:6])
        torch.testing.assert_close(pose.scale[i], before.scale[i] * values[3].exp())
    torch.testing.assert_close(pose.rotation, before.rotation)
    assert mean.abs().max() > 0.01


@pytest.mark.usefixtures("toy")
def test_corrections_outlive_a_change_of_the_rate() -> None:
    run("--iters", "1")
    assert "pose_corrections" not in state()
    run("--iters", "2", "--pose_rate", "0.01", "--lr_decay_every", "9")
    learned = state()["pose_corrections"]["values"]
    assert learned.abs().max() == pytest.approx(0.01, rel=1e-3)
    run("--iters", "3")
    assert torch.equal(state()["pose_corrections"]["values"], learned)


@pytest.mark.usefixtures("toy")
def test_corrections_of_other_poses_are_not_applied(caplog: pytest.LogCaptureFixture) -> None:
    run("--iters", "1", "--pose_rate", "0.01")
    moved = shift_poses(0.1)
    with caplog.at_level(logging.INFO):
        data = load_trained(config("--evaluate"), CPU)[1]
    assert "corrects other poses than those of toy" in caplog.text
    torch.testing.assert_close(camera.to_vector(data.labels.pose), moved)
    with pytest.raises(UserError, match=r"other poses.*Use another --name"):
        run("--iters", "2", "--pose_rate", "0.01")


@pytest.mark.usefixtures("toy")
def test_damaged_corrections_are_told_in_one_line() -> None:
    run("--iters", "1", "--pose_rate", "0.01")
    path = RUN / "model.pth"
    content = checkpoint.load(path)
    for damage in (3, {"values": torch.zeros(4, 7)}, {"poses": torch.zeros(4, 8), "values": "x"}):
        checkpoint.save(path, {**content, "pose_corrections": damage})
        with pytest.raises(UserError, match=r"model\.pth: .*intact copy"):
            run("--evaluate")


@pytest.mark.usefixtures("toy")
def test_data_of_a_run_without_corrections_stays_as_it_is() -> None:
    run("--iters", "1")
    data = load_trained(config("--evaluate"), CPU)[1]
    fresh = ReconstructionData("toy", "singletpl", 64, semi_fraction=0.1, parts=True)
    assert torch.equal(camera.to_vector(data.labels.pose), camera.to_vector(fresh.labels.pose))
