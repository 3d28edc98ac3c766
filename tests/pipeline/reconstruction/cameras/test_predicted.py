"""Predicted cameras: sectors in closed form, draws, losses, a toy that is learned, and their way through a run."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import run_reconstruction
from data.cache import pose_files, pseudo_files
from geometry import camera, quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from models.companions.student import SectorPoses, mirrored
from pipeline.reconstruction.cameras import learning, network
from pipeline.reconstruction.cameras.learning import CameraLearning
from pipeline.reconstruction.cameras.network import CameraNetwork, make_camera_network
from pipeline.reconstruction.dataset import Batch, Labels
from pipeline.reconstruction.model import Prediction, Scene
from pipeline.reconstruction.model_file import load_model, load_trained
from pipeline.reconstruction.student import estimate_pose
from rendering.texture import render_textured
from tests.pipeline.reconstruction.toy import RUN, config, run, state
from utils import checkpoint
from utils.cli import UserError
from utils.seeding import torch_generator

CPU = torch.device("cpu")
TILTS = torch.tensor([[10.0, 20.0, 12.0]])
PREDICTED = ("--camera_source", "predicted", "--num_hypotheses", "4")


def normal(*sizes: int, seed: int = 1) -> Tensor:
    return torch.randn(*sizes, generator=torch_generator(seed))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_azimuths_fill_their_sectors_and_no_other(count: int) -> None:
    tilts = TILTS.expand(3, -1)
    raw = torch.stack([torch.zeros(count, 3), *(x * torch.ones(count, 3) for x in (20.0, -20.0))])
    azimuth, elevation, roll = quaternion.to_view(network.sector_rotations(raw, tilts))
    middle = torch.arange(count) * 360 / count
    for row, (turn, lift, lean) in enumerate([(0, 10, 0), (180 / count, 30, 12), (-180 / count, -10, -12)]):  # fmt: skip
        offset = (azimuth[row] - middle - turn + 180) % 360 - 180
        torch.testing.assert_close(offset, torch.zeros(count), atol=2e-3, rtol=0)
        torch.testing.assert_close(elevation[row], torch.full((count,), float(lift)), atol=2e-3, rtol=0)  # fmt: skip
        torch.testing.assert_close(roll[row], torch.full((count,), float(lean)), atol=2e-3, rtol=0)
    # In between, azimuth is the middle and half a width times a hyperbolic tangent
    view = quaternion.to_view(network.sector_rotations(normal(1, count, 3), TILTS))[0]
    expected = (middle + 180 / count * normal(1, count, 3)[..., 0].tanh()) % 360
    torch.testing.assert_close(view, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_mirror_image_of_a_sector_is_a_sector(count: int) -> None:
    rotation = network.sector_rotations(normal(5, count, 3), TILTS.expand(5, -1))
    said = SectorPoses(normal(5, count), rotation, normal(5, count, 4))
    azimuth = quaternion.to_view(mirrored(said).rotation)[0]
    middle = torch.arange(count) * 360 / count
    offset = (azimuth - middle + 180) % 360 - 180
    assert offset.abs().max() <= 180 / count + 1e-3
    again = mirrored(mirrored(said))
    for member, same in zip(again, said, strict=True):
        torch.testing.assert_close(member, same)


def test_shapes_fill_the_crops_up_to_the_changes() -> None:
    shape = (torch.tensor([0.4, 1.0, 0.5]) * SphereMesh().vertices).expand(2, 4, -1, -1)
    rotation = network.sector_rotations(normal(2, 4, 3), TILTS.expand(2, -1))
    filling = network.adjusted(shape, rotation, torch.zeros(2, 4, 4))
    screen = project(shape, filling)[..., :2]
    low, high = screen.amin(2), screen.amax(2)
    torch.testing.assert_close(
        (high - low).amax(-1), torch.full((2, 4), 2 / camera.MARGIN), atol=2e-2, rtol=0
    )
    raw = normal(2, 4, 4, seed=2)
    changed = network.adjusted(shape, rotation, raw * torch.tensor([1.0, 1, 1, 0]))
    limits = network.CHANGE * raw.tanh()
    torch.testing.assert_close(changed.scale, filling.scale * limits[..., :1].exp())
    torch.testing.assert_close(changed.translation, filling.translation + limits[..., 1:3])


def test_draws_follow_probabilities_and_depend_on_the_image_alone() -> None:
    count, explored = 40_000, 0.2
    chances = torch.tensor([0.7, 0.1, 0.2, 0.0])
    index = torch.arange(count)
    found = learning.draw(chances.expand(count, -1), explored, 3, 5, index, count)
    expected = (1 - explored) * chances + explored / 4
    share = found.bincount(minlength=4) / count
    # Five standard deviations of a share
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt()).all()
    # Whatever the batch
    some = torch.tensor([7, 39_999, 7, 0])
    again = learning.draw(chances.expand(4, -1), explored, 3, 5, some, count)
    assert torch.equal(again, found[some])
    other = learning.draw(chances.expand(count, -1), explored, 3, 6, index, count)
    assert not torch.equal(other, found)


def test_hypotheses_are_drawn_evenly_at_first_and_mostly_by_probability_in_the_end() -> None:
    first, last = learning.plan(0, 1000), learning.plan(999, 1000)
    assert first.explored == learning.plan(100, 1000).explored == 1
    assert last.explored == pytest.approx(learning.EXPLORED)
    assert first.temperature == pytest.approx(learning.FIRST_TEMPERATURE)
    assert last.temperature == pytest.approx(network.FINAL_TEMPERATURE)
    assert not first.settled
    assert last.settled
    assert last.sharpness == pytest.approx(learning.SOFTNESS * first.sharpness)


def test_coverage_is_the_mean_distance_from_even_use() -> None:
    assert float(learning.coverage(torch.full((3, 4), 0.25))) == 0
    always = torch.tensor([[1.0, 0, 0, 0]]).expand(3, -1)
    assert float(learning.coverage(always)) == pytest.approx((3 / 4 + 3 / 4) / 4)
    p = normal(3, 4).softmax(1).requires_grad_()
    learning.coverage(p).backward()
    q = p.detach().requires_grad_()
    (q.mean(0) - 0.25).abs().mean().backward()
    assert p.grad is not None
    assert q.grad is not None
    torch.testing.assert_close(p.grad, q.grad)


def test_images_are_compared_with_the_textures_of_others() -> None:
    texture, category = normal(5, 3, 4, 4), torch.tensor([0, 1, 0, 0, 2])
    found = learning.of_others(texture, category)
    torch.testing.assert_close(found[0], (texture[2] + texture[3]) / 2)
    torch.testing.assert_close(found[2], (texture[0] + texture[3]) / 2)
    torch.testing.assert_close(found[1], texture[1])
    torch.testing.assert_close(found[4], texture[4])


def test_tilts_count_by_their_bounds() -> None:
    views = [torch.tensor(x) for x in ([0.0, 90.0, 200.0], [10.0, 30.0, 0.0], [0.0, 6.0, 12.0])]
    expected = torch.tensor([0.0, 1 + 0.25, 0.25 + 1])
    found = learning.tilt(quaternion.from_view(*views), TILTS.expand(3, -1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def wedge() -> Tensor:
    """A mirror-symmetric shape that is narrow and low in front: all eight views of it differ."""
    vertices = SphereMesh().vertices * torch.tensor([0.5, 1.0, 0.4])
    size = 0.6 + 0.4 * vertices[:, 1:2]
    return torch.cat([vertices[:, :1] * size, vertices[:, 1:2], (vertices[:, 2:] + 0.4) * size], 1)


def make_learning(count: int, hypotheses: int, total: int) -> CameraLearning:
    shape = wedge()[None]
    views = torch.tensor([[5.0, 8.0, 6.0, 0.0, 0.0]], dtype=torch.float64)
    sphere, nothing = SphereMesh(), torch.zeros(1, 0, shape.shape[1], 3)
    scene = Scene(sphere, shape, torch.ones(1, 1, 1), nothing)
    made = make_camera_network(shape, views, hypotheses, seed=1)
    return CameraLearning(made, scene, count, total, seed=2)


def test_the_true_camera_costs_least() -> None:
    """Eight photographs, and of each the cameras of all eight."""
    cameras, count = make_learning(8, 8, 100), 8
    shape = wedge().expand(count, -1, -1)
    level = torch.zeros(count)
    rotation = quaternion.from_view(torch.arange(count) * 45.0 + 10, level + 5, level)
    ones = torch.ones(count, 1)
    pose = camera.framed(shape, Pose(ones, torch.zeros(count, 2), rotation, 2 * ones))
    texture = normal(1, 3, 16, 1).expand(count, -1, -1, 16).tanh()  # stripes from front to back
    shown = render_textured(cameras.scene.sphere, project(shape, pose), texture, 64)
    image = torch.cat([shown.colors, shown.coverage], 1)
    for colors, least in ((None, 0.002), (texture, 0.01)):
        table = torch.stack(
            [
                cameras.losses(shape, colors, camera.select(pose, (torch.arange(count) + k) % count), image, 7e4)
                for k in range(count)
            ]
        )  # fmt: skip
        assert (table[0] < 0.03).all()
        assert (table[1:] > table[0] + least).all()


@pytest.mark.slow
def test_probabilities_go_to_the_sectors_of_the_lowest_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four photographs that differ in color; a camera costs what it is turned from the true one."""
    count, total = 4, 200
    cameras = make_learning(count, 4, total)
    level = torch.zeros(count)
    true = quaternion.from_view(torch.tensor([20.0, 110, 190, 250]), level + 5, level)

    def turned(self: CameraLearning, shape: Tensor, texture: object, pose: Pose, *rest: object):
        return quaternion.squared_distance(pose.rotation, true)

    monkeypatch.setattr(CameraLearning, "losses", turned)
    image = torch.cat([normal(count, 3, 1, 1).tanh(), torch.ones(count, 1, 1, 1)], 1)
    batch = Batch(
        image.expand(-1, -1, 64, 64),
        torch.zeros(count, 0, 64, 64),
        torch.arange(count),
        torch.zeros(count, dtype=torch.bool),
    )
    zeros = torch.zeros(count, dtype=torch.int64)
    ones = torch.ones(count, 1)
    nowhere = Pose(ones, torch.zeros(count, 2), true * 0, ones)
    labels = Labels(nowhere, zeros, zeros, zeros.bool(), torch.zeros(count, 0))
    mesh = wedge().expand(count, -1, -1)
    prediction = Prediction(mesh, None, None, mesh, mesh)
    for step in range(total):
        said, proposed = cameras.propose(step, batch, labels)
        assert proposed.pinned.all() == (step < total / 2)
        cameras(step, batch, proposed, said, prediction, 1.0)
    said, proposed = cameras.propose(total - 1, batch, labels)
    assert said.logits.argmax(1).tolist() == [0, 1, 2, 3]
    assert said.logits.softmax(1).amax(1).min() > 0.9
    assert quaternion.angle_between(proposed.pose.rotation, true).max() < 10


