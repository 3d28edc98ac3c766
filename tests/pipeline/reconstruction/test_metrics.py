"""Measures of the evaluation: true meshes are perfect, wrong ones are not, and what is missing is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import run_reconstruction
from data.cache import pose_files, template_files
from data.cache.storage import save_arrays
from data.crops import square_box
from data.detections import Detection, Detections, save_detections
from data.run_lengths import encode_mask, mask_box
from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import symmetric_extension
from pipeline.reconstruction import evaluation
from pipeline.reconstruction.config import make_config
from pipeline.reconstruction.evaluation import METRICS, evaluate
from pipeline.reconstruction.meshes.camera_search import Camera
from pipeline.reconstruction.metrics import cameras, student_poses
from pipeline.reconstruction.metrics.interface import color_error
from pipeline.reconstruction.model import Prediction, Scene
from pipeline.reconstruction.student import PoseEstimate
from rendering.rasterizer import rasterize
from utils import distributed
from utils.cli import UserError
from utils.run_directory import RunDirectory

SIZE, COUNT = 64, 12
KEYPOINTS = torch.tensor([481, 236, 247, 7, 104, 376])
OPTIONS = ["--name", "toy_singletpl", "--dataset", "toy", "--image_resolution", "64"]
OPTIONS += [
    "--texture_resolution",
    "64",
    "--width",
    "0.05",
    "--batch_size",
    "4",
    "--gpu_ids",
    "cpu",
]
EVALUATE = ["--evaluate", "--number_pairs", "300"]
STUDENT = ("student_agrees", "student_right", "student_degrees", "student_right_in_common")
MESH = SphereMesh()
# The template differs from true object space by a turn, a scale and an offset
TURN = quaternion.from_axis_angle(torch.tensor([1.0, 0, 0]), torch.tensor(25.0))
SCALE, OFFSET = 0.8, torch.tensor([0.0, 0.1, -0.05])


def shapes() -> torch.Tensor:
    """Returns the true shapes (3, V, 3) of three individuals: long, high, and in between."""
    axes = torch.tensor([[0.4, 0.9, 0.5], [0.4, 0.6, 0.8], [0.4, 0.75, 0.65]])
    return MESH.vertices * axes[:, None]


def make_collection(*, keypoints: bool = True, shape_id: np.ndarray | None = None) -> None:
    """Writes photographs of the shapes, orange in the masks, with their truth and perfect poses."""
    generator = torch.Generator().manual_seed(1)
    shape_id = np.arange(COUNT) % 3 if shape_id is None else shape_id
    rotation = quaternion.normalize(torch.randn(COUNT, 4, generator=generator))
    scale_px, center = 26.0, SIZE / 2 + 2 * torch.randn(COUNT, 2, generator=generator)
    turned = scale_px * quaternion.rotate(rotation, shapes()[shape_id])
    pixels = turned[..., :2] + center[:, None]
    screen = torch.cat([pixels * 2 / SIZE - 1, -turned[..., 2:] / SIZE], dim=-1)
    screen[..., 1] *= -1
    masks = rasterize(screen, MESH.faces, SIZE, soft=False).coverage[:, 0] > 0
    items = []
    for i, mask in enumerate(masks.numpy()):
        path = Path("datasets/toy/images") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((SIZE, SIZE, 3), (200, 100, 50), np.uint8)).save(path)
        box = mask_box(mask)
        items.append(Detection(i, str(path), SIZE, SIZE, box, 1.0, encode_mask(mask), ()))
    detections = Detections("toy", "bird", tuple(items))
    save_detections(detections)
    arrays: dict[str, Any] = {
        "name": np.array([f"{i:02d}" for i in range(COUNT)]),
        "rotation": rotation.numpy(),
        "scale_px": np.full(COUNT, scale_px),
        "translation_px": center.numpy(),
        "camera_distance": np.full(COUNT, np.inf),
        "shape_id": shape_id,
    }
    if keypoints:
        normals = quaternion.rotate(
            rotation, (shapes() / shapes().square().amax(1, keepdim=True))[shape_id]
        )
        visible = (normals[..., 2] < 0)[:, KEYPOINTS]
        arrays["keypoints"] = torch.cat([pixels[:, KEYPOINTS], visible[..., None]], -1).numpy()
    save_arrays(Path("datasets/toy/ground_truth.npz"), arrays)
    save_arrays(
        Path("datasets/toy/shapes.npz"),
        {"shape_id": np.arange(3), "vertices": shapes().numpy(), "faces": MESH.faces.numpy()},
    )
    save_poses(detections, rotation, scale_px, center)


def save_poses(
    detections: Detections, rotation: torch.Tensor, scale: float, center: torch.Tensor
) -> None:
    """Writes the true poses, as those of the template, and a template."""
    template_files.save_templates("bird", "singletpl", 0.7 * MESH.vertices[None])
    boxes = torch.tensor([square_box(item.bbox) for item in detections.items]).float()
    side, ones = boxes[:, 2:], torch.ones(COUNT, 1)
    moved = scale * quaternion.rotate(rotation, OFFSET.expand(COUNT, 1, 3))[:, 0, :2]
    pose = Pose(
        SCALE * scale * 2 / side,
        (center + moved - boxes[:, :2]) / side * 2 - 1,
        quaternion.multiply(rotation, quaternion.conjugate(TURN).expand_as(rotation)),
        torch.full((COUNT, 1), 30.0),  # as good as orthographic
    )
    poses = pose_files.EstimatedPoses(torch.arange(COUNT), pose, ones, 0.9 * ones, 0.5 * ones, ones)
    origin = pose_files.origin_of(detections, template_files.load_templates("bird", "singletpl"))
    pose_files.save_estimated_poses("toy", "singletpl", poses, origin)


def in_template_space(vertices: torch.Tensor) -> torch.Tensor:
    return quaternion.rotate(TURN.expand(len(vertices), 4), vertices - OFFSET) / SCALE


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a trained run of a collection of three ellipsoids."""
    monkeypatch.chdir(tmp_path)
    make_collection()
    return tmp_path


