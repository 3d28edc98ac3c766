"""Templates from silhouettes: parts with closed forms, and a body that is learned."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import remesh
from data.cache import template_files
from data.definitions import VIEWS
from geometry.distances import chamfer_distance
from geometry.operators import stiffness_matrix, volume
from geometry.sphere_mesh import SphereMesh
from geometry.surface_descent import SurfaceDescent
from pipeline.template_learning import alternation, clusters, learning, stage
from pipeline.template_learning.alternation import Evidence
from pipeline.template_learning.pictures import TILE, template_picture
from pipeline.template_learning.surface import Phase, fit_surface
from pipeline.template_learning.views import find_views
from rendering.projection.terms import make_term
from tests.pipeline.poses import pose_world
from tests.pipeline.template_learning.silhouettes import PRIOR, as_views, seen_from_around
from utils.cli import UserError


def distance(vertices: torch.Tensor) -> float:
    """Chamfer distance to the true body, percent of the diagonal."""
    faces = SphereMesh().faces.numpy()
    return chamfer_distance((vertices.numpy(), faces), (pose_world.body().numpy(), faces))


def test_a_stiff_descent_spreads_a_gradient_by_the_inverse_of_its_matrix(template: SphereMesh):
    start, stiff = template.vertices[None], stiffness_matrix(template.faces, 962, 5.0)
    descent = SurfaceDescent(start, template.faces, 5.0)
    torch.testing.assert_close(descent.vertices(), start, atol=1e-4, rtol=0)
    descent.step(descent.vertices()[0, 100, 2], rate=0.1)
    # d loss / d state is column 100 of the inverse; the first step of Adam has the length of the rate
    spread = torch.linalg.inv(stiff)
    expected = -0.1 * spread @ spread[:, 100] / spread[:, 100].max()
    moved = (descent.vertices() - start)[0, :, 2]
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)


def test_modes_share_the_trust_of_their_image():
    score = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.88, 0.1], [0.5, 0.5, 0.5]])
    seen = as_views(pose_world.poses([0.0, 1.0, 2.0], [0.0, 0.0, 0.0]))
    views = seen._replace(iou=score, score=score, colors=torch.zeros(3, 3))
    weights = views.weights(0.02, limbs=False)
    usual, unusual = torch.sigmoid(torch.tensor([0.06 / 0.03, (-0.4 + 0.06) / 0.03]))
    torch.testing.assert_close(weights.sum(dim=1), torch.stack([usual, usual, unusual]))
    assert weights[1, 0] / weights[1, 1] == pytest.approx(np.e, rel=1e-3)
    colored = views._replace(colors=torch.tensor([0.0, 2.0, 0.0]).expand(3, 3)).weights(
        0.02, limbs=False
    )
    assert colored[0, 1] / colored[0, 0] == pytest.approx(np.e**2, rel=1e-3)


def test_a_mask_with_limbs_is_trusted_more_than_a_blob_of_the_same_overlap():
    seen = as_views(pose_world.poses([0.0, 1.0, 2.0], [0.0, 0.0, 0.0]))
    score = torch.full((3, 1), 0.6)
    views = seen._replace(score=score, solidity=torch.tensor([0.6, 0.8, 1.0]))
    trust = views.weights(0.02, limbs=True).sum(dim=1)
    torch.testing.assert_close(trust, torch.sigmoid(torch.tensor([0.25, 0.0, -0.15]) / 0.03))


def test_explaining_all_masks_by_foreshortening_costs_merit():
    def merit(*azimuths: float) -> float:
        return as_views(pose_world.poses(list(azimuths), [0.0] * len(azimuths))).merit()

    # The length of the object points towards the viewer at 90 degrees
    assert merit(90.0, 270.0) == pytest.approx(1 - 0.2 * 0.5)
    assert merit(0.0, 45.0, 90.0) == pytest.approx(1)
    assert merit(0.0, 180.0) == pytest.approx(1)


def test_views_from_the_front_cost_what_those_from_the_side_do_not():
    views = as_views(pose_world.poses([0.0, 90.0, 180.0, 45.0], [0.0, 0.0, 20.0, 0.0]))
    lost = (views.score - views.sideways(0.1).score)[:, 0]
    torch.testing.assert_close(lost, torch.tensor([0.0, 0.1, 0.0, 0.05]), atol=1e-6, rtol=0)


def test_views_hold_the_true_one_and_that_of_the_opposite_depth():
    masks, pose = seen_from_around(6)
    views = find_views(pose_world.body()[None], masks, PRIOR)
    rotation = views.candidates.pose.rotation
    turned = rotation * pose.rotation[:, None]
    assert (turned.sum(dim=2).abs().amax(dim=1) > np.cos(np.radians(10 / 2))).all()
    assert rotation.shape == (6, 10, 4)
    torch.testing.assert_close(views.iou[:, :5], views.iou[:, 5:])


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("raster", 0.4),
        pytest.param("volume", 0.5, marks=pytest.mark.slow),
        pytest.param("cover", 0.7, marks=pytest.mark.slow),
    ],
)
def test_a_surface_becomes_the_body_that_casts_the_silhouettes(
    template: SphereMesh, kind: str, share: float
):
    masks, pose = seen_from_around(24, size=48)
    start = template.vertices[None] * torch.tensor([0.4, 1.0, 0.4])
    phase = Phase(0.01, 8.0, 7e3, 40, 0.05, limbs=False, progress=0.0)
    generator = torch.Generator().manual_seed(0)
    terms = partial(make_term, kind, size=32)
    fitted = fit_surface(template, start, masks, as_views(pose), phase, generator, terms)
    assert distance(fitted[0]) < share * distance(start[0])
    mirrored = fitted[:, template.positive] * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(fitted[:, template.negative], mirrored)


def test_starting_shapes_are_uneven_ellipsoids_of_size_one(template: SphereMesh):
    first, second = (
        alternation.begin(template, (0.3, 1.0, 0.5), torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    )
    assert first.abs().max() == 1
    extent = first.amax(1) - first.amin(1)
    torch.testing.assert_close(
        extent / extent.max(), torch.tensor([[0.3, 1.0, 0.5]]), atol=0.1, rtol=0
    )
    assert 0.005 < (first - second).abs().max() < 0.3


def test_wrong_proportions_are_noticed():
    masks, _ = seen_from_around(8)
    wide = alternation.normalize(pose_world.body()[None] * torch.tensor([1.6, 1.0, 1.0]))
    stretched = alternation.best_proportions(wide, Evidence(masks, None, PRIOR))
    assert distance(stretched[0]) < distance(wide[0])


def test_clusters_are_the_means_of_separate_groups():
    centers = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 7.0]])
    noise = 0.1 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    points = centers.repeat(10, 1) + noise
    found = clusters.cluster(points, 3)
    expected = torch.stack([points[i::3].mean(0) for i in range(3)])
    nearest = torch.cdist(expected, found).argmin(dim=1)
    assert sorted(nearest.tolist()) == [0, 1, 2]
    torch.testing.assert_close(found[nearest], expected)


def test_only_masks_of_one_object_count():
    mask = np.zeros((32, 32), bool)
    assert not stage.is_one_object(mask)
    mask[4:16, 4:16] = True
    mask[30, 30] = True  # dust
    assert stage.is_one_object(mask)
    mask[20:30, 20:28] = True
    assert not stage.is_one_object(mask)


def test_variety_tells_views_from_around_from_one_view_and_its_mirror_image():
    masks, _ = seen_from_around(8)
    same = masks[:1].expand(8, -1, -1)
    assert stage.variety(same) == pytest.approx(0, abs=1e-5)
    assert stage.variety(torch.cat([same, same.flip(-1)])) == pytest.approx(0, abs=1e-5)
    assert stage.variety(masks) > 5 * stage.LEAST_VARIETY


def test_the_picture_shows_four_views_of_each_template():
    picture = template_picture(pose_world.body().expand(2, -1, -1), ["a", "b"])
    assert picture.shape == (2 * (TILE + 2) + 2, 4 * (TILE + 2) + 2, 3)
    # From the side the long body covers more than from the front
    side, front = (picture[2 : TILE + 2, k * (TILE + 2) + 2 :][:, :TILE] for k in (0, 1))
    blue = [(tile[..., 2].astype(int) - tile[..., 0] > 20).sum() for tile in (side, front)]
    assert blue[0] > 1.5 * blue[1]


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared collection of 30 photographs of the body, and learning that takes seconds."""
    monkeypatch.chdir(tmp_path)
    pose_world.write_dataset(seen_from_around(30)[1])
    monkeypatch.setattr(learning, "STARTING_SHAPES", ((0.3, 1.0, 0.4), (0.3, 0.3, 1.0)))
    monkeypatch.setattr(learning, "CONTEST_ROUNDS", 2)
    monkeypatch.setattr(learning, "MAIN_ROUNDS", 1)
    monkeypatch.setattr(learning, "STRETCHED_ROUNDS", ())
    monkeypatch.setattr(alternation, "STEPS", 20)


