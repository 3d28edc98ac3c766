"""Tests of the network from an image to points and poses."""

import pytest
import torch

from geometry import quaternion
from models.point_clouds import SECTORS, PointCloudNetwork, UprightNetwork


@pytest.fixture(scope="module")
def network() -> PointCloudNetwork:
    torch.manual_seed(0)
    return PointCloudNetwork(16, 200, 4, 0.25)


def test_points_and_poses_are_within_their_ranges(network):
    code = network.encode(torch.randn(3, 4, 16, 16))
    points, scale = network.decode(code)
    assert points.shape == (3, 200, 3)
    assert points.abs().max() < 0.5
    assert ((scale > 0) & (scale < 1)).all()
    for rotation in (network.propose(code), network.estimate_pose(code)):
        assert torch.allclose(rotation.norm(dim=-1), torch.ones(()), atol=1e-5)
    assert network.propose(code).shape == (3, 4, 4)


def test_candidates_begin_around_the_object(network):
    azimuth, elevation, _ = quaternion.to_view(network.starts)
    assert torch.allclose(azimuth, torch.tensor([45.0, 135, 225, 315]), atol=1e-3)
    assert torch.allclose(elevation, torch.zeros(4), atol=1e-3)
    # What an image adds at first turns them by less than what lies between two
    proposed = network.propose(network.encode(torch.randn(2, 4, 16, 16)))
    assert quaternion.angle_between(proposed, network.starts).max() < 45


def test_the_first_points_are_a_ball_that_hardly_depends_on_the_image(network):
    first, second = network.decode(network.encode(torch.randn(2, 4, 16, 16))).points
    assert 0.05 < first.std() < 0.25
    assert first.mean(0).abs().max() < 0.05
    assert (first - second).abs().mean() < 0.3 * first.std()


def test_the_paper_size_is_that_of_its_layers():
    network = PointCloudNetwork(128, 8000, 4)
    sizes = {name: tuple(p.shape) for name, p in network.named_parameters() if "weight" in name}
    strided = [m for m in network.convolutions if getattr(m, "stride", None) == (2, 2)]
    assert len(strided) == 5
    assert sizes["shape_code.0.weight"] == (1024, 256)
    assert sizes["points.weight"] == (24000, 1024)
    assert sizes["ensemble.0.weight"] == (128, 1024)


@pytest.mark.parametrize("size", [4, 24, 100])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="4 times a power of 2"):
        PointCloudNetwork(size, 100, 4, 0.25)


@pytest.fixture(scope="module")
def upright() -> UprightNetwork:
    torch.manual_seed(0)
    return UprightNetwork(16, 200, 0.25)


def test_upright_points_come_in_pairs_of_mirror_images(upright):
    code = upright.encode(torch.randn(3, 4, 16, 16))
    first, second = upright.decode(code).points.chunk(2, dim=1)
    assert first.shape == (3, 100, 3)
    assert torch.equal(first[..., 0], -second[..., 0])
    assert torch.equal(first[..., 1:], second[..., 1:])


def test_upright_poses_have_no_roll_and_the_azimuths_of_their_sectors(upright):
    logits, rotation = upright.poses(upright.encode(torch.randn(2, 4, 16, 16)))
    assert logits.shape == (2, SECTORS)
    azimuth, elevation, roll = quaternion.to_view(rotation)
    assert roll.abs().max() < 1e-2
    away = (azimuth - torch.arange(SECTORS) * (360 / SECTORS) + 180) % 360 - 180
    assert away.abs().max() < 2 * 360 / SECTORS
    assert (elevation - 10).abs().max() < 30


@torch.no_grad()
def test_the_likeliest_sector_of_both_images_is_the_estimate(upright):
    image = torch.randn(4, 4, 16, 16)
    own, other = upright.encode(image), upright.encode(image.flip(-1))
    (logits, rotation), (others, flipped) = upright.poses(own), upright.poses(other)
    for i, found in enumerate(upright(image)[1]):
        # The sector of azimuth a is that of 180 - a in the mirror image
        said = [float(logits[i, k] + others[i, (12 - k) % 24]) for k in range(SECTORS)]
        best = said.index(max(said))
        pair = rotation[i, best], quaternion.mirror(flipped[i, (12 - best) % 24])
        halves = [quaternion.squared_distance(found, q).item() for q in pair]
        assert halves[0] == pytest.approx(halves[1], abs=1e-6)
        assert halves[0] < quaternion.squared_distance(*pair) + 1e-6


def test_mirrored_images_get_mirrored_poses(upright):
    image = torch.randn(4, 4, 16, 16)
    found, other = upright(image)[1], upright(image.flip(-1))[1]
    assert quaternion.squared_distance(found, quaternion.mirror(other)).abs().max() < 1e-6


def test_all_objects_begin_as_given_points(upright):
    points = torch.rand(40, 3) * 0.8 - 0.4
    upright.start_from(points)
    with torch.no_grad():
        upright.points.weight.zero_()
        found = upright.decode(upright.encode(torch.randn(2, 4, 16, 16))).points
    expected = points[torch.arange(100) % 40]
    assert torch.allclose(found[:, :100], expected.expand(2, -1, -1), atol=1e-5)


@pytest.mark.parametrize("size", [4, 24, 100])
def test_other_sizes_are_refused_upright(size):
    with pytest.raises(ValueError, match="4 times a power of 2"):
        UprightNetwork(size, 100, 0.25)