def run(*options: str) -> None:
    run_reconstruction.main([*OPTIONS, *options])


def figures(*options: str) -> dict[str, float]:
    parsed = run_reconstruction.build_parser().parse_args([*OPTIONS, *EVALUATE, *options])
    return evaluate(torch.device("cpu"), make_config(vars(parsed)))


def know_everything(monkeypatch: pytest.MonkeyPatch, shown: np.ndarray) -> None:
    """Lets the estimator predict the true shapes of the individuals `shown` (COUNT,), in orange."""
    original, seen = evaluation.predict, iter(shown)

    def predict(network: Any, scene: Scene, image: torch.Tensor, labels: Any) -> Prediction:
        found = original(network, scene, image, labels)
        index = [next(seen) for _ in image]
        vertices = in_template_space(shapes()[index])
        texture = torch.tensor([200, 100, 50]) / 127.5 - 1
        return found._replace(
            vertices=vertices,
            screen=project(vertices, labels.pose),
            texture=texture[:, None, None].expand(len(image), 3, 64, 64).contiguous(),
        )

    monkeypatch.setattr(evaluation, "predict", predict)


@pytest.mark.usefixtures("toy")
def test_true_meshes_are_perfect_from_every_side(monkeypatch: pytest.MonkeyPatch):
    """Silhouettes, colors and keypoints are right, although the template has another object space."""
    run("--iters", "1")
    know_everything(monkeypatch, np.arange(COUNT) % 3)
    found = figures("--pck_alpha", "0.02,0.1")
    assert found["iou"] > 0.94  # soft silhouettes are a little wider
    assert found["novel_iou"] == pytest.approx(found["iou"], abs=0.005)
    assert found["novel_color_error"] < 0.02
    assert found["novel_iou_mean"] < found["novel_iou_nearest"] + 0.1 < 0.94
    assert found["pck_0.02"] == 1
    assert found["pck_position_0.1"] < 0.3
    assert found["chamfer"] < 7  # it does not undo the turn


@pytest.mark.usefixtures("toy")
def test_other_shapes_look_wrong_from_other_sides(monkeypatch: pytest.MonkeyPatch):
    run("--iters", "1")
    know_everything(monkeypatch, (np.arange(COUNT) + 1) % 3)
    assert figures("--metrics", "novel_view")["novel_iou"] < 0.9


@pytest.mark.usefixtures("toy")
def test_figures_do_not_depend_on_the_batch_size():
    run("--iters", "1")
    for mode in ("cam", "uv"):
        asked = ("--metrics", "iou,color,keypoints,novel_view", "--kp_mode", mode)
        one, other = figures(*asked), figures(*asked, "--batch_size", "5")
        assert one == pytest.approx(other, rel=1e-4)
        assert {*one} == {
            *("iou", "soft_iou", "mesh_iou", "color_error", "pck_0.1"),
            *("pck_0.15", "pck_position_0.1", "pck_position_0.15", "novel_iou"),
            *("novel_color_error", "novel_iou_mean", "novel_iou_nearest"),
        }


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_figures_do_not_depend_on_the_number_of_processes():
    run("--iters", "1")
    parsed = run_reconstruction.build_parser().parse_args([*OPTIONS, *EVALUATE, "--visualize"])
    config, cpu, picture = make_config(vars(parsed)), torch.device("cpu"), Path("output")
    one = distributed.launch(evaluate, [cpu], config)
    drawn = {path.name: path.read_bytes() for path in picture.iterdir()}
    assert distributed.launch(evaluate, [cpu, cpu], config) == pytest.approx(one, rel=1e-4)
    assert {path.name: path.read_bytes() for path in picture.iterdir()} == drawn