LEARN = ["--classes", "bird", "--from_photographs", "toy", "--gpu_ids", "cpu"]


def rounds() -> list[Path]:
    return sorted(Path("cache/toy/template_learning").rglob("*.pth"))


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(collection: None):
    remesh.main([*LEARN, "--mode", "singletpl"])
    first = template_files.load_templates("bird", "singletpl")
    assert len(rounds()) == 2 * 2 + 1
    assert Path("output/toy_templates_singletpl.png").exists()
    for path in rounds()[1:]:
        path.unlink()
    remesh.main([*LEARN, "--mode", "singletpl"])
    assert torch.equal(template_files.load_templates("bird", "singletpl"), first)
    times = [path.stat().st_mtime_ns for path in rounds()]
    remesh.main([*LEARN, "--mode", "singletpl", "--up=-z", "--mirror"])
    assert [path.stat().st_mtime_ns for path in rounds()] == times
    assert template_files.templates_path("bird", "singletpl").parts[1] == "own_templates"
    turned = template_files.load_templates("bird", "singletpl")
    # The faces of a reflected sphere have other diagonals
    back = turned[0] * torch.tensor([1.0, -1.0, -1.0])
    assert distance(back) == pytest.approx(distance(first[0]), rel=0.1)


@pytest.mark.parametrize("signs", [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)])
@pytest.mark.parametrize("exchanged", [False, True])
def test_a_turned_surface_faces_outward(
    signs: tuple[float, float], exchanged: bool, template: SphereMesh
):
    body = alternation.normalize(pose_world.body()[None])
    turn = torch.diag(torch.tensor([1.0, *signs]))
    turn = turn[[0, 2, 1]] if exchanged else turn
    turned = stage.turned(body, turn)
    # The same volume, and the same points
    expected = volume(body[0], template.faces)
    torch.testing.assert_close(volume(turned[0], template.faces), expected, rtol=0.02, atol=0)
    assert torch.cdist(turned[0], body[0] @ turn.T).amin(dim=1).max() < 2e-3
    assert (turned[0, template.positive, 0] >= 0).all()