def test_flipped_images_have_the_cameras_of_the_images_themselves() -> None:
    cameras = make_learning(2, 4, 10)
    torch.nn.init.normal_(cameras.network.heads.weight, std=0.1)
    image = normal(1, 4, 64, 64).tanh().expand(2, -1, -1, -1)
    image = torch.stack([image[0], image[0].flip(-1)])  # both are seen alike
    batch = Batch(image, image[:, :0], torch.arange(2), torch.tensor([False, True]))
    zeros = torch.zeros(2, dtype=torch.int64)
    pose = Pose(torch.ones(2, 1), torch.zeros(2, 2), torch.zeros(2, 4), torch.ones(2, 1))
    labels = Labels(pose, zeros, zeros, zeros.bool(), torch.zeros(2, 0))
    found = cameras.propose(0, batch, labels)[1].pose
    mirror = camera.mirror(camera.select(found, slice(1)))
    assert quaternion.angle_between(found.rotation[1:], mirror.rotation).max() < 0.1
    torch.testing.assert_close(found.translation[1:], mirror.translation, atol=1e-4, rtol=0)


def test_a_run_needs_no_poses_and_all_commands_use_those_that_it_predicts(toy: Path) -> None:
    pose_files.poses_path("toy", "singletpl").unlink()
    run("--iters", "2", *PREDICTED)
    model, data, known = load_trained(config("--evaluate"), CPU)
    assert isinstance(model.student, CameraNetwork)
    assert (known.model.camera_source, known.model.num_hypotheses) == ("predicted", 4)
    assert len(data) == 5  # with or without a pose of step 2
    # The poses are the most probable ones of the photographs
    image = data[3].image[None]
    alone = estimate_pose(model.student, image, data.labels.category[3:4])
    torch.testing.assert_close(alone.pose.rotation[0], data.labels.pose.rotation[3])
    assert alone.probability.shape == (1, 4)
    run("--evaluate")
    run("--generate_pseudogt", "--pseudogt_resolution", "64")
    stored = pseudo_files.load_metadata("toy", "singletpl")
    torch.testing.assert_close(stored.rotation, data.labels.pose.rotation)
    run("--export_meshes", "--how_many", "1", "--pseudogt_resolution", "64")
    assert list(Path("output/toy_singletpl_meshes").rglob("mesh.obj"))
    # The model file alone knows them
    assert isinstance(load_model(RUN / "model.pth", CPU).student, CameraNetwork)
    assert (toy / RUN / "model.pth").exists()


