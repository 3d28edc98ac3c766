"""What the loader of photographs, poses and parts returns."""

import pytest
import torch

from pipeline.reconstruction.dataset import ReconstructionData, common_parts, pinned_images


def test_common_parts_select_the_channels_of_each_category() -> None:
    names, selection = common_parts([["beak", "tail"], [], ["hoof", "tail", "wing"]])
    assert names == ["beak", "tail", "hoof", "wing"]
    assert selection.shape == (3, 4, 5)
    assert selection[2].argmax(1).tolist() == [0, 3, 2, 4]
    assert selection.sum(2).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_the_best_images_of_every_template_are_pinned() -> None:
    template = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    iou = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2, 0.1, 0.05])
    assert pinned_images(template, iou, 0.5).tolist() == [0, 1, 0, 1, 1, 0, 0]
    assert not pinned_images(template, iou, 0).any()


@pytest.mark.usefixtures("toy")
def test_part_maps_of_the_loader_are_padded_to_the_longest_list() -> None:
    data = ReconstructionData("toy", "singletpl", 32, semi_fraction=0.5, parts=True)
    item = data[0]
    assert item.parts.shape == (4, 32, 32)
    torch.testing.assert_close(item.parts.sum(0), torch.ones(32, 32), rtol=0, atol=0.02)
    assert data.source(0) == (0, 1)
    assert data.labels.pinned.tolist() == [False, False, True, True]
