"""Distances between meshes and masks."""

import pytest
import torch

from pipeline.poses.shapes.thin_parts import OUTLINE_POINTS, distances, make_targets

SIZE = 32  # pixels of 1 / 16


def square() -> torch.Tensor:
    """Returns a mask that covers -0.5 to 0.5 in x, 0 to 0.5 in y."""
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, 8:16, 8:24] = 1
    return mask


def test_a_vertex_is_pulled_back_to_the_mask() -> None:
    """Vertices cover the outline, and one lies .25 below the nearest pixel of the mask."""
    targets = make_targets(square())
    on = torch.nn.functional.pad(targets.outline, (0, 1))
    assert distances(on, targets).item() == pytest.approx(0, abs=1e-9)
    away = torch.tensor([[[0.03125, 0.03125 - 0.25, 0.0]]])
    found = distances(torch.cat([on, away], dim=1), targets)
    assert found.item() == pytest.approx(0.25**2 / (OUTLINE_POINTS + 1), rel=1e-4)


def test_points_of_the_outline_pull_the_nearest_vertex() -> None:
    """One vertex in the middle: the mean squared distance of the outline, and a pull to all its sides."""
    targets = make_targets(square())
    vertex = torch.tensor([[[0.2, 0.25, 0.0]]]).requires_grad_()
    error = distances(vertex, targets)
    naive = sum((p - vertex[0, 0, :2]).square().sum() for p in targets.outline[0]) / OUTLINE_POINTS
    torch.testing.assert_close(error[0], naive)
    error.sum().backward()
    assert vertex.grad is not None
    assert vertex.grad[0, 0, 0] > 0  # to the left, where most of the outline is
    assert vertex.grad[0, 0, 2] == 0


def test_an_object_too_small_to_be_seen_pulls_nothing_out_of_the_image() -> None:
    targets = make_targets(torch.zeros(1, SIZE, SIZE))
    assert torch.isfinite(distances(torch.zeros(1, 5, 3), targets)).all()
    assert not targets.distance.any()