@pytest.mark.usefixtures("toy")
def test_figures_are_printed_and_recorded_with_what_they_refer_to():
    split = ("--split", "train", "--instances")
    run("--iters", "1", *split)
    run(*EVALUATE, *split[:1], "test", split[2], "--visualize", "--kp_mode", "uv")
    log = Path("checkpoints_recon/toy_singletpl/log.txt").read_text()
    for words in ("(part: test by individual)", "trained on 0 of them", "Average mask IoU: 0.",
                  "PCK.1 0.", ", PCK.15 ", "transferred by uv", "stay where they are"):  # fmt: skip
        assert words in log
    record = RunDirectory("checkpoints_recon/toy_singletpl").records()[-1]
    assert record["split"] == "test by individual"
    assert (record["images"], record["trained_on"], record["kp_mode"]) == (4, 0, "uv")
    run("--evaluate", "--metrics", "iou")
    assert (
        "the model was trained on 8 of them"
        in Path("checkpoints_recon/toy_singletpl/log.txt").read_text()
    )
    for kind in ("keypoints_uv", "novel_views"):
        with Image.open(f"output/toy_singletpl_{kind}.png") as picture:
            assert picture.width > 4 * 64


@pytest.mark.usefixtures("toy")
def test_rotations_of_the_student_are_compared_with_the_true_ones(
    monkeypatch: pytest.MonkeyPatch,
):
    """A student that turns every true view by 20 degrees, or by 40, in the picture or as if the object were turned."""
    run("--iters", "1")
    truth = torch.from_numpy(np.load("datasets/toy/ground_truth.npz")["rotation"])
    for degrees, of_object in ((20.0, False), (40.0, False), (40.0, True)):
        turn = quaternion.from_axis_angle(torch.tensor([0.0, 1, 0]), torch.tensor(degrees))
        turns = turn.expand_as(truth)
        turned = quaternion.multiply(*((truth, turns) if of_object else (turns, truth)))
        answers = iter(turned.split(4))

        def answer(_: Any, image: Any, category: Any, answers: Any = answers) -> PoseEstimate:
            nothing = torch.zeros(len(image), 0)
            pose = Pose(nothing, nothing, next(answers), nothing)
            return PoseEstimate(pose, pose, nothing)

        monkeypatch.setattr(student_poses, "estimate_pose", answer)
        found = figures("--metrics", "pose")
        assert found["student_right"] == (degrees < 30)
        assert found["student_degrees"] == pytest.approx(degrees, abs=0.01)
        # The axes of a learned template are arbitrary
        assert not of_object or found["student_right_in_common"] == 1
    run("--iters", "1", "--student_weight", "0", "--name", "alone_singletpl")
    with pytest.raises(UserError, match=r"the model has no student.*--student_weight"):
        figures("--metrics", "pose", "--name", "alone_singletpl")


@pytest.mark.usefixtures("toy")
def test_cameras_are_found_as_asked_and_compared_with_the_true_ones(
    monkeypatch: pytest.MonkeyPatch,
):
    """A way to find them that gives the true rotations to half of the photographs."""
    run("--iters", "1")
    know_everything(monkeypatch, np.arange(COUNT) % 3)
    truth = torch.from_numpy(np.load("datasets/toy/ground_truth.npz")["rotation"])
    turn = quaternion.from_axis_angle(torch.tensor([0.0, 1, 0]), torch.tensor(50.0))
    ways, answers = [], iter(truth)

    def find(student: Any, views: Any, way: str, category: Any, seen: Any) -> Camera:
        assert student is not None
        assert seen.image.shape == (4, SIZE, SIZE)
        ways.append(way)
        rotation = next(answers)
        if len(ways) % 2:
            rotation = quaternion.multiply(turn, rotation)
        nothing = torch.zeros(1, 1)
        return Camera(Pose(nothing, nothing, rotation[None], nothing), 0.5, 0.25)

    monkeypatch.setattr(cameras, "find_camera", find)
    found = figures("--metrics", "camera", "--camera", "search")
    assert ways == ["search"] * COUNT
    expected = {"right": 0.5, "degrees": 25.0, "iou": 0.5, "color_error": 0.25}
    assert found == pytest.approx({f"camera_{k}": v for k, v in expected.items()}, abs=0.01)


