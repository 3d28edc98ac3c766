"""Maps on the sphere, texture lookup, textured rendering and its inverse."""

from typing import Any

import numpy as np
import pytest
import torch

from geometry import quaternion
from geometry.camera import Pose, project
from geometry.uv_maps import average_poles, circular_pad, half_map, mirror_map, symmetric_extension
from rendering.backends import composed, numba_cpu
from rendering.inverse import unwrap, visibility
from rendering.texture import render_textured, render_vertex_colors, sample_texture
from tests.oracles import golden_pose, wave


def lookup(texture: torch.Tensor, u: float, v: float) -> float:
    return sample_texture(texture, torch.tensor([u, v]).view(1, 2, 1, 1)).item()


def test_extension_is_even_about_both_borders_of_the_half():
    half = torch.arange(4.0).view(1, 1, 1, 4)
    assert symmetric_extension(half).flatten().tolist() == [1, 0, 0, 1, 2, 3, 3, 2]
    assert torch.equal(half_map(symmetric_extension(half)), half)


def test_symmetric_maps_do_not_change_when_mirrored():
    full = symmetric_extension(torch.rand(1, 2, 8, 4))
    assert torch.equal(mirror_map(full), full)
    other = torch.rand(1, 2, 8, 8)
    assert not torch.equal(mirror_map(other), other)
    assert torch.equal(mirror_map(mirror_map(other)), other)


def test_extension_needs_an_even_width():
    with pytest.raises(ValueError, match="even width"):
        symmetric_extension(torch.zeros(1, 1, 4, 3))


def test_poles_are_replaced_by_their_means():
    half = torch.arange(12.0).view(1, 1, 3, 4)
    averaged = average_poles(half)
    assert averaged[0, 0].tolist() == [[1.5] * 4, [4, 5, 6, 7], [9.5] * 4]


