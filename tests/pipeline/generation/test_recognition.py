"""Recognition of the classes of textures."""

import pytest
import torch

from pipeline.generation.originality import Textures
from pipeline.generation.recognition import class_means, share_recognized

GRAY, RED, BLUE = torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])


def plain(*colors: torch.Tensor) -> Textures:
    maps = torch.stack(colors)[:, :, None, None].expand(-1, -1, 64, 32).clone()
    return Textures(maps, torch.ones(len(colors), 1, 64, 32))


def test_means_are_of_what_each_texture_shows() -> None:
    textures = plain(RED, BLUE, GRAY)
    textures.seen[1, :, :32] = 0
    means = class_means(textures, torch.tensor([0, 0, 2]), 3)
    upper, lower = means.colors[0, :, 0, 0], means.colors[0, :, -1, 0]
    torch.testing.assert_close(upper, RED)
    torch.testing.assert_close(lower, (RED + BLUE) / 2)
    assert not means.seen[1].any()
    torch.testing.assert_close(means.colors[2], textures.colors[2])


def test_textures_belong_to_the_nearest_mean() -> None:
    means = class_means(plain(RED, BLUE, GRAY), torch.tensor([1, 0, 2]), 4)
    noise = 0.05 * torch.randn(4, 3, 64, 32, generator=torch.manual_seed(0))
    samples = plain(RED, BLUE, GRAY, GRAY)
    samples = samples._replace(colors=samples.colors + noise)
    assert share_recognized(samples, torch.tensor([1, 0, 2, 2]), means) == 1
    # A class that no photograph shows is never found
    assert share_recognized(samples, torch.tensor([1, 0, 2, 3]), means) == pytest.approx(0.75)
