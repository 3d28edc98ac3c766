"""Colors and features as evidence for poses."""

import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import project
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.evidence import appearance
from pipeline.poses.evidence.appearance import Source, densities
from pipeline.poses.evidence.pictures import ColorPicture
from pipeline.poses.evidence.textures import Textures, from_bytes, surface_cells, to_textures
from pipeline.poses.semantic_template import splat
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world


def source(paintings: Textures) -> Source:
    """Returns textures that are held in memory."""
    return Source(lambda rows: paintings.select(torch.tensor(rows)), ColorPicture().likeness)


def density(paintings: Textures, score: Tensor) -> Tensor:
    """Returns the density (N, H) of one kind of texture."""
    return densities([source(paintings)], score)[:, 0]


def expected(paintings: Textures, score: Tensor, image: int) -> Tensor:
    """Returns the expected values (H, C, 3) of an image."""
    own = paintings.select(torch.tensor(image))
    bank = appearance.choose_bank(source(paintings), score, 1.0)
    return appearance.expected_values(own, image, bank)


def textures(count: int) -> Textures:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(count, 12, 3, generator=generator) * 2 - 1
    return Textures(values, (torch.rand(count, 12, generator=generator) > 0.4).float())


def test_distances_equal_a_loop_over_pairs() -> None:
    some = textures(5)
    found = appearance.squared_distances(
        appearance.moments(some.select(torch.arange(3))), appearance.moments(some), 0.4
    )
    for a in range(3):
        for b in range(5):
            common = some.weights[a] * some.weights[b]
            total = (common * (some.values[a] - some.values[b]).square().sum(dim=1)).sum()
            total = total + appearance.EXPECTED_CELLS * 0.4
            expected = total / (common.sum() + appearance.EXPECTED_CELLS)
            torch.testing.assert_close(found[a, b], expected.double())


def test_mirrored_vertices_share_a_cell() -> None:
    mesh = SphereMesh()
    cells = surface_cells(mesh)
    assert torch.equal(cells[mesh.negative], cells[mesh.positive])
    assert torch.bincount(cells).max() <= 9


def test_painting_finds_the_colors_of_the_surface() -> None:
    mesh = SphereMesh()
    pose = pose_world.poses([30.0], [10.0])
    color = torch.stack([mesh.vertices[:, 1], mesh.vertices[:, 2], torch.ones(962)], dim=1)
    screen = project(pose_world.body()[None], pose)
    raster = rasterize(screen, mesh.faces, 64, attributes=color[None], soft=False)
    assert raster.attributes is not None
    sums = splat(screen, mesh.faces, torch.cat([raster.attributes, raster.coverage], dim=1))
    cells = surface_cells(mesh)
    found = to_textures(sums, cells)
    count = torch.bincount(cells)[:, None]
    expected = torch.zeros(len(count), 3).index_add_(0, cells, color) / count
    seen = found.weights[0] == 1
    assert seen.sum() > 40
    assert (found.values[0] - expected)[seen].abs().max() < 0.25


def world() -> tuple[Textures, torch.Tensor]:
    """Twelve images of two colorings; the first candidate is right, the second turned round.

    Every second image has evidence for the right one.
    """
    generator = torch.Generator().manual_seed(5)
    kinds = torch.rand(2, 12, 3, generator=generator) * 2 - 1
    right = kinds.repeat(6, 1, 1) + 0.05 * torch.randn(12, 12, 3, generator=generator)
    values = torch.stack([right, right.flip(1)], dim=1)
    evidence = torch.zeros(12, 2)
    evidence[[0, 1, 4, 5, 8, 9], 0] = 3.0
    return Textures(values.clamp(-1, 1), torch.ones(12, 2, 12)), evidence


def test_sure_images_tell_how_the_others_are_turned() -> None:
    paintings, evidence = world()
    found = density(paintings, evidence)
    assert (found[:, 0] > found[:, 1] + 2).all()


def test_colors_that_occur_only_once_say_nothing() -> None:
    paintings, evidence = world()
    generator = torch.Generator().manual_seed(8)
    odd = torch.rand(12, 2, 12, 3, generator=generator) * 8 - 4
    found = density(Textures(odd, paintings.weights), evidence)
    assert (found[:, 0] - found[:, 1]).abs().max() < 0.01


def test_the_order_of_the_images_does_not_matter() -> None:
    paintings, evidence = world()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    found = density(paintings, evidence)
    shuffled = density(paintings.select(order), evidence[order])
    torch.testing.assert_close(shuffled, found[order], atol=1e-3, rtol=0)


def test_expected_colors_are_those_of_similar_images() -> None:
    paintings, evidence = world()
    evidence[:, 0] += 5
    for image in range(12):
        found = expected(paintings, evidence, image)[0]
        assert (found - paintings.values[image, 0]).abs().mean() < 0.1


def test_duplicated_candidates_without_weight_change_nothing() -> None:
    paintings, evidence = world()
    doubled = paintings.select((torch.arange(12)[:, None], torch.tensor([0, 1, 0])))
    score = torch.cat([evidence, torch.full((12, 1), -torch.inf)], dim=1)
    torch.testing.assert_close(density(doubled, score)[:, :2], density(paintings, evidence))


def test_densities_of_two_kinds_add_up_by_weight() -> None:
    paintings, evidence = world()
    halves = [source(paintings)._replace(weight=0.5)] * 2
    alone, both = densities([source(paintings)], evidence), densities(halves, evidence)
    torch.testing.assert_close(both[:, 0], both[:, 1])
    torch.testing.assert_close(appearance.together(both, halves), alone[:, 0])


