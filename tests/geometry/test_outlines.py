"""Distances to outlines against a loop over all pixels."""

import numpy as np
import torch

from geometry.distances import signed_distance


def test_distances_equal_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 1, 9, 7, generator=generator) > 0.6).float()
    masks[2] = 1  # beyond the image there is no object
    found = signed_distance(masks)
    for mask, distances in zip(masks[:, 0].numpy(), found[:, 0].numpy(), strict=True):
        wide = np.pad(mask, 1)
        for y in range(9):
            for x in range(7):
                other = np.argwhere(wide != mask[y, x]) - 1
                if not mask[y, x]:
                    other = np.argwhere(mask)
                nearest = np.hypot(*(other - (y, x)).T).min()
                np.testing.assert_allclose(distances[y, x], nearest * (1 - 2 * mask[y, x]))


def test_where_there_is_no_object_all_pixels_are_far():
    assert signed_distance(torch.zeros(1, 1, 4, 6)).eq(10).all()