@pytest.mark.usefixtures("toy")
def test_a_damaged_camera_network_is_one_line() -> None:
    run("--iters", "1", *PREDICTED)
    path = RUN / "model.pth"
    content = checkpoint.load(path)
    for damage in ({}, 3, {**content["student"], "tilts": torch.zeros(2, 3)}):
        checkpoint.save(path, {**content, "student": damage})
        with pytest.raises(UserError, match="its student is damaged"):
            run("--evaluate")
    del content["student"]
    checkpoint.save(path, content)
    with pytest.raises(UserError, match="its student is damaged"):
        run("--evaluate")
    assert "student_optimizer" in state()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--num_hypotheses 5", "must be even"),
        ("--camera_source predicted --pose_source sfm", "exclude each other"),
        ("--camera_source predicted --neighbor_weight 1", "needs --camera_source estimated"),
        ("--camera_source predicted --pose_rate .1", "needs --camera_source estimated"),
        ("--camera_source predicted --optimize_z0", "needs --camera_source estimated"),
    ],
)
def test_options_without_meaning_are_refused(
    words: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        run_reconstruction.main(["--name", "a_singletpl", "--dataset", "toy", *words.split()])
    assert message in capsys.readouterr().err


def test_bounds_come_from_the_prior_of_the_views() -> None:
    """Elevation 5 +- 8, roll +- 6, of objects that pitch by 3 +- 4 degrees: 5 together."""
    views = torch.tensor([[5.0, 8, 6, 3, 4], [0, 60, 60, 0, 0]], dtype=torch.float64)
    made = make_camera_network(wedge().expand(2, -1, -1), views, 8, seed=1)
    first = [5.0, 2 * math.hypot(8, 5), 2 * math.hypot(6, 5)]
    torch.testing.assert_close(made.tilts, torch.tensor([first, [0, 85, 120]]))
