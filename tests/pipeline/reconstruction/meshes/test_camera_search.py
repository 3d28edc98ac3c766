"""The camera of one photograph: found by outline and colors; and moved by refinement."""

import pytest
import torch
from torch import Tensor

from data.cache import template_files
from data.definitions import usual_views
from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.meshes.camera_search import (
    Appearance,
    Proposals,
    choose_camera,
    compare,
    search_camera,
)
from pipeline.reconstruction.meshes.panel import turned
from pipeline.reconstruction.meshes.refinement import Refined, misfit, refine
from pipeline.reconstruction.pose_corrections import correct
from rendering.texture import render_textured

SIZE = 128


def car() -> Tensor:
    path = template_files.templates_path("car", "singletpl")
    return template_files.read_templates(path, "")[0].float()


def painted() -> Tensor:
    """A texture whose front is red and whose back is blue; the roof is light."""
    rows = torch.linspace(0, 1, 64)[:, None].expand(64, 64)
    texture = torch.stack([2 * rows - 1, torch.zeros_like(rows), 1 - 2 * rows])
    texture[:, :, 8:24] += 0.5
    return texture.clamp(-1, 1)


def pose_at(azimuth: float, elevation: float) -> Pose:
    angles = (torch.tensor([float(angle)]) for angle in (azimuth, elevation, 0.0))
    rotation = quaternion.from_view(*angles)
    return Pose(
        torch.full((1, 1), 0.7), torch.tensor([[0.05, -0.03]]), rotation, torch.full((1, 1), 2.0)
    )


def photograph(template: SphereMesh, vertices: Tensor, texture: Tensor, pose: Pose) -> Tensor:
    seen = render_textured(template, project(vertices[None], pose), texture[None], SIZE, soft=False)
    return torch.cat([seen.colors, seen.coverage], dim=1)[0]


@pytest.mark.parametrize(("azimuth", "elevation"), [(25, 8), (120, 12), (250, 4), (330, 15)])
def test_the_camera_of_a_rendering_is_found(
    template: SphereMesh, azimuth: float, elevation: float
) -> None:
    vertices, texture, pose = car(), painted(), pose_at(azimuth, elevation)
    image = photograph(template, vertices, texture, pose)
    found = search_camera(Appearance(template, vertices, texture, image), usual_views("car"))
    assert float(quaternion.angle_between(found.pose.rotation, pose.rotation)) < 6
    assert found.iou > 0.95
    assert found.color_error < 0.05


def test_colors_decide_between_poses_of_the_same_outline(template: SphereMesh) -> None:
    vertices, texture, pose = car(), painted(), pose_at(60.0, 0.0)
    image = photograph(template, vertices, texture, pose)
    other = pose._replace(rotation=quaternion.complementary(pose.rotation))
    for first, second in ((pose, other), (other, pose)):
        both = Pose(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
        found = choose_camera(
            Appearance(template, vertices, texture, image), both, usual_views("car")
        )
        assert float(quaternion.angle_between(found.pose.rotation, pose.rotation)) < 1e-3


def test_proposals_decide_where_colors_say_nothing(template: SphereMesh) -> None:
    vertices, texture, pose = car(), torch.zeros(3, 64, 64), pose_at(60.0, 0.0)
    seen = Appearance(template, vertices, texture, photograph(template, vertices, texture, pose))
    other = pose._replace(rotation=quaternion.complementary(pose.rotation))
    both = Pose(*(torch.cat(pair) for pair in zip(pose, other, strict=True)))
    for likely, probability in ((pose, [0.9, 0.1]), (other, [0.1, 0.9])):
        proposals = Proposals(both, torch.tensor(probability))
        found = search_camera(seen, usual_views("car"), proposals)
        assert float(quaternion.angle_between(found.pose.rotation, likely.rotation)) < 8


def test_shapes_that_are_not_right_turn_proposals_only_part_of_the_way(
    template: SphereMesh,
) -> None:
    # The car is longer than the photograph's, so that its outline fits best when turned
    vertices, texture, pose = car(), torch.zeros(3, 64, 64), pose_at(20.0, 5.0)
    image = photograph(template, vertices, texture, pose)
    longer = vertices * vertices.new_tensor([1.0, 1.5, 1.0])
    seen, views = Appearance(template, longer, texture, image), usual_views("car")
    alone = search_camera(seen, views)
    asked = search_camera(seen, views, Proposals(pose, torch.ones(1)))
    alone, asked = (
        quaternion.angle_between(x.pose.rotation, pose.rotation) for x in (alone, asked)
    )
    assert float(asked) < float(alone) - 10


def test_the_fit_does_not_depend_on_level_and_contrast_of_the_prediction(
    template: SphereMesh,
) -> None:
    vertices, texture, pose = car(), painted(), pose_at(60.0, 5.0)
    image = photograph(template, vertices, texture, pose)
    exact = compare(Appearance(template, vertices, texture, image), pose)
    dull = compare(Appearance(template, vertices, 0.3 * texture + 0.2, image), pose)
    assert float(exact.correlation) > 0.98
    assert float(dull.correlation) == pytest.approx(float(exact.correlation), abs=0.01)
    assert float(dull.color_error) > float(exact.color_error) + 0.1
    opposite = compare(Appearance(template, vertices, -texture, image), pose)
    assert float(opposite.correlation) == pytest.approx(-float(exact.correlation), abs=0.01)


def test_panels_turn_the_mesh_about_the_vertical_of_the_picture() -> None:
    vertices, pose = car(), pose_at(30.0, 20.0)
    x, y, z = turned(vertices, pose, 0.0).unbind(1)
    # Half a turn exchanges left and right, near and far; a quarter brings the near side to the right
    half, quarter = (turned(vertices, pose, angle) for angle in (180.0, 90.0))
    torch.testing.assert_close(half, torch.stack([-x, y, -z], dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(quarter, torch.stack([z, y, -x], dim=1), atol=1e-5, rtol=0)
    assert turned(3 * vertices, pose, 60.0)[:, :2].abs().max() <= 0.91


def test_refinement_returns_what_was_displaced(template: SphereMesh) -> None:
    # The truth is an ellipsoid; the start has another width, place, turn and color
    wide, narrow = (template.deform(torch.full((1, 3, 32, 32), x)) for x in (0.0, -0.1))
    pose, texture = pose_at(40.0, 10.0), painted()[None]
    image = photograph(template, wide[0], texture[0], pose)
    away = correct(pose, torch.tensor([[0.1, -0.05, 0.1, 0.05, 0.04, 0.02, 0.0]]))
    start = Refined(narrow, 0.7 * texture, away)
    found = refine(template, start, image[None], 40)
    before, after = (float(misfit(template, mesh, image[None], 8.0)) for mesh in (start, found))
    assert after < 0.4 * before
    turned = [
        float(quaternion.angle_between(p.rotation, pose.rotation)) for p in (away, found.pose)
    ]
    assert turned[1] < turned[0]
    assert (found.vertices - narrow).abs().max() < 0.3
    again = refine(template, start, image[None], 40)
    assert all(torch.equal(a, b) for a, b in zip(found.pose, again.pose, strict=True))


def test_without_steps_nothing_changes(template: SphereMesh) -> None:
    pose, texture = pose_at(40.0, 10.0), painted()[None]
    start = Refined(template.vertices[None], texture, pose)
    found = refine(template, start, torch.zeros(1, 4, 64, 64), 0)
    torch.testing.assert_close(found.vertices, start.vertices)
    assert torch.equal(found.texture, texture)
    torch.testing.assert_close(found.pose, pose)
