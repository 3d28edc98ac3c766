"""Stage 2: choice and refinement of poses by parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pose_optimization_step2
from data.cache import pose_files, template_files
from data.cache.pose_files import Hypotheses
from data.definitions import VIEW_PRIORS
from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.appearance import Textures
from pipeline.poses.candidates import Candidates, accept, parts_noise, weigh
from pipeline.poses.fitting import pack, unpack
from pipeline.poses.part_model import (
    SemanticModel,
    Targets,
    compare,
    normalize_parts,
    part_overlap,
    refine,
    splat_parts,
)
from rendering.rasterizer import rasterize
from tests.oracles import wave
from tests.pipeline.poses import pose_world
from utils.cli import UserError
from utils.files import read_json

COMMAND = [
    "--dataset", "toy", "--mode", "singletpl", "--image_resolution", "48",
    "--num_workers", "0", "--gpu_ids", "cpu",
]  # fmt: skip
AZIMUTHS = [0.0, 20.0, 160.0, 200.0, 330.0, 180.0]
ELEVATIONS = [10.0, 0.0, 20.0, 5.0, 25.0, 0.0]


@pytest.fixture
def mesh() -> SphereMesh:
    return SphereMesh()


def true_model(mesh: SphereMesh) -> SemanticModel:
    labels = torch.nn.functional.one_hot(pose_world.part_labels(), 3).float()
    return SemanticModel(pose_world.body()[None], labels[None], mesh.faces)


def write_hypotheses(truth: Pose) -> None:
    """Writes three hypotheses an image: turned front to back, the true one, seen from the end."""
    count = len(truth.scale)
    back = quaternion.from_view(torch.tensor(180.0), torch.tensor(0.0), torch.tensor(0.0))
    turn = quaternion.from_axis_angle(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(180.0))
    rotations = [
        quaternion.multiply(truth.rotation, turn.expand(count, 4)),
        truth.rotation,
        back.expand(count, 4),
    ]
    pose = Pose(*(x[:, None].repeat(1, 3, 1) for x in truth))
    pose = pose._replace(rotation=torch.stack(rotations, dim=1))
    weights = torch.ones(count, 3, 1)
    iou = torch.tensor([0.92, 0.9, 0.3]).repeat(count, 1)
    iou[:3] = torch.tensor([0.6, 0.95, 0.3])  # the first three are unambiguous
    hypotheses = Hypotheses(pose, weights, iou)
    pose_files.save_hypotheses("toy", "singletpl", hypotheses, pose_world.origin())


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pose:
    """Makes a prepared dataset of six images and their hypotheses; returns the true poses."""
    monkeypatch.chdir(tmp_path)
    pose = pose_world.poses(AZIMUTHS, ELEVATIONS)
    pose_world.write_dataset(pose)
    write_hypotheses(pose)
    return pose


def candidates_of(parameters: torch.Tensor, miou: torch.Tensor) -> Candidates:
    zero = torch.zeros_like(miou)
    noise = torch.full_like(miou, 0.05)
    return Candidates(parameters, zero.long(), miou, miou, noise, prior=zero, colors=zero)


def chosen() -> pose_files.EstimatedPoses:
    return pose_files.load_estimated_poses("toy", "singletpl", pose_world.origin())


def test_part_overlap_equals_the_published_score(shared: Path) -> None:
    with np.load(shared / "reference/golden/rendering.npz") as golden:
        expected = torch.from_numpy(golden["miou"])
    predicted = wave(np.sin, 0.3, 2, 5, 16, 16).abs()
    target = wave(np.sin, 0.23, 2, 5, 16, 16).clamp(min=0)
    target[:, 4] = 0
    torch.testing.assert_close(part_overlap(predicted, target), expected, rtol=1e-5, atol=0)


def test_splatting_is_the_adjoint_of_rendering(mesh: SphereMesh) -> None:
    screen = project(pose_world.body()[None], pose_world.poses([30.0], [15.0]))
    parts = torch.rand(1, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    colors = torch.rand(1, 962, 2, generator=torch.Generator().manual_seed(1))
    raster = rasterize(screen, mesh.faces, 24, attributes=colors, soft=False)
    assert raster.attributes is not None
    rendered = (raster.attributes * parts).sum()
    torch.testing.assert_close((splat_parts(screen, mesh.faces, parts) * colors).sum(), rendered)


def test_semantic_template_finds_the_known_parts(mesh: SphereMesh) -> None:
    pose = pose_world.poses([0.0, 30.0, 200.0, 90.0], [0.0, 15.0, 30.0, -20.0])
    _, parts = pose_world.draw(pose, 64)
    screen = project(pose_world.body().expand(4, -1, -1), pose)
    sums = splat_parts(screen, mesh.faces, parts).sum(dim=0, keepdim=True)
    probabilities = normalize_parts(sums, mesh)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(1, 962))
    assert torch.equal(probabilities[:, mesh.negative], probabilities[:, mesh.positive])
    seen = sums[0].sum(dim=-1) > 0.5
    found = probabilities[0].argmax(dim=-1)
    assert (found == pose_world.part_labels())[seen].float().mean() > 0.9


def test_photographs_without_parts_are_compared_by_their_masks(mesh: SphereMesh) -> None:
    pose = pose_world.poses([30.0], [15.0])
    masks, parts = pose_world.draw(pose, 32)
    bare = torch.cat([parts.sum(dim=1, keepdim=True), torch.zeros(1, 2, 32, 32)], dim=1)
    choice = torch.tensor([0])
    iou, miou = compare(true_model(mesh), pose, choice, Targets(masks, bare))
    assert miou == iou == pytest.approx(1)
    _, with_parts = compare(true_model(mesh), pose, choice, Targets(masks, parts))
    assert with_parts == pytest.approx(1, abs=1e-4)


def test_refinement_approaches_the_true_rotation(mesh: SphereMesh) -> None:
    truth = pose_world.poses([30.0, 140.0], [15.0, 0.0])
    targets = Targets(*pose_world.draw(truth, 32))
    start = pack(pose_world.poses([48.0, 122.0], [10.0, 10.0]))
    choice = torch.zeros(2, dtype=torch.int64)
    moved = unpack(refine(true_model(mesh), start, choice, targets, VIEW_PRIORS["bird"], steps=30))
    before = quaternion.angle_between(unpack(start).rotation, truth.rotation)
    after = quaternion.angle_between(moved.rotation, truth.rotation)
    assert (after < 0.7 * before).all()


def test_worst_tenth_and_doubtful_images_are_dropped() -> None:
    count = 20
    rotation = quaternion.initial_views()[[2, 12]].expand(count, -1, -1)
    parameters = torch.cat([rotation, torch.zeros(count, 2, 4)], dim=2)
    miou = torch.stack([torch.linspace(0.3, 0.8, count), torch.zeros(count)], dim=1)
    miou[7, 1] = miou[7, 0]  # two rotations fit equally
    kept = accept(candidates_of(parameters, miou), keep_share=1.0, threshold=0.05)
    assert kept.tolist() == [2, 3, 4, 5, 6, *range(8, 20)]


def test_small_collections_are_not_thinned_out() -> None:
    parameters = torch.cat([quaternion.initial_views()[:3, None], torch.zeros(3, 1, 4)], dim=2)
    miou = torch.tensor([[0.1], [0.2], [0.3]])
    candidates = candidates_of(parameters, miou)
    assert accept(candidates, keep_share=1.0, threshold=0.3).tolist() == [0, 1, 2]


def test_the_most_confident_share_is_kept() -> None:
    rotation = quaternion.initial_views()[[2, 12]].expand(4, -1, -1)
    parameters = torch.cat([rotation, torch.zeros(4, 2, 4)], dim=2)
    miou = torch.tensor([[0.5, 0.3], [0.5, 0.5], [0.3, 0.5], [0.5, 0.49]])
    candidates = candidates_of(parameters, miou)
    assert accept(candidates, keep_share=0.5, threshold=None).tolist() == [0, 2]
    confidence = candidates.confidence()
    assert confidence[1] == pytest.approx(0.5)
    assert confidence[0] > 0.9


def test_hypotheses_of_one_view_do_not_compete() -> None:
    near = quaternion.from_view(torch.tensor([10.0, 20.0]), torch.zeros(2), torch.zeros(2))
    parameters = torch.cat([near, torch.zeros(2, 4)], dim=1)[None]
    candidates = candidates_of(parameters, torch.tensor([[0.5, 0.5]]))
    assert candidates.confidence().item() == pytest.approx(1)


def test_parts_tell_front_from_back(truth: Pose) -> None:
    pose_optimization_step2.main([*COMMAND, "--semantic_rounds", "1", "--refine_steps", "0"])
    found = chosen()
    degrees = quaternion.angle_between(found.pose.rotation, truth.rotation[found.indices])
    assert len(found.indices) >= 4
    assert degrees.max() < 0.1
    assert (found.miou > 0.5).all()


def test_choice_does_not_depend_on_the_batch_size_or_threads(
    truth: Pose, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for size, threads in (("1", "1"), ("4", "2")):
        monkeypatch.setenv("TMG_THREADS", threads)
        pose_optimization_step2.main([*COMMAND, "--batch_size", size, "--refine_steps", "2"])
        results.append(chosen())
    assert torch.equal(results[0].indices, results[1].indices)
    assert torch.equal(pack(results[0].pose), pack(results[1].pose))
    assert torch.equal(results[0].miou, results[1].miou)


def test_without_part_maps_colors_decide(truth: Pose) -> None:
    pose_optimization_step2.main(
        [*COMMAND, "--parts_source", "appearance", "--refine_steps", "2", "--keep_share", "0.5"]
    )
    found = chosen()
    assert len(found.indices) == 3
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    assert torch.equal(found.iou, found.miou)


@pytest.mark.slow
def test_two_processes_choose_the_same_as_one(truth: Pose) -> None:
    results = []
    for devices in ("cpu", "cpu,cpu"):
        pose_optimization_step2.main([*COMMAND, "--refine_steps", "2", "--gpu_ids", devices])
        results.append(chosen())
    assert torch.equal(pack(results[0].pose), pack(results[1].pose))
    assert torch.equal(results[0].confidence, results[1].confidence)


def test_template_and_pictures_are_exported(truth: Pose) -> None:
    options = ["--semantic_rounds", "1", "--refine_steps", "0"]
    pose_optimization_step2.main([*COMMAND, *options, "--export_semantic_template", "--visualize"])
    with np.load("output/toy_semantic_template_singletpl.npz") as arrays:
        assert arrays["part_names"].tolist() == ["none", "head", "tail"]
        assert arrays["probabilities"].shape == (1, 962, 3)
        assert arrays["labels"].shape == (1, 962)
        assert arrays["faces"].max() == 961
    assert Path("output/toy_poses_singletpl.png").stat().st_size > 1000
    assert Path("output/toy_poses_singletpl_views.png").exists()


def test_semantic_template_and_errors_are_written(truth: Pose) -> None:
    pose_optimization_step2.main([*COMMAND, "--refine_steps", "2"])
    template = pose_files.load_semantic_template("toy", "singletpl", pose_world.origin())
    assert template.part_names == ["head", "tail"]
    assert template.probabilities.shape == (1, 962, 3)
    figures = read_json("cache/toy/metrics.json")["step2"]["singletpl"]
    assert figures["images"] == 6
    assert figures["rotation_of_kept"]["images"] == figures["kept"]
    assert figures["rotation_of_kept"]["median_degrees"] < 30


def test_part_maps_that_no_pose_explains_are_doubted() -> None:
    miou = torch.tensor([[0.4, 0.2], [0.38, 0.2], [0.39, 0.2], [0.1, 0.05]])
    good = np.quantile([0.4, 0.38, 0.39, 0.1], 0.75)
    noise = parts_noise(miou, torch.ones(4, dtype=torch.bool))
    expected = [0.05 * good + 0.1 * max(good - best, 0) for best in (0.4, 0.38, 0.39, 0.1)]
    torch.testing.assert_close(noise, torch.tensor(expected)[:, None].expand(-1, 2).float())


def test_an_image_without_parts_is_as_uncertain_as_its_outline() -> None:
    iou = torch.tensor([[0.9, 0.8], [0.7, 0.6]])
    parameters = torch.zeros(2, 2, 8)
    parameters[..., 0] = 1
    candidates = candidates_of(parameters, torch.tensor([[0.3, 0.2], [0.7, 0.6]]))
    candidates = candidates._replace(iou=iou)
    weighed = weigh(candidates, Textures(torch.zeros(2, 2, 5, 3), torch.zeros(2, 2, 5)), True)
    expected = torch.tensor([0.05 * 0.3, 0.01 + 0.3 * 0.3])
    torch.testing.assert_close(weighed.noise[:, 0], expected)


def test_hypotheses_of_an_earlier_template_are_refused(truth: Pose) -> None:
    template_files.save_templates("bird", "singletpl", 1.1 * pose_world.body()[None])
    with pytest.raises(
        UserError, match=r"other templates.*pose_optimization_step1\.py --dataset toy"
    ):
        pose_optimization_step2.main(COMMAND)
    assert not pose_files.poses_path("toy", "singletpl").exists()
