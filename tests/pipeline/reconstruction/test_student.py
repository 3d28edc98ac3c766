"""The student: its loss, its lessons, and its place in a run."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from geometry import camera, quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from models.companions.student import (
    SECTORS,
    SectorPoses,
    StudentNetwork,
    sector_centers,
    sector_weights,
)
from pipeline.reconstruction.companions import lessons
from pipeline.reconstruction.companions.lessons import Draws, Similarity
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Batch, Labels
from pipeline.reconstruction.model import Prediction, Scene
from pipeline.reconstruction.model_file import load_model
from pipeline.reconstruction.student import Teaching, compute_terms, estimate_pose, make_student
from tests.pipeline.reconstruction.toy import config, run, state
from tests.runs import assert_equal
from utils import checkpoint, distributed
from utils.cli import UserError
from utils.seeding import torch_generator

COUNT = 6
RUN = Path("checkpoints_recon/toy_singletpl")
CPU = torch.device("cpu")


def random_poses(count: int = COUNT) -> Pose:
    numbers = torch.rand(count, 4, generator=torch_generator(1))
    rotation = torch.randn(count, 4, generator=torch_generator(2))
    return Pose(
        numbers[:, :1] + 0.5,
        numbers[:, 1:3] / 2 - 0.25,
        quaternion.normalize(rotation),
        numbers[:, 3:] + 2,
    )


def labels_of(pose: Pose) -> Labels:
    zeros = torch.zeros(len(pose.scale), dtype=torch.int64)
    return Labels(pose, zeros, zeros, zeros.bool(), torch.zeros(len(zeros), 0))


def said_about(pose: Pose, student: StudentNetwork) -> SectorPoses:
    """Returns answers that are right in every sector, and sure of the right one."""
    share = sector_weights(quaternion.to_view(pose.rotation)[0])
    rotation = pose.rotation[:, None].expand(-1, SECTORS, -1)
    numbers = student.normalized(pose)[:, None].expand(-1, SECTORS, -1)
    return SectorPoses(share.log(), rotation, numbers)


def noise(said: SectorPoses) -> SectorPoses:
    generator = torch_generator(3)
    logits, rotation, numbers = (x + torch.randn(x.shape, generator=generator) for x in said)
    return SectorPoses(logits.clamp(min=-9), quaternion.normalize(rotation), numbers)


def test_an_azimuth_belongs_to_the_two_nearest_sectors_linearly() -> None:
    weights = sector_weights(torch.tensor([0.0, 45.0, 50.0, 350.0]))
    expected = torch.zeros(4, SECTORS)
    expected[0, 0] = expected[1, 1] = 1
    expected[2, 1], expected[2, 2] = 40 / 45, 5 / 45
    expected[3, 0], expected[3, 7] = 35 / 45, 10 / 45
    torch.testing.assert_close(weights, expected)


def test_heads_start_in_the_middle_of_their_sectors() -> None:
    azimuth, elevation, roll = quaternion.to_view(StudentNetwork().views)
    turn = (azimuth - sector_centers() + 180) % 360 - 180
    torch.testing.assert_close(torch.stack([turn, elevation, roll]), torch.zeros(3, SECTORS), atol=1e-3, rtol=0)  # fmt: skip


def test_the_loss_of_right_answers_is_that_of_ambiguous_azimuths_alone() -> None:
    pose, student = random_poses(), StudentNetwork()
    said = said_about(pose, student)
    said = said._replace(logits=said.logits.clamp(min=-1e4))
    terms = compute_terms(said, pose.rotation, student.normalized(pose), torch.ones(COUNT), 1)
    assert float(terms["rotation"].value) == pytest.approx(0, abs=1e-6)
    assert float(terms["camera"].value) == 0
    share = sector_weights(quaternion.to_view(pose.rotation)[0])
    assert float(terms["sector"].value) == pytest.approx(
        float(torch.special.entr(share).sum(1).mean()), abs=1e-5
    )


def test_a_quaternion_and_its_opposite_are_one_rotation() -> None:
    pose, student = random_poses(), StudentNetwork()
    said = noise(said_about(pose, student))
    numbers, weight = student.normalized(pose), torch.ones(COUNT)
    first = compute_terms(said, pose.rotation, numbers, weight, 1)
    other = compute_terms(said, -pose.rotation, numbers, weight, 1)
    third = compute_terms(said._replace(rotation=-said.rotation), pose.rotation, numbers, weight, 1)
    for name, term in first.items():
        for again in (other, third):
            torch.testing.assert_close(again[name].value, term.value, msg=name)
    assert float(first["rotation"].value) > 0.1


def test_images_count_by_their_weights() -> None:
    pose, student = random_poses(), StudentNetwork()
    said, numbers = noise(said_about(pose, student)), student.normalized(pose)
    weight = torch.rand(COUNT, generator=torch_generator(4))
    terms = compute_terms(said, pose.rotation, numbers, weight, 1)
    # One image after another, one sector after another
    expected = dict.fromkeys(terms, 0.0)
    for i in range(COUNT):
        share = sector_weights(quaternion.to_view(pose.rotation[i : i + 1])[0])[0]
        chances = said.logits[i].exp() / said.logits[i].exp().sum()
        for k in range(SECTORS):
            angle = quaternion.angle_between(said.rotation[i, k], pose.rotation[i])
            factor = float(weight[i] * share[k]) / COUNT
            expected["sector"] -= factor * math.log(chances[k])
            expected["rotation"] += factor * math.sin(math.radians(float(angle)) / 2) ** 2
            expected["camera"] += factor * float((said.numbers[i, k] - numbers[i]).square().mean())
    for name, value in expected.items():
        assert float(terms[name].value) == pytest.approx(value, rel=1e-4), name


def test_the_mirror_image_gets_the_mirrored_pose() -> None:
    torch.manual_seed(0)
    student = StudentNetwork().eval()
    torch.nn.init.normal_(student.heads.weight, std=0.1)
    image = torch.rand(COUNT, 4, 64, 64, generator=torch_generator(5))
    category = torch.zeros(COUNT, dtype=torch.int64)
    first = estimate_pose(student, image, category)
    other = estimate_pose(student, image.flip(-1), category)
    torch.testing.assert_close(other.probability, first.probability)
    expected = camera.mirror(first.pose)
    angle = quaternion.angle_between(other.pose.rotation, expected.rotation)
    assert angle.max() < 0.1
    torch.testing.assert_close(other.pose.translation, expected.translation)
    # They are ordered, and their poses lie about the middles of different sectors
    assert (first.probability.diff(dim=1) <= 0).all()
    torch.testing.assert_close(first.probability.sum(1), torch.ones(COUNT))
    assert first.alternatives.rotation.shape == (COUNT, SECTORS, 4)


def spot(position: Tensor, size: int = 64) -> Tensor:
    """Draws a blurred spot (1, 4, size, size) at a position (2,) of the screen."""
    steps = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-steps, steps, indexing="ij")
    return torch.exp(-((x - position[0]) ** 2 + (y - position[1]) ** 2) / 0.005).expand(
        1, 4, -1, -1
    )


def center_of(image: Tensor) -> Tensor:
    size = image.shape[-1]
    steps = (torch.arange(size) + 0.5) / size * 2 - 1
    mass = image[0, 3] / image[0, 3].sum()
    return torch.stack([(mass.sum(0) * steps).sum(), -(mass.sum(1) * steps).sum()])


@pytest.mark.parametrize("mirrored", [False, True])
def test_changed_images_show_the_object_under_the_changed_pose(mirrored: bool) -> None:
    """A point on the mirror plane of the object, which is its own mirror image."""
    change = Similarity(
        torch.tensor([mirrored]),
        torch.tensor([25.0]),
        torch.tensor([[1.2]]),
        torch.tensor([[0.06, -0.04]]),
    )
    point = torch.tensor([[[0.0, 0.3, 0.2]]])
    pose = random_poses(1)._replace(z0=torch.tensor([[9.0]]))  # nearly orthographic
    moved = change.images(spot(project(point, pose)[0, 0, :2]))
    expected = project(point, change.poses(pose))[0, 0, :2]
    torch.testing.assert_close(center_of(moved), expected, atol=2e-3, rtol=0)


def scene_of_spheres(count: int) -> tuple[Scene, Prediction]:
    sphere = SphereMesh()
    vertices = 0.5 * sphere.vertices.expand(count, -1, -1) * torch.tensor([0.5, 1.0, 0.7])
    texture = torch.arange(count).float()[:, None, None, None].expand(-1, 3, 64, 64) / count
    scene = Scene(sphere, torch.zeros(0), torch.zeros(0), torch.zeros(0))
    return scene, Prediction(torch.zeros(0), texture, None, vertices, vertices)


def test_renderings_show_their_poses_and_fill_their_crops() -> None:
    scene, prediction = scene_of_spheres(COUNT)
    labels = labels_of(random_poses())
    draws = Draws(torch_generator(6), torch.zeros(COUNT))
    lesson = lessons.renderings(scene, prediction, labels, labels, draws)
    assert lesson.image.shape == (COUNT, 4, 64, 64)
    assert (lesson.image[:, :3] * (1 - lesson.image[:, 3:]) == 0).all()
    for image in lesson.image:
        rows, columns = image[3].amax(1).nonzero(), image[3].amax(0).nonzero()
        extent = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
        assert 0.85 * 64 / 1.1 < extent <= 64
        # The crop is about its object, up to the shift
        middle = (rows[0] + rows[-1] + 1) / 2 / 32 - 1
        assert abs(float(middle)) < 0.15


def test_crops_are_framed_about_their_objects() -> None:
    _, prediction = scene_of_spheres(COUNT)
    pose = random_poses()._replace(z0=torch.full((COUNT, 1), 9.0))
    screen = project(prediction.vertices, lessons.framed(prediction.vertices, pose))[..., :2]
    low, high = screen.amin(1), screen.amax(1)
    torch.testing.assert_close((high - low).amax(1), torch.full((COUNT,), 2 / 1.1), atol=1e-3, rtol=0)  # fmt: skip
    torch.testing.assert_close(low + high, torch.zeros(COUNT, 2), atol=1e-3, rtol=0)


def test_views_are_drawn_from_the_same_category() -> None:
    categories = torch.tensor([1, 0, 1, 1, 0, 2])
    wanted = torch.tensor([0, 1, 2]).repeat_interleave(50)
    numbers = torch.rand(150, generator=torch_generator(7))
    rows = lessons.rows_of_category(categories, wanted, numbers)
    assert torch.equal(categories[rows], wanted)
    assert rows.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_the_usual_numbers_of_a_collection_and_its_mirror_images_become_0_and_1() -> None:
    pose = random_poses(50)
    student = make_student(labels_of(pose), 1, 0)
    both = camera.concatenate([pose, camera.mirror(pose)])
    numbers = student.normalized(both)
    torch.testing.assert_close(numbers.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(numbers.std(0), torch.ones(4))
    said = SectorPoses(torch.zeros(100, 1), both.rotation[:, None], numbers[:, None])
    for member, expected in zip(student.poses(said), both, strict=True):
        torch.testing.assert_close(member[:, 0], expected)


def teach_in_double(device: torch.device, options: ReconstructionConfig) -> dict[str, Tensor]:
    """Returns the student's state after some steps beside an estimator that predicts spheres."""
    torch.set_default_dtype(torch.float64)
    try:
        labels = labels_of(Pose(*(member.double() for member in random_poses(8))))
        scene, prediction = scene_of_spheres(4)
        scene = scene._replace(sphere=scene.sphere.double())
        student = make_student(labels, 1, 0)
        teaching = Teaching(student, scene, labels, torch.linspace(0.2, 1, 8), weight=20, seed=0)
        for step in range(options.batch_size):
            rows = torch.arange(4) + 4 * (step % 2)
            mine = torch.arange(4)[distributed.rank() * 4 // distributed.world_size() :]
            mine = mine[: 4 // distributed.world_size()]
            image = torch.rand(8, 4, 64, 64, generator=torch_generator(8))
            rows = rows[mine]
            batch = Batch(image[rows], image[rows, :0], rows, rows > 9)
            assert prediction.texture is not None
            seen = prediction._replace(
                texture=prediction.texture[mine].double(), vertices=prediction.vertices[mine]
            )
            teaching(step, batch, labels.select(rows), seen, 1.0)
    finally:
        torch.set_default_dtype(torch.float32)
    return {name: value.clone() for name, value in student.state_dict().items()}


@pytest.mark.slow
def test_two_processes_teach_as_one_does() -> None:
    options = config("--batch_size", "10")
    alone = distributed.launch(teach_in_double, [CPU], options)
    together = distributed.launch(teach_in_double, [CPU, CPU], options)
    assert (alone["heads.weight"] - StudentNetwork().heads.weight).abs().max() > 1e-3
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-9, msg=name)


def test_lessons_change_from_step_to_step() -> None:
    labels, (scene, prediction) = labels_of(random_poses()), scene_of_spheres(COUNT)
    teaching = Teaching(make_student(labels, 1, 0), scene, labels, torch.ones(COUNT), weight=20, seed=0)  # fmt: skip
    image, rows = spot(torch.zeros(2)).expand(COUNT, -1, -1, -1), torch.arange(COUNT)
    batch = Batch(image, image[:, :0], rows, rows > 9)
    first, again, other = (teaching.lesson(step, batch, labels, prediction) for step in (0, 0, 1))
    assert_equal(first.image, again.image)
    for lesson in (first, other):
        pairs = lesson.image[:, None] - lesson.image[None]
        assert (pairs.abs().amax((2, 3, 4)) > 0.01).sum() == len(lesson.image) * (len(lesson.image) - 1)  # fmt: skip
    assert (first.image - other.image).abs().amax((1, 2, 3)).min() > 0.01


@pytest.mark.usefixtures("toy")
def test_the_mesh_estimator_does_not_depend_on_the_student() -> None:
    run("--iters", "3")
    taught = state()
    RUN.rename("taught")
    run("--iters", "3", "--student_weight", "0")
    assert_equal(state()["generator"], taught["generator"])
    assert_equal(state()["optimizer"], taught["optimizer"])
    assert taught["student"].keys() == StudentNetwork().state_dict().keys()
    assert "student" not in state()
    assert load_model(RUN / "model.pth", CPU).student is None
    loaded = load_model("taught/model.pth", CPU).student
    assert loaded is not None
    assert_equal(dict(loaded.state_dict()), dict(taught["student"]))


@pytest.mark.usefixtures("toy")
def test_a_run_without_a_student_gets_one_when_it_continues() -> None:
    run("--iters", "1", "--student_weight", "0")
    run("--iters", "2")
    assert load_model(RUN / "model.pth", CPU).student is not None


@pytest.mark.usefixtures("toy")
def test_a_damaged_student_is_told() -> None:
    run("--iters", "1")
    content = checkpoint.load(RUN / "model.pth")
    for student in ({}, {"mean": torch.zeros(3)}, 5):
        checkpoint.save(RUN / "model.pth", content | {"student": student})
        with pytest.raises(UserError, match=r"model\.pth: its student is damaged"):
            load_model(RUN / "model.pth", CPU)
