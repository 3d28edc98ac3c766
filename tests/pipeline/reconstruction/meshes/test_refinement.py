"""Meshes are improved for their photographs, and nothing crumples."""

import pytest
import torch
from torch import Tensor

from geometry import quaternion
from geometry.camera import Pose, project
from geometry.distances import hard_iou
from geometry.operators import flatness
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.meshes.refinement import Refined, change_cost, refine, smoothing
from rendering.texture import render_textured
from utils.seeding import torch_generator

SIZE = 64
SPHERE = SphereMesh()


def ellipsoid(x: float, y: float, z: float) -> Tensor:
    return SPHERE.vertices[None] * torch.tensor([x, y, z])


def view(azimuth: float) -> Pose:
    angles = (torch.tensor([angle]) for angle in (azimuth, 10.0, 0.0))
    ones = torch.ones(1, 1)
    return Pose(0.8 * ones, torch.zeros(1, 2), quaternion.from_view(*angles), 3 * ones)


def checks(cells: int) -> Tensor:
    """A symmetric texture (1, 3, 64, 64) of colored squares, whose edges pull at a mesh."""
    generator = torch_generator(cells)
    half = torch.rand(1, 3, cells, cells // 2, generator=generator) * 1.6 - 0.8
    whole = torch.cat([half.flip(-1), half], dim=-1).roll(cells // 4, dims=-1)
    return whole.repeat_interleave(64 // cells, 2).repeat_interleave(64 // cells, 3)


def photograph(vertices: Tensor, texture: Tensor, pose: Pose) -> Tensor:
    seen = render_textured(SPHERE, project(vertices, pose), texture, SIZE, soft=False)
    return torch.cat([seen.colors * seen.coverage, seen.coverage], dim=1)


def overlap(one: Tensor, other: Tensor, pose: Pose) -> float:
    """Overlap of the outlines of two meshes under a pose."""
    masks = [photograph(x, checks(8), pose)[:, 3:] for x in (one, other)]
    return float(hard_iou(masks[0], masks[1])[0, 0])


@pytest.fixture(scope="module")
def cases() -> list[tuple[float, Tensor, Refined]]:
    """Azimuth, true mesh, and the refined one; the textures are wrong as those of networks are."""
    truth, start = ellipsoid(0.5, 1.1, 0.75), ellipsoid(0.6, 0.95, 0.6)
    found = []
    for azimuth in (0.0, 50.0):
        pose = view(azimuth)
        image = photograph(truth, checks(16), pose)
        found.append((azimuth, truth, refine(SPHERE, Refined(start, 0 * checks(8), pose), image, 30)))  # fmt: skip
    return found


@pytest.mark.slow
def test_outlines_and_colors_meet_the_photograph(
    cases: list[tuple[float, Tensor, Refined]],
) -> None:
    start = ellipsoid(0.6, 0.95, 0.6)
    for azimuth, truth, mesh in cases:
        image = photograph(truth, checks(16), view(azimuth))
        drawn = photograph(mesh.vertices, mesh.texture, mesh.pose)
        before = photograph(start, 0 * checks(8), view(azimuth))
        own = float(hard_iou(drawn[:, 3:], image[:, 3:])[0, 0])
        assert own > 0.95
        assert own > 0.05 + float(hard_iou(before[:, 3:], image[:, 3:])[0, 0])
        errors = [(x[:, :3] - image[:, :3]).abs().mean() for x in (drawn, before)]
        assert errors[0] < 0.7 * errors[1]


@pytest.mark.slow
def test_what_the_photograph_does_not_show_gets_no_worse_and_does_not_crumple(
    cases: list[tuple[float, Tensor, Refined]],
) -> None:
    """Seen along its length, the front of an object says nothing about its sides."""
    start = ellipsoid(0.6, 0.95, 0.6)
    for azimuth, truth, mesh in cases:
        for turn in (60.0, 90.0, 120.0):
            other = view(azimuth + turn)
            assert overlap(mesh.vertices, truth, other) > overlap(start, truth, other) - 0.01
        # As smooth as it was: the true ellipsoid is about as flat as the first one
        bends = [float(flatness(x, SPHERE.faces, SPHERE.neighbors)) for x in (mesh.vertices, truth)]
        assert bends[0] < 1.5 * bends[1]
        # Still the mirror image of itself, to the last bit
        reflected = mesh.vertices * torch.tensor([-1.0, 1.0, 1.0])
        assert torch.equal(mesh.vertices[:, SPHERE.negative], reflected[:, SPHERE.positive])


def test_nothing_changes_without_steps() -> None:
    start = Refined(ellipsoid(0.5, 1, 0.7), checks(8), view(30.0))
    mesh = refine(SPHERE, start, photograph(*start), 0)
    torch.testing.assert_close(mesh.vertices, start.vertices)
    assert torch.equal(mesh.texture, start.texture)
    for member, same in zip(mesh.pose, start.pose, strict=True):
        torch.testing.assert_close(member, same)


def test_a_push_at_one_place_moves_its_surroundings_less_and_less() -> None:
    force = torch.zeros(len(SPHERE.vertices))
    place = int(SPHERE.positive[200])
    force[place] = 1
    moved = smoothing(SPHERE) @ force
    distance = (SPHERE.vertices[SPHERE.nonnegative] - SPHERE.vertices[place]).norm(dim=1)
    rings = [moved[(distance >= low) & (distance < low + 0.2)] for low in (0.0, 0.2, 0.4, 0.6)]
    means = [float(ring.mean()) for ring in rings]
    assert means == sorted(means, reverse=True)
    assert means[1] > 0.1 * means[0]
    # A push everywhere moves everything alike
    everywhere = smoothing(SPHERE) @ torch.ones(len(SPHERE.vertices))
    torch.testing.assert_close(everywhere, torch.ones_like(everywhere), atol=1e-4, rtol=0)


def test_rough_changes_cost_more_than_smooth_ones_of_the_same_size() -> None:
    smooth = torch.ones(1, len(SPHERE.vertices), 3) * 0.1
    signs = torch.randint(0, 2, smooth.shape, generator=torch_generator(1)) * 2 - 1
    assert float(change_cost(SPHERE, smooth)) == pytest.approx(10.0 * 3 * 0.1**2, rel=1e-4)
    assert change_cost(SPHERE, smooth * signs) > 1.5 * change_cost(SPHERE, smooth)