@pytest.mark.slow
def test_several_templates_are_learned(collection: None):
    remesh.main([*LEARN, "--mode", "multitpl", "--num_templates", "2"])
    templates = template_files.load_templates("bird", "multitpl")
    assert templates.shape == (2, 962, 3)
    assert not torch.equal(templates[0], templates[1])


@pytest.mark.slow
def test_the_body_is_learned_from_its_silhouettes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learning, "STARTING_SHAPES", ((0.3, 0.3, 1.0), (0.45, 1.0, 0.4)))
    masks, _ = seen_from_around(50)
    terms = partial(make_term, "raster", size=64)
    learned = learning.learn(Evidence(masks, None, PRIOR), 1, tmp_path, 1, terms)
    start = alternation.normalize(SphereMesh().vertices[None] * torch.tensor([0.45, 1.0, 0.4]))
    front = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    found = min(distance(learned.templates[0] * sign) for sign in front)
    assert learned.start == 1
    assert learned.overlap > 0.93
    assert found < 0.6 * min(distance(start[0] * sign) for sign in front)


def test_a_collection_that_is_too_small_is_refused(collection: None):
    masks, _ = seen_from_around(12)
    with pytest.raises(UserError, match="12 usable masks are too few"):
        stage.check(Evidence(masks, None, PRIOR), "toy")


def test_one_view_is_refused():
    masks = seen_from_around(1)[0].expand(30, -1, -1)
    with pytest.raises(UserError, match="one view of the objects"):
        stage.check(Evidence(masks, None, PRIOR), "toy")


def test_empty_masks_and_those_of_several_objects_are_left_out(caplog: pytest.LogCaptureFixture):
    masks, _ = seen_from_around(25)
    masks[3] = 0
    masks[4] = torch.cat([masks[5, ::2], masks[6, ::2]])  # one above the other
    with caplog.at_level(logging.WARNING):
        left = stage.check(Evidence(masks, None, PRIOR), "toy")
    assert len(left.masks) == 23
    assert "2 masks are empty or show several objects" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "singletpl", "--num_templates", "3"], "--mode multitpl"),
        (["--mode", "singletpl", "--up", "x"], "lie on x"),
        (["--mode", "singletpl", "--classes", "car"], "these show bird"),
    ],
)
def test_wrong_options_are_told_in_a_line(
    collection: None, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises((UserError, SystemExit)) as error:
        remesh.main([*LEARN, *options])
    assert message in str(error.value) + capsys.readouterr().err


def test_options_of_learning_need_photographs(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        remesh.main(["--mode", "multitpl", "--num_templates", "3"])
    assert "--from_photographs" in capsys.readouterr().err


def test_a_way_to_compare_silhouettes_needs_photographs(capsys: pytest.CaptureFixture[str]):
    for options in (["--silhouette", "cover"], ["--point_grid", "32"]):
        with pytest.raises(SystemExit):
            remesh.main(["--mode", "singletpl", *options])
        assert options[0] in capsys.readouterr().err


def test_named_views_widen():
    spreads = [VIEWS[name].tilts()[1] for name in ("vehicle", "standing", "flying", "any")]
    assert spreads == sorted(spreads)
