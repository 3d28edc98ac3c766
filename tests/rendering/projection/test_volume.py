"""The grid of points: where mass goes, how it is smoothed, and where rays end."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from geometry.camera import project_pinhole
from rendering.projection.volume import occupancy, silhouette, smooth, splat, terminations


def center(index: int, size: int) -> float:
    """Returns the position of the center of a cell or pixel in [-1, 1]."""
    return (2 * index + 1) / size - 1


def cloud(count: int = 50, objects: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.4 * torch.rand(objects, count, 3, generator=generator, dtype=torch.float64) - 0.7


@pytest.mark.parametrize(("depth", "row", "column"), [(1, 2, 5), (7, 0, 3), (0, 7, 0)])
def test_a_point_at_the_center_of_a_cell_lights_it_alone(depth, row, column):
    # Near is z = 1, the top row y = 1, the left column x = -1
    point = [[center(column, 8), -center(row, 8), -center(depth, 8)]]
    volume = splat(torch.tensor([point], dtype=torch.float64), 8)
    expected = torch.zeros(1, 8, 8, 8, dtype=torch.float64)
    expected[0, depth, row, column] = 1
    torch.testing.assert_close(volume, expected)


def test_a_point_between_centers_is_shared_by_distance():
    point = torch.tensor(
        [[[0.25 * center(4, 8) + 0.75 * center(5, 8), -center(1, 8), center(6, 8)]]]
    )
    row = splat(point, 8)[0, 1, 1]
    torch.testing.assert_close(row, torch.tensor([0, 0, 0, 0, 0.25, 0.75, 0, 0]))


def test_the_mass_is_the_number_of_points_inside():
    points = 3 * cloud(200)
    inside = (points.abs() <= 1).all(-1).sum(1)
    assert 0 < inside.min() < 200
    torch.testing.assert_close(splat(points, 9).sum((1, 2, 3)), inside.double())


def test_points_on_the_border_keep_their_mass():
    corners = torch.tensor([[[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, 1.0]]])
    volume = splat(corners, 4)[0]
    assert volume[0, 0, 3] == volume[3, 3, 0] == volume[0, 3, 3] == 1


@pytest.mark.parametrize(("sigma", "taps"), [(0.2, 21), (1.3, 21), (3.0, 21), (2.0, 5)])
def test_smoothing_is_that_of_scipy_along_every_axis(sigma, taps):
    volume = torch.rand(2, 12, 12, 12, dtype=torch.float64)
    expected = volume.numpy()
    for axis in (1, 2, 3):
        expected = gaussian_filter1d(
            expected, sigma, axis, mode="constant", truncate=1e9, radius=taps // 2
        )
    np.testing.assert_allclose(smooth(volume, sigma, taps).numpy(), expected, atol=1e-12)


def test_rays_end_somewhere():
    occupied = torch.rand(2, 7, 7, 7, dtype=torch.float64)
    occupied[0, 3] = 1
    occupied[1, :, 2, 2] = 0
    ends = terminations(occupied)
    assert ends.shape == (2, 8, 7, 7)
    torch.testing.assert_close(ends.sum(1), torch.ones(2, 7, 7, dtype=torch.float64))
    torch.testing.assert_close(ends[:, :-1].sum(1), silhouette(occupied))
    # An empty ray passes, a full cell stops what reaches it
    assert ends[1, 7, 2, 2] > 0.999
    assert ends[0, 4:].max() < 1e-4


def test_rays_end_as_in_a_loop_over_cells():
    occupied = 0.1 + 0.8 * torch.rand(1, 5, 2, 2, dtype=torch.float64)
    ends = terminations(occupied)
    for i in range(2):
        for j in range(2):
            free = 1.0
            for k in range(5):
                assert ends[0, k, i, j].item() == pytest.approx(occupied[0, k, i, j].item() * free)
                free *= 1 - occupied[0, k, i, j].item()
            assert ends[0, 5, i, j].item() == pytest.approx(free)


def test_a_scale_for_each_object():
    points = cloud()
    scale = torch.tensor([0.3, 2.0], dtype=torch.float64)
    both = occupancy(points, 8, 1.0, scale)
    for i in range(2):
        alone = occupancy(points[i : i + 1], 8, 1.0, scale[i].item())
        torch.testing.assert_close(both[i : i + 1], alone)
    assert both.max() <= 1


def test_gradients_agree_with_finite_differences():
    points = cloud(8).requires_grad_()
    scale = torch.tensor([0.7, 0.4], dtype=torch.float64, requires_grad=True)

    def images(points, scale):
        occupied = occupancy(points, 6, 1.1, scale)
        return silhouette(occupied), terminations(occupied)

    assert torch.autograd.gradcheck(images, (points, scale), eps=1e-7, atol=1e-5)


def test_pinhole_camera():
    # Turned by 90 degrees about the viewing axis, x becomes y (down); seen at f / d of its size
    turn = torch.tensor([[math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]])
    seen = project_pinhole(torch.tensor([[[0.4, 0.0, 0.0], [0.0, 0.0, 0.5]]]), turn)
    torch.testing.assert_close(seen[0, 0], torch.tensor([0.0, -0.75, 0.0]))
    # Away from the viewer
    torch.testing.assert_close(seen[0, 1], torch.tensor([0.0, 0.0, -1.0]))


def test_refuses_what_are_no_points():
    with pytest.raises(ValueError, match="shape"):
        splat(torch.zeros(5, 3), 8)
    with pytest.raises(FloatingPointError, match="finite"):
        splat(torch.full((1, 2, 3), math.nan), 8)
