"""Objects are found from coarse to fine, by a head that calls red what it is asked for."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.crops import Box
from models.companions.mask_head import INPUT_SIZE
from models.layers import resize
from pipeline.reconstruction.meshes.mask_search import (
    SHARES,
    Sighting,
    find_mask,
    largest_piece,
    look,
    moved,
    squares,
)


class RedHead(nn.Module):
    """Objects are red; nothing is learned."""

    def __init__(self, sharpness: float = 20.0) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def forward(self, image: Tensor, category: Tensor) -> Tensor:
        small = resize(image, (INPUT_SIZE, INPUT_SIZE))
        return self.sharpness * (small[:, :1] - small[:, 1:2] - 0.5)


def photograph(height: int, width: int, x: float, y: float, radius: float) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A red ellipse on green: (h, w, 3) uint8, and its mask (h, w)."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    mask = np.hypot((columns - x) / radius, (rows - y) / radius * 1.5) < 1
    return np.where(mask[..., None], [220, 30, 20], [40, 150, 40]).astype(np.uint8), mask


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(
    ("height", "width", "x", "y", "radius"),
    [
        (200, 300, 150, 100, 120),  # fills its photograph
        (480, 640, 500, 120, 60),
        (1500, 900, 200, 1300, 90),  # a twentieth of the height, and shrunk
        (300, 90, 45, 60, 40),
    ],
)
def test_objects_are_found_whatever_their_size_and_place(
    height: int, width: int, x: float, y: float, radius: float
) -> None:
    pixels, truth = photograph(height, width, x, y, radius)
    mask, certainty = find_mask(RedHead().eval(), 0, pixels)  # type: ignore[arg-type]
    assert mask.shape == truth.shape
    assert overlap(mask, truth) > 0.9
    assert certainty > 0.9


def test_of_several_objects_the_largest_is_taken_alone() -> None:
    pixels, large = photograph(400, 600, 150, 200, 110)
    other, small = photograph(400, 600, 520, 330, 50)
    pixels[small] = other[small]
    mask, _ = find_mask(RedHead().eval(), 0, pixels)  # type: ignore[arg-type]
    assert overlap(mask, large) > 0.9


def test_where_nothing_is_seen_the_mask_is_empty() -> None:
    pixels, _ = photograph(200, 300, -500, 0, 10)
    mask, certainty = find_mask(RedHead().eval(), 0, pixels)  # type: ignore[arg-type]
    assert not mask.any()
    assert certainty == 0
    # A head that is sure of nothing has found nothing
    pixels, _ = photograph(200, 300, 150, 100, 80)
    mask, certainty = find_mask(RedHead(0.2).eval(), 0, pixels)  # type: ignore[arg-type]
    assert not mask.any()
    assert 0 < certainty < 0.6


@pytest.mark.parametrize(("height", "width"), [(100, 100), (333, 640), (640, 120), (1, 7)])
def test_squares_cover_the_photograph(height: int, width: int) -> None:
    for share in SHARES:
        side = max(height, width) // share
        covered = np.zeros((height, width), int)
        for box in squares(height, width):
            if box.side == side:
                top, left = max(box.y, 0), max(box.x, 0)
                covered[top : box.y + box.side, left : box.x + box.side] += 1
        assert covered.min() >= 1


def test_a_square_moves_onto_what_it_shows() -> None:
    pixels, mask = photograph(256, 256, 180, 90, 40)
    (sighting,) = look(RedHead().eval(), 0, pixels, [Box(0, 0, 256)])  # type: ignore[arg-type]
    assert sighting.area == pytest.approx(mask.sum(), rel=0.1)
    box = moved(sighting)
    assert abs(box.x + box.side / 2 - 180) < 4
    assert abs(box.y + box.side / 2 - 90) < 4
    assert box.side == pytest.approx(1.3 * 1.1 * 80, rel=0.1)


def test_a_square_never_shrinks_to_nothing() -> None:
    probability = torch.zeros(INPUT_SIZE, INPUT_SIZE)
    probability[10, 10] = 1
    assert moved(Sighting(Box(0, 0, 8), probability, 1.0, 0.1)).side == 1


def test_only_the_largest_piece_stays() -> None:
    mask = np.zeros((5, 9), bool)
    mask[1:4, 1:3] = mask[2, 5] = True
    kept = mask.copy()
    kept[2, 5] = False
    assert (largest_piece(mask) == kept).all()
    assert not largest_piece(np.zeros((3, 3), bool)).any()
