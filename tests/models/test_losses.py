"""Tests of the losses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geometry.operators import flatness, half_space_penalty
from geometry.sphere_mesh import SphereMesh
from models.losses import Target, gan_loss, gradient_penalty, masked_mean, scale_weights


def test_flatness_equals_the_reference(shared: Path) -> None:
    golden = np.load(shared / "reference/golden/rendering.npz")
    template = SphereMesh()
    vertices = torch.from_numpy(golden["vertex_positions"])
    loss = flatness(vertices, template.faces, template.neighbors).mean()
    torch.testing.assert_close(loss.item(), float(golden["loss_flat"]), rtol=1e-5, atol=0)
    sphere = flatness(template.vertices[None], template.faces, template.neighbors)
    torch.testing.assert_close(sphere.item(), 0.16304, rtol=1e-3, atol=0)


def test_flatness_survives_a_collapsed_mesh() -> None:
    template = SphereMesh(16)
    vertices = torch.zeros_like(template.vertices)[None].requires_grad_()
    flatness(vertices, template.faces, template.neighbors).sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()


def test_masked_mean_weighs_each_sample_alike_and_counts_an_empty_one_as_zero() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, 7.0], [9.0, 9.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1.0], [0.5, 0.0], [0.0, 0.0]])
    loss = masked_mean(values, mask)
    assert loss.item() == pytest.approx((2 + 5 + 0) / 3)
    loss.backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        ("hinge", "real", 0.5),
        ("hinge", "fake", 1.5),
        ("hinge", "generator", -0.5),
        ("ls", "real", 0.25),
        ("ls", "fake", 0.25),
        ("ls", "generator", 0.25),
        ("original", "real", 0.4740769841801067),
        ("original", "fake", 0.9740769841801067),
        ("original", "generator", 0.4740769841801067),
    ],
)
def test_gan_losses_of_a_constant_score(kind: str, target: Target, expected: float) -> None:
    outputs, masks = [torch.full((2, 1, 4, 4), 0.5)], [torch.ones(2, 1, 4, 4)]
    assert gan_loss(kind, outputs, masks, target).item() == pytest.approx(expected)


def test_gan_loss_weighs_the_discriminators() -> None:
    outputs = [torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 2, 2), 4.0)]
    masks = [torch.ones_like(o) for o in outputs]
    weights = scale_weights(512, 2)
    assert gan_loss("hinge", outputs, masks, "generator", weights).item() == pytest.approx(-2)
    assert scale_weights(512, 3) == (1, 1, 1)
    assert scale_weights(128, 2) == (1, 1)


def test_unknown_gan_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        gan_loss("w", [torch.ones(1)], [torch.ones(1)], "real")


def test_half_space_penalty_counts_only_vertices_beyond_the_mirror_plane() -> None:
    vertices = torch.tensor([[[0.5, 0, 0], [-0.2, 0, 0], [-9.0, 0, 0]]])
    penalty = half_space_penalty(vertices, torch.tensor([0, 1]))
    assert penalty.item() == pytest.approx(0.1)


def test_the_gradient_penalty_of_a_linear_discriminator_is_its_squared_weight() -> None:
    generator = torch.manual_seed(0)
    texture, mesh = (torch.rand(3, 4, generator=generator, requires_grad=True) for _ in range(2))
    first, second = torch.rand(4, generator=generator), torch.rand(2, 4, generator=generator)
    # Two discriminators, of which the second sees both inputs and has two patches, one of them hidden
    hidden = mesh @ second[1] + 7
    outputs = [(texture @ first)[:, None], torch.stack([(mesh + texture) @ second[0], hidden], 1)]
    masks = [torch.ones(3, 1), torch.tensor([[1.0, 0.0]]).expand(3, 2)]
    penalty = gradient_penalty(outputs, masks, (2.0, 1.0), [texture, mesh])
    expected = ((2 * first + second[0]) / 3).square().sum() + (second[0] / 3).square().sum()
    assert penalty.item() == pytest.approx(expected.item() / 2, rel=1e-5)


def test_the_gradient_penalty_teaches_weights() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    x = torch.rand(5, 2, requires_grad=True)
    gradient_penalty([(x @ weight)[:, None]], [torch.ones(5, 1)], (1.0,), [x]).backward()
    # Of |w|^2 / 2
    torch.testing.assert_close(weight.grad, weight.detach())