def test_features_tell_what_colors_cannot() -> None:
    """Colors are drawn without meaning; features are alike in the right candidates."""
    features, evidence = world()
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(12, 1, 12, 3, generator=generator) * 2 - 1
    colors = Textures(values.expand(-1, 2, -1, -1), torch.ones(12, 2, 12))
    sides = torch.zeros(12, 2, 3)
    found = appearance.judge([source(colors), source(features)], evidence, sides)
    assert found.speaks.all()
    assert (found.value[:, 0] > found.value[:, 1] + 0.5).all()


def two_sides() -> tuple[Textures, Tensor, Tensor]:
    """Twenty-four images of an object, half of them from one side and half from another one.

    What the wrong candidates, which come second and are preferred, paint is turned round: they
    agree with each other as well as the right ones do, but not with those that show the other side.
    """
    generator = torch.Generator().manual_seed(4)
    kind = torch.rand(40, 3, generator=generator) * 2 - 1
    weights, cells = torch.zeros(24, 2, 40), torch.arange(40)
    weights[:12, :, :30] = weights[12:, :, 10:] = 1
    right = kind + 0.02 * torch.randn(24, 40, 3, generator=generator)
    # The cells that are seen, in the opposite order
    wrong = torch.cat([right[:12, (29 - cells) % 40], right[12:, (49 - cells) % 40]])
    values = torch.stack([right, wrong], dim=1).clamp(-1, 1) * weights[..., None]
    azimuths = torch.tensor([0.0, 60.0]).repeat_interleave(12)[:, None].expand(-1, 2)
    sides = appearance.sides_of(quaternion.from_view(azimuths, 0 * azimuths, 0 * azimuths))
    return Textures(values, weights), torch.tensor([0.0, 2.2]), sides


def test_images_from_other_sides_tell_what_all_from_one_side_have_wrong() -> None:
    paintings, preferred, sides = two_sides()
    score = preferred.expand(24, 2)
    assert ((score + density(paintings, score)).argmax(dim=1) == 1).all()
    found = densities([source(paintings)], score, sides)[:, 0]
    assert ((score + found).argmax(dim=1) == 0).all()


def test_left_and_right_are_the_same_side() -> None:
    rotation = quaternion.from_view(*torch.tensor([[30.0, 200.0], [10.0, -40.0], [5.0, 70.0]]))
    found = appearance.sides_of(rotation)
    torch.testing.assert_close(appearance.sides_of(quaternion.mirror(rotation)), found)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2))
    # Seen level from ahead, the viewer looks along y, to the back
    ahead = quaternion.from_view(*torch.tensor([90.0, 0.0, 0.0]))
    torch.testing.assert_close(
        appearance.sides_of(ahead), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0
    )


def test_the_density_elsewhere_equals_a_loop_over_the_bank() -> None:
    paintings, preferred, sides = two_sides()
    bank = appearance.choose_bank(source(paintings), preferred.expand(24, 2), 0.5)
    kernel = appearance.kernels(paintings.select(torch.tensor(3)), 3, bank)
    found = appearance.elsewhere(kernel, 3, bank, sides)
    for r in range(2):
        support = total = 0.0
        for m, (image, candidate) in enumerate(zip(bank.image, bank.candidate, strict=True)):
            if image == 3:
                continue
            angle = torch.arccos((sides[3, r] @ sides[image, candidate]).clamp(max=1))
            other = 1 - torch.exp((angle.cos() - 1) / torch.deg2rad(torch.tensor(30.0)) ** 2)
            support += (other + appearance.LEAST_ELSEWHERE) * kernel[r, m]
            total += other * bank.probability[m]
        total = total / bank.probability[bank.image != 3].sum() + appearance.LEAST_ELSEWHERE
        assert abs(found[r] - support / total) < 1e-6


def test_textures_on_disk_are_those_in_memory_to_half_a_level() -> None:
    some = textures(4)
    found = from_bytes(some.to_bytes())
    seen = some.weights[..., None] > 0
    assert ((found.values - some.values) * seen).abs().max() <= 1 / 255 + 1e-6
    assert (found.weights - some.weights).abs().max() <= 0.5 / 255 + 1e-6
    assert (found.values * ~seen == 0).all()


def test_confusable_directions_differ_in_color() -> None:
    """Front and back of a painted body cannot be told by its outline, but by what is painted."""
    mesh = SphereMesh()
    cells = surface_cells(mesh)
    pose = pose_world.poses([60.0, 75.0, 50.0], [5.0, 0.0, 10.0])
    screen = project(pose_world.body().expand(3, -1, -1), pose)
    color = mesh.vertices[:, 1:2].sign() * torch.tensor([1.0, 0.5, -0.5])
    raster = rasterize(screen, mesh.faces, 48, attributes=color.expand(3, -1, -1), soft=False)
    assert raster.attributes is not None
    picture = torch.cat([raster.attributes, raster.coverage], dim=1)
    turned = pose._replace(rotation=quaternion.complementary(pose.rotation))
    other = project(pose_world.body().expand(3, -1, -1), turned)
    true, wrong = (
        appearance.moments(to_textures(splat(s, mesh.faces, picture), cells))
        for s in (screen, other)
    )
    same = appearance.squared_distances(true, true, 0.35)
    other = appearance.squared_distances(wrong, true, 0.35)
    assert (same.fill_diagonal_(0) < other).all()
