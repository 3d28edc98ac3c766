"""Colors as a cue for poses."""

import torch

from geometry import quaternion
from geometry.camera import project
from geometry.sphere_mesh import SphereMesh
from pipeline.poses import appearance
from pipeline.poses.appearance import Textures
from pipeline.poses.part_model import splat_parts
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world


def textures(count: int) -> Textures:
    generator = torch.Generator().manual_seed(3)
    colors = torch.rand(count, 12, 3, generator=generator) * 2 - 1
    return Textures(colors, (torch.rand(count, 12, generator=generator) > 0.4).float())


def test_distances_equal_a_loop_over_pairs() -> None:
    some = textures(5)
    found = appearance.squared_distances(some.select(torch.arange(3)), some)
    for a in range(3):
        for b in range(5):
            common = some.weights[a] * some.weights[b]
            total = (common * (some.colors[a] - some.colors[b]).square().sum(dim=1)).sum()
            total = total + appearance.EXPECTED_CELLS * appearance.EXPECTED_DISTANCE
            expected = total / (common.sum() + appearance.EXPECTED_CELLS)
            torch.testing.assert_close(found[a, b], expected)


def test_mirrored_vertices_share_a_cell() -> None:
    mesh = SphereMesh()
    cells = appearance.surface_cells(mesh)
    assert torch.equal(cells[mesh.negative], cells[mesh.positive])
    assert torch.bincount(cells).max() <= 9


def test_painting_finds_the_colors_of_the_surface() -> None:
    mesh = SphereMesh()
    pose = pose_world.poses([30.0], [10.0])
    color = torch.stack([mesh.vertices[:, 1], mesh.vertices[:, 2], torch.ones(962)], dim=1)
    screen = project(pose_world.body()[None], pose)
    raster = rasterize(screen, mesh.faces, 64, attributes=color[None], soft=False)
    assert raster.attributes is not None
    sums = splat_parts(screen, mesh.faces, torch.cat([raster.attributes, raster.coverage], dim=1))
    cells = appearance.surface_cells(mesh)
    found = appearance.to_textures(sums, cells)
    count = torch.bincount(cells)[:, None]
    expected = torch.zeros(len(count), 3).index_add_(0, cells, color) / count
    seen = found.weights[0] == 1
    assert seen.sum() > 40
    assert (found.colors[0] - expected)[seen].abs().max() < 0.25


def world() -> tuple[Textures, torch.Tensor]:
    """Twelve images of two colorings; the first candidate is right, the second turned round.

    Every second image has evidence for the right one.
    """
    generator = torch.Generator().manual_seed(5)
    kinds = torch.rand(2, 12, 3, generator=generator) * 2 - 1
    right = kinds.repeat(6, 1, 1) + 0.05 * torch.randn(12, 12, 3, generator=generator)
    colors = torch.stack([right, right.flip(1)], dim=1)
    evidence = torch.zeros(12, 2)
    evidence[[0, 1, 4, 5, 8, 9], 0] = 3.0
    return Textures(colors, torch.ones(12, 2, 12)), evidence


def test_sure_images_tell_how_the_others_are_turned() -> None:
    paintings, evidence = world()
    density = appearance.likelihood(paintings, evidence)
    assert (density[:, 0] > density[:, 1] + 2).all()


def test_colors_that_occur_only_once_say_nothing() -> None:
    paintings, evidence = world()
    generator = torch.Generator().manual_seed(8)
    odd = torch.rand(12, 2, 12, 3, generator=generator) * 8 - 4
    density = appearance.likelihood(Textures(odd, paintings.weights), evidence)
    assert (density[:, 0] - density[:, 1]).abs().max() < 0.01


def test_the_order_of_the_images_does_not_matter() -> None:
    paintings, evidence = world()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    density = appearance.likelihood(paintings, evidence)
    shuffled = appearance.likelihood(paintings.select(order), evidence[order])
    torch.testing.assert_close(shuffled, density[order], atol=1e-3, rtol=0)


def test_expected_colors_are_those_of_similar_images() -> None:
    paintings, evidence = world()
    evidence[:, 0] += 5
    expected = appearance.expected_colors(paintings, evidence)[:, 0]
    assert (expected - paintings.colors[:, 0]).abs().mean() < 0.1


def test_confusable_directions_differ_in_color() -> None:
    """Front and back of a painted body cannot be told by its outline, but by what is painted."""
    mesh = SphereMesh()
    cells = appearance.surface_cells(mesh)
    pose = pose_world.poses([60.0, 75.0, 50.0], [5.0, 0.0, 10.0])
    screen = project(pose_world.body().expand(3, -1, -1), pose)
    color = mesh.vertices[:, 1:2].sign() * torch.tensor([1.0, 0.5, -0.5])
    raster = rasterize(screen, mesh.faces, 48, attributes=color.expand(3, -1, -1), soft=False)
    assert raster.attributes is not None
    picture = torch.cat([raster.attributes, raster.coverage], dim=1)
    turned = pose._replace(rotation=quaternion.complementary(pose.rotation))
    other = project(pose_world.body().expand(3, -1, -1), turned)
    true, wrong = (
        appearance.to_textures(splat_parts(s, mesh.faces, picture), cells) for s in (screen, other)
    )
    same = appearance.squared_distances(true, true)
    assert (same.fill_diagonal_(0) < appearance.squared_distances(wrong, true)).all()
