"""The texture of a photographed object: exact where it is seen, seamless, and free of background."""

import torch
from torch import Tensor

from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import mirror_map
from pipeline.reconstruction.meshes.whole_texture import complete, observe, resample, whole_texture
from rendering.inverse import surface_map
from rendering.rasterizer import rasterize
from rendering.texture import render_textured

SIZE = 128
RESOLUTION = 96


def ellipsoid(template: SphereMesh, yaw: float = 0.5) -> Tensor:
    """An ellipsoid on the screen (V, 3), whose mirror plane is turned away from the view."""
    x, y, z = (template.vertices * torch.tensor([0.4, 0.7, 0.45])).unbind(1)
    c, s = torch.tensor(yaw).cos(), torch.tensor(yaw).sin()
    return torch.stack([c * y - s * x, z, s * y + c * x], dim=1)


def mask_of(screen: Tensor, template: SphereMesh) -> Tensor:
    return rasterize(screen[None], template.faces, SIZE, soft=False).coverage[0]


def pixel_centers() -> tuple[Tensor, Tensor]:
    """Screen coordinates of the pixels, y up."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    return axis.expand(SIZE, -1), -axis[:, None].expand(-1, SIZE)


def test_a_texel_has_the_color_of_the_pixel_onto_which_it_projects(template: SphereMesh) -> None:
    screen = ellipsoid(template)
    # Colors that say where a pixel is
    x, y = pixel_centers()
    crop = torch.cat([torch.stack([x, y, 0 * x]) / 2 + 0.5, mask_of(screen, template)])
    seen, weight = observe(template, crop, screen, RESOLUTION)
    where = surface_map(screen[None], template, RESOLUTION)
    sure = weight[0, 0] > 0.99
    assert sure.float().mean() > 0.15
    torch.testing.assert_close(seen[0, :2, sure], where[0, :2, sure], atol=1e-4, rtol=0)


def test_the_rendered_mesh_shows_the_photograph(template: SphereMesh) -> None:
    screen = ellipsoid(template)
    x, y = pixel_centers()
    waves = torch.stack([(9 * x).sin(), (8 * y).cos(), (5 * x * y).sin()])
    mask = mask_of(screen, template)
    crop = torch.cat([waves / 2 + 0.5, mask])
    texture = whole_texture(template, crop, screen, torch.zeros(3, 64, 64), 256)
    seen = render_textured(template, screen[None], texture[None], SIZE, soft=False)
    _, weight = observe(template, crop, screen, 256)
    trust = render_textured(template, screen[None], weight, SIZE, soft=False).colors
    middle = trust[0, 0] > 0.99
    assert middle.float().mean() > 0.15
    assert (seen.colors[0] - waves).abs()[:, middle].max() < 0.12
    assert (seen.colors[0] - waves).abs()[:, middle].mean() < 0.02


def test_no_texel_of_a_red_object_is_as_green_as_its_background(template: SphereMesh) -> None:
    screen = ellipsoid(template)
    predicted = torch.tensor([0.2, -1.0, -1.0])[:, None, None].expand(3, 64, 64)
    # The mesh is larger than the object, and the outline is blurred as in a photograph
    mask = mask_of(0.93 * screen, template)
    soft = torch.nn.functional.avg_pool2d(mask[None], 3, 1, 1)[0]
    red, green = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    colors = soft * red[:, None, None] + (1 - soft) * green[:, None, None]
    texture = whole_texture(template, torch.cat([colors, mask]), screen, predicted, 128)
    assert texture[0].min() > 0
    assert texture[1].max() < -0.97


def largest_step(texture: Tensor) -> float:
    across = (texture - texture.roll(1, -1)).abs().max()
    return max(float(across), float(texture.diff(dim=-2).abs().max()))


def test_colors_are_continuous_over_the_borders_of_what_is_seen(template: SphereMesh) -> None:
    screen = ellipsoid(template)
    # A bright object lit from the left, and a network that predicts dark grey
    x, _ = pixel_centers()
    colors = (0.7 - 0.3 * x).expand(3, -1, -1)
    crop = torch.cat([colors, mask_of(screen, template)])
    seen, weight = observe(template, crop, screen, RESOLUTION)
    fallback = torch.full_like(seen, -0.5)
    naive = torch.where(weight > 0, seen, fallback)
    naive = torch.where((weight == 0) & (mirror_map(weight) > 0), mirror_map(seen), naive)
    assert largest_step(naive) > 0.8
    assert largest_step(complete(seen, weight, fallback)) < 0.1


def test_the_mirror_image_fills_the_side_that_is_not_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(1, 3, 32, 32, generator=generator) - 0.5
    weight = torch.zeros(1, 1, 32, 32)
    weight[..., 9:23] = 1  # of the half from column 8 to 23
    texture = complete(seen, weight, torch.zeros_like(seen))
    known = weight.expand_as(seen) > 0
    assert torch.equal(texture[known], seen[known])
    assert torch.equal(
        texture[mirror_map(known.float()) > 0], mirror_map(seen)[mirror_map(known.float()) > 0]
    )


def test_the_prediction_is_shifted_to_the_colors_that_are_seen() -> None:
    seen = torch.full((1, 3, 32, 32), 0.6)
    weight = torch.zeros(1, 1, 32, 32)
    weight[..., :16, :] = 1
    pattern = 0.1 * (torch.arange(32) % 2)[:, None].expand(1, 3, 32, 32)
    texture = complete(seen, weight, pattern - 0.5)
    # Its pattern stays, its level is that of the photograph
    below = texture[..., 20:, :]
    assert below.amax() - below.amin() > 0.05
    assert (below.mean() - 0.6).abs() < 0.1


def test_what_hides_behind_the_object_itself_is_not_seen(template: SphereMesh) -> None:
    # Two bulges with a waist, seen along the axis: the second one faces the viewer, but is hidden
    x, y, z = template.vertices.unbind(1)
    wide = (
        0.25
        + 0.5 * (-((y + 0.6) / 0.25).square()).exp()
        + 0.35 * (-((y - 0.6) / 0.25).square()).exp()
    )
    screen = torch.stack([wide * x, wide * z, -0.8 * y], dim=1)
    mask = mask_of(screen, template)
    _, weight = observe(template, torch.cat([mask, mask, mask, mask]), screen, RESOLUTION)
    surface = surface_map(template.vertices[None], template, RESOLUTION)
    depth = surface[0, 1]
    assert weight[0, 0][depth < -0.8].max() > 0.9
    assert weight[0, 0][depth > 0.05].max() == 0


def test_resizing_keeps_the_rows_at_the_poles() -> None:
    rows = torch.linspace(-1, 1, 16)[:, None].expand(1, 1, 16, 16)
    resized = resample(rows, 40)
    torch.testing.assert_close(resized[0, 0, :, 3], torch.linspace(-1, 1, 40), atol=1e-5, rtol=0)


def test_surface_maps_agree_with_the_lookup_of_textures(template: SphereMesh) -> None:
    # A rendering with the positions as texture shows at every pixel where it is
    screen = ellipsoid(template)
    surface = surface_map(screen[None], template, 128)
    seen = render_textured(template, screen[None], surface, SIZE, soft=False)
    x, y = pixel_centers()
    where = torch.stack([x, y])[:, seen.coverage[0, 0] > 0]
    torch.testing.assert_close(
        seen.colors[0, :2, seen.coverage[0, 0] > 0], where, atol=8e-3, rtol=0
    )