def test_lookup_and_its_gradients_equal_those_of_pytorch():
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand((2, 3, 8, 6), generator=generator)
    uv = torch.rand((2, 2, 5, 7), generator=generator)
    uv[:, :, 0, :3] = torch.tensor([0.0, 0.5, 1.0])
    coverage = (torch.rand((2, 1, 5, 7), generator=generator) > 0.3).float()
    weights = torch.rand((2, 3, 5, 7), generator=generator)
    results = []
    functions: list[Any] = [sample_texture, composed.sample_texture]
    for function in functions:
        inputs = [x.clone().requires_grad_() for x in (texture, uv)]
        image = function(*inputs, coverage)
        results.append([image, *torch.autograd.grad((image * weights).sum(), inputs)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_texel_weights_are_the_gradient_of_the_lookup():
    generator = torch.Generator().manual_seed(1)
    uv = torch.rand((2, 2, 9, 9), generator=generator)
    coverage = (torch.rand((2, 1, 9, 9), generator=generator) > 0.3).float()
    texture = torch.zeros((2, 1, 8, 8), requires_grad=True)
    colors = composed.sample_texture(texture, uv, coverage)
    (expected,) = torch.autograd.grad(colors.sum(), texture)
    for module in (composed, numba_cpu):
        weights = module.texel_weights(uv, coverage, 8)
        torch.testing.assert_close(weights, expected[:, 0], rtol=1e-4, atol=1e-5)


def test_circular_padding_continues_around_the_sphere():
    assert circular_pad(torch.arange(4.0)[None], 2).tolist() == [[2, 3, 0, 1, 2, 3, 0, 1]]


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_circular_padding_has_first_and_second_derivatives(columns: int):
    x = torch.randn((2, 3, 4), dtype=torch.float64, requires_grad=True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x: circular_pad(x, columns).sin(), (x,))


def test_texel_centers_are_half_way_in_u_and_on_the_border_in_v():
    texture = torch.arange(16.0).view(1, 1, 4, 4)
    assert lookup(texture, 0.125, 1.0) == pytest.approx(0, abs=1e-5)
    assert lookup(texture, 0.625, 1.0) == pytest.approx(2)
    assert lookup(texture, 0.125, 0.0) == pytest.approx(12)
    assert lookup(texture, 0.375, 2 / 3) == pytest.approx(5, abs=1e-5)


def test_lookup_wraps_around_in_u():
    texture = torch.arange(4.0).view(1, 1, 1, 4).expand(-1, -1, 4, -1)
    assert lookup(texture, 0.0, 0.5) == pytest.approx(1.5)
    assert lookup(texture, 1.0, 0.5) == pytest.approx(1.5)


def test_textured_renderings_are_those_of_the_reference(golden, template):
    arrays = golden("rendering")
    texture = 0.9 * wave(np.sin, 0.11, 2, 3, 64, 64)
    picture = render_textured(template, arrays["camera_vertices"], texture, 64)
    torch.testing.assert_close(picture.colors, arrays["rgb"], atol=1e-3, rtol=0)
    torch.testing.assert_close(picture.alpha, arrays["soft"], atol=1e-4, rtol=0)
    torch.testing.assert_close(picture.coverage, arrays["hard"], atol=1e-5, rtol=0)


def test_vertex_colors_are_those_of_the_reference(golden, template):
    arrays = golden("rendering")
    colors = wave(np.sin, 0.19, 2, 962, 4)
    picture = render_vertex_colors(template, arrays["camera_vertices"], colors, 64, soft=False)
    torch.testing.assert_close(picture.colors, arrays["vc"], atol=1e-4, rtol=0)
    assert picture.alpha is None


def test_gradients_of_renderings_are_those_of_the_reference(golden, template):
    arrays = golden("rendering")
    displacement = arrays["disp_map"].requires_grad_()
    texture = (0.9 * wave(np.sin, 0.11, 2, 3, 64, 64)).requires_grad_()
    screen = project(template.deform(displacement), golden_pose(arrays))
    picture = render_textured(template, screen, texture, 64)
    assert picture.alpha is not None
    colors, alpha = wave(np.sin, 0.77, 2, 3, 64, 64), wave(np.sin, 0.31, 2, 1, 64, 64)
    ((picture.colors * colors).sum() + (picture.alpha * alpha).sum()).backward()
    for tensor, key in ((displacement, "grad_disp"), (texture, "grad_tex")):
        difference = (tensor.grad - arrays[key]).norm() / arrays[key].norm()
        assert difference < 2e-3, key


def test_unwrapped_textures_are_those_of_the_reference(golden, template):
    arrays = golden("rendering")
    image = wave(np.sin, 0.05, 2, 4, 96, 96)
    texture, coverage = unwrap(image, arrays["camera_vertices"], template, 64)
    expected = arrays["inv_tex"].movedim(-1, 1)
    wrong = ((texture - expected).abs() > 1e-3).float().mean()
    assert wrong < 1e-3  # texels on the borders of triangles: the published uvs are rounded
    covered = arrays["inv_alpha"].movedim(-1, 1)
    assert (coverage - covered).abs().mean() < 1e-3


def test_visibility_is_that_of_the_reference(golden, template):
    arrays = golden("rendering")
    weights = visibility(template, arrays["camera_vertices"], 32, 256)
    expected = arrays["visibility_grad_32"][:, :1]
    assert (weights - expected).norm() / expected.norm() < 1e-3


def test_unwrapping_a_rendering_restores_the_visible_texture(template):
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    texture = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic")
    zero = torch.zeros(1)
    rotation = quaternion.from_view(zero + 30, zero + 20, zero)
    pose = Pose(torch.full((1, 1), 0.9), torch.zeros(1, 2), rotation, torch.full((1, 1), 2.0))
    screen = project(template.vertices[None], pose)
    picture = render_textured(template, screen, texture, 512, soft=False).colors
    restored, coverage = unwrap(picture, screen, template, 64)
    seen = (visibility(template, screen, 64, 512) > 4) & (coverage > 0)
    assert seen.float().mean() > 0.3
    error = (restored - texture).abs().amax(1, keepdim=True)[seen]
    assert error.median() < 0.02
    assert error.mean() < 0.03  # texels at the outline are seen in part only
