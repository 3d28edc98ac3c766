"""The three silhouette terms: one interface, the same silhouettes, gradients that lead to the mask."""

import math

import pytest
import torch

from geometry.distances import hard_iou
from geometry.sphere_mesh import SphereMesh
from rendering.projection.losses import shrink
from rendering.projection.surface import draw, place
from rendering.projection.terms import KINDS, Moment, expected, make_term
from rendering.projection.volume import occupancy, silhouette
from rendering.rasterizer import rasterize, silhouette_loss

LATE = Moment(step=9, progress=1.0)


def ball(radius: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    sphere = SphereMesh()
    return radius * sphere.vertices[None], sphere.faces


def disk(radius: float = 0.7, size: int = 128) -> torch.Tensor:
    """Returns the rendered silhouette (1, h, h) of a ball."""
    vertices, faces = ball(radius)
    return rasterize(vertices, faces, size, soft=False).coverage[:, 0]


def compare(kind: str, vertices: torch.Tensor, targets: torch.Tensor, moment: Moment = LATE):
    term = make_term(kind, ball()[0], ball()[1], 32, seed=0)
    index = torch.zeros(len(vertices), dtype=torch.long)
    return term(vertices, index, targets, index, moment)


def test_points_inside_a_ball_show_what_the_rasterizer_does():
    # Even in the ball: directions of a sphere, and cube roots of radii
    generator = torch.Generator().manual_seed(0)
    vertices, faces = ball(1.0)
    shell = place(draw(vertices, faces, 20000, generator), vertices, torch.tensor([0]))
    points = 0.7 * shell * torch.rand(1, 20000, 1, generator=generator) ** (1 / 3)
    seen = silhouette(occupancy(points, 64, 0.2, 0.2))
    assert hard_iou(seen, shrink(disk(), 64)).item() > 0.95


@pytest.mark.slow
def test_points_on_a_sphere_show_what_the_rasterizer_does():
    # The rim is dense, so that it reaches a cell further: fine cells are needed
    vertices, faces = ball()
    draws = draw(vertices, faces, 64000, torch.Generator().manual_seed(0))
    seen = silhouette(occupancy(place(draws, vertices, torch.tensor([0])), 128, 0.2, 0.3))
    assert hard_iou(seen, disk()).item() > 0.95


def test_the_term_by_rendering_is_the_loss_of_the_rasterizer():
    vertices, faces = ball(0.6)
    found = compare("raster", vertices, disk(), Moment(3, 0.3, sharpness=9000.0))
    index = torch.zeros(1, dtype=torch.long)
    wanted = silhouette_loss(vertices, faces, disk(), index, sharpness=9000.0)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_size_has_the_least_error(kind):
    sizes = torch.linspace(0.4, 1.0, 13)
    vertices = torch.cat([ball(size)[0] for size in sizes.tolist()])
    errors, overlaps = compare(kind, vertices, disk())
    assert sizes[errors.argmin()].item() == pytest.approx(0.7, abs=0.051)
    assert sizes[overlaps.argmax()].item() == pytest.approx(0.7, abs=0.051)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_gradients_lead_to_the_mask(kind, progress):
    # Up and to the left of it
    vertices, _ = ball()
    moved = (vertices + torch.tensor([-0.2, 0.1, 0.0])).requires_grad_()
    error, _ = compare(kind, moved, disk(), Moment(2, progress))
    (gradient,) = torch.autograd.grad(error.sum(), moved)
    assert gradient[..., 0].sum() < 0 < gradient[..., 1].sum()


def test_gradients_of_the_volume_reach_position_and_size_as_finite_differences():
    vertices, faces = ball()
    vertices, targets = vertices.double(), disk(0.6, 32).double()
    term, index = make_term("volume", vertices, faces, 16, seed=0), torch.zeros(1).long()

    def error(shift: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        screen = size * vertices + torch.cat([shift, shift.new_zeros(1)])
        return term(screen, index, targets, index, Moment(1, 0.3))[0]

    shift = torch.tensor([0.11, -0.07], dtype=torch.float64, requires_grad=True)
    size = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(error, (shift, size), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_mesh_is_compared_with_its_own_mask(kind):
    targets = torch.cat([disk(0.5), disk(0.8)])
    vertices = torch.cat([ball(size)[0] for size in (0.8, 0.5, 0.7, 0.8, 0.6)])
    term = make_term(kind, *ball(), 32, seed=0)
    shape, index = torch.zeros(5, dtype=torch.long), torch.tensor([1, 0, 1, 0, 0])
    together = term(vertices, shape, targets, index, LATE)
    for i in range(5):
        mask = targets[index[i], None]
        alone = term(vertices[i, None], shape[:1], mask, shape[:1], LATE)
        torch.testing.assert_close(together[0][i], alone[0][0], rtol=1e-5, atol=1e-7)
        assert together[1][i].item() == alone[1][0].item()
    assert together[0].argmin() in (0, 1)


@pytest.mark.parametrize("kind", ["volume", "cover"])
def test_meshes_behind_each_other_or_deep_are_seen(kind):
    vertices, _ = ball()
    deep = vertices * torch.tensor([1.0, 1.0, 4.0]) + torch.tensor([0.0, 0.0, 5.0])
    errors = [compare(kind, shape, disk())[0].item() for shape in (vertices, deep)]
    assert errors[0] == pytest.approx(errors[1], rel=0.2)


@pytest.mark.parametrize("kind", ["volume", "cover"])
def test_a_step_has_the_same_points_in_every_run(kind):
    first, again = (compare(kind, ball(0.6)[0], disk(), Moment(4, 0.4))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_an_empty_mask_has_an_error():
    for kind in KINDS:
        error, overlap = compare(kind, ball()[0], torch.zeros(1, 64, 64))
        assert error.isfinite().all()
        assert overlap.item() == 0


def test_expected_silhouettes_are_full_inside_and_fade_where_points_do():
    mask = torch.zeros(1, 32, 32, dtype=torch.float64)
    mask[:, :, :16] = 1
    row = expected(mask, 0.2)[0, 16]
    assert row[5].item() == pytest.approx(1 - math.exp(-3))
    # An eighth of the triangle of a pixel at the edge reaches into its neighbor
    assert row[16].item() == pytest.approx(1 - math.exp(-3 / 8), abs=1e-4)
    assert row[18].item() == pytest.approx(0, abs=1e-9)
