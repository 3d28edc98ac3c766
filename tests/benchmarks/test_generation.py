"""The plain networks compute what ours do, so that only their speed differs."""

import pytest
import torch

from benchmarks import generation
from benchmarks.plain_gan import PlainDiscriminator, PlainGenerator
from models.discriminator import MultiScaleDiscriminator
from models.generator import Generator


@pytest.mark.slow
@pytest.mark.parametrize(("resolution", "scales"), [(128, 2), (512, 3)])
def test_plain_networks_equal_ours_with_the_same_weights(resolution: int, scales: int):
    torch.manual_seed(0)
    ours = Generator(resolution), MultiScaleDiscriminator(resolution, scales)
    plain = PlainGenerator(resolution), PlainDiscriminator(resolution)
    for network, copy in zip(ours, plain, strict=True):
        copy.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.nn.init.normal_(ours[0].conv_mesh.weight, std=0.1)
        plain[0].conv_mesh.weight.copy_(ours[0].conv_mesh.weight)
        # The same maps from the same codes, and the same scores of these
        code = torch.randn(2, 64)
        texture, mesh = ours[0](code)
        for actual, expected in zip((texture, mesh), plain[0](code), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
        judged = torch.cat([texture, torch.ones(2, 1, resolution, resolution)], 1)
        for actual, expected in zip(ours[1](judged, mesh)[0], plain[1](judged, mesh), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_the_ratio_is_that_of_the_medians():
    costs = {
        "plain": {"seconds": 3.0, "megabytes": 2000.0},
        "ours": {"seconds": 2.0, "megabytes": 1500.0},
    }
    assert generation.describe(128, costs).endswith("2.000 s 1500 MB, 1.50 x as fast")


def test_a_turn_leaves_the_first_cycle_out(monkeypatch: pytest.MonkeyPatch):
    times = iter([0.0, 100.0, 100.0, 101.0, 101.0, 103.0, 103.0, 106.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    seen: list[int] = []
    assert generation.measure(seen.append, 3, torch.device("cpu"))["seconds"] == 2.0
    assert seen == [0, 1, 2, 3]