@pytest.mark.usefixtures("toy")
def test_cameras_need_what_they_are_found_by():
    run("--iters", "1", "--student_weight", "0")
    with pytest.raises(UserError, match=r"no student.*--camera search"):
        figures("--metrics", "camera", "--camera", "student")
    run("--iters", "1", "--prediction_type", "none", "--name", "gray_singletpl")
    with pytest.raises(UserError, match=r"predicts no texture.*--prediction_type both"):
        figures("--metrics", "camera", "--name", "gray_singletpl")


@pytest.mark.usefixtures("toy")
def test_a_run_keeps_its_part():
    run("--iters", "1", "--split", "train")
    with pytest.raises(UserError, match="trained with split=train; this command asks for all"):
        run("--iters", "2")


@pytest.mark.usefixtures("toy")
def test_what_cannot_be_measured_is_told_in_one_line_if_it_was_asked_for():
    run("--iters", "1", "--prediction_type", "none")
    with pytest.raises(UserError, match=r"predicts no texture.*--prediction_type both"):
        figures("--metrics", "iou,color")
    make_collection(keypoints=False, shape_id=np.full(COUNT, -1))
    with pytest.raises(UserError, match="no two photographs of toy show the same keypoint"):
        figures("--metrics", "keypoints")
    with pytest.raises(UserError, match="toy has no two photographs of the same true shape"):
        figures("--metrics", "novel_view")
    Path("datasets/toy/shapes.npz").unlink()
    for name in ("shape", "novel_view"):
        with pytest.raises(UserError, match=f"--metrics {name}: toy has no true shapes"):
            figures("--metrics", name)
    assert {*figures()} == {"iou", "soft_iou", "mesh_iou", *STUDENT}
    individuals = {f"{i:02d}": "b" if i == 8 else "a" for i in range(COUNT)}
    Path("datasets/toy/instances.json").write_text(json.dumps(individuals))
    with pytest.raises(UserError, match="--split val: none of the 12 photographs"):
        figures("--split", "val", "--instances")


@pytest.mark.usefixtures("toy")
def test_keypoints_go_by_flow_where_it_is_predicted(monkeypatch: pytest.MonkeyPatch):
    """Where all images show their texels at the same places, keypoints stay where they are."""
    run("--iters", "1", "--texture_model", "flow")
    original = evaluation.predict

    def predict(*arguments: Any) -> Prediction:
        found = original(*arguments)
        x = (torch.arange(64) + 0.5) / 32 - 1
        half = torch.stack(torch.meshgrid(x[::2], x, indexing="xy"))
        flow = symmetric_extension(half.expand(len(found.screen), -1, -1, -1))
        return found._replace(flow=flow)

    monkeypatch.setattr(evaluation, "predict", predict)
    found = figures("--kp_mode", "flow", "--metrics", "keypoints")
    assert found["pck_0.1"] == pytest.approx(found["pck_position_0.1"], abs=0.05)
    assert RunDirectory(Path("checkpoints_recon/toy_singletpl")).records()[-1]["kp_mode"] == "flow"


@pytest.mark.usefixtures("toy")
def test_colors_have_no_flow_by_which_keypoints_could_go():
    run("--iters", "1")
    message = "--kp_mode flow: the model predicts no texture flow"
    with pytest.raises(UserError, match=message):
        figures("--kp_mode", "flow", "--metrics", "keypoints")


def test_the_parser_knows_all_measures():
    parser = run_reconstruction.build_parser()
    asked = parser.parse_args([*OPTIONS, "--metrics", ",".join(METRICS)])
    assert asked.metrics == tuple(METRICS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evaluate", "--metrics", "iou,beauty"], "expected some of iou, color"),
        (["--metrics", "iou"], "--metrics needs --evaluate"),
        (["--visualize"], "--visualize needs --evaluate"),
        (["--evaluate", "--pck_alpha", "0.1,2"], "numbers above 0, up to 1"),
        (["--instances"], "--instances needs --split"),
        (["--generate_pseudogt", "--split", "train"], "learns from all"),
    ],
)
def test_wrong_options_are_told_by_the_parser(
    options: list[str], message: str, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit):
        run(*options)
    assert message in capsys.readouterr().err


def test_colors_are_compared_inside_the_mask_only():
    image = torch.rand(2, 4, 8, 8)
    image[:, 3] = (image[:, 3] > 0.5).float()
    colors = image[:, :3] + 0.3
    assert color_error(image[:, :3], image).tolist() == [0, 0]
    assert color_error(colors, image).tolist() == pytest.approx([0.15, 0.15])
    wrong = torch.where(image[:, 3:] > 0, image[:, :3], torch.tensor(9.0))
    assert color_error(wrong, image).tolist() == [0, 0]
