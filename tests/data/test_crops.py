"""Crops and part maps: the published loader's numbers, coordinates, and the cache."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data import crops, prepare
from data.crops import (
    Box,
    ObjectImages,
    from_pixels,
    object_image,
    part_labels,
    part_scores,
    part_vocabulary,
    square_box,
    to_pixels,
)
from data.detections import Detection, Detections, Part, load_detections
from data.run_lengths import encode_mask
from utils.cli import UserError


@pytest.fixture
def golden(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns the oracle's arrays and the record they were made from."""
    monkeypatch.chdir(tmp_path)
    arrays = np.load(shared / "reference" / "golden" / "dataset_item.npz")
    Image.fromarray(arrays["image"]).save("photo.png")
    parts = [("head", 0.7, 1.0), ("leg", 0.5, 1.0), ("ear", 0.6, 1.0), ("horn", 0.9, 0.1)]
    record = Detection(
        id=0,
        image_path="photo.png",
        height=60,
        width=90,
        bbox=(14.3, 4.6, 85.7, 45.8),
        score=1.0,
        mask=encode_mask(arrays["mask_object"]),
        parts=tuple(
            Part(name, score, (0, 0, 1, 1), encode_mask(arrays[f"mask_{name}"]), frequency)
            if name != "horn"
            else Part(name, score, (0, 0, 1, 1), encode_mask(arrays["mask_object"]), frequency)
            for name, score, frequency in parts
        ),
    )
    return arrays, Detections("toy", "sheep", (record,))


def test_boxes_are_those_of_the_published_loader(golden):
    arrays, _ = golden
    for bbox, (x1, y1, x2, y2) in zip(arrays["bbox_in"], arrays["bbox_square"], strict=True):
        side = x2 - x1 + 1
        assert square_box(tuple(bbox)) == (x1, y1, side)
        assert side == y2 - y1 + 1


def test_crops_are_those_of_the_published_loader(golden):
    arrays, detections = golden
    for size, name in ((48, "soft_img"), (20, "soft_img20")):
        image = object_image(detections[0], size)
        np.testing.assert_allclose(image, arrays[name], rtol=0, atol=2e-7)


@pytest.mark.parametrize(("parts", "name"), [("scores", "soft_seg"), ("argmax", "argmax_seg")])
def test_part_maps_are_those_of_the_published_loader(parts, name, golden):
    arrays, detections = golden
    assert part_vocabulary(detections) == ["ear", "head", "leg"]  # horns are too rare
    item = ObjectImages(detections, 48, parts=parts)[0]
    np.testing.assert_allclose(item.parts, arrays[name], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(item.image[:3], arrays["soft_img"][:3], atol=2.1 / 255)
    np.testing.assert_allclose(item.image[3:], arrays["soft_img"][3:], atol=0.5 / 255 + 1e-6)


def test_part_maps_of_a_whole_crop_add_up_to_one(golden):
    _, detections = golden
    names, box = part_vocabulary(detections), square_box(detections[0].bbox)
    for paint in (part_scores, part_labels):
        maps = paint(detections[0], names, box)
        assert maps.shape == (5, box.side, box.side)
        np.testing.assert_allclose(maps.sum(axis=0), 1, atol=1e-6)


def test_every_part_name_can_replace_the_bare_object():
    mask = encode_mask(np.ones((4, 4), bool))
    wing = Part("wing", 1.0, (0, 0, 3, 3), mask, 1.0)  # the lowest priority of all
    record = Detection(0, "x", 4, 4, (0, 0, 3, 3), 1.0, mask, (wing,))
    assert (part_labels(record, ["wing"], Box(0, 0, 4))[2] == 1).all()


def test_pixels_and_screen_are_inverse_and_the_top_left_corner_is_minus_one_one():
    box = Box(-3, 7, 50)
    points = torch.rand(20, 2, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(from_pixels(to_pixels(points, box), box), points)
    corner = from_pixels(torch.tensor([[-3.0, 7.0], [47.0, 57.0]]), box)
    assert corner.tolist() == [[-1, 1], [1, -1]]


def test_a_full_cache_reads_the_other_crops_again(collection: Path, monkeypatch):
    prepare.main(["--dataset", "toy", "--category", "bird"])
    detections = load_detections("toy")
    cached = ObjectImages(detections, 16, parts="argmax", cache_bytes=2 * 4 * 16**2 + 5)
    plain = ObjectImages(detections, 16, parts="argmax")
    assert (cached.capacity, plain.capacity) == (2, 0)
    read, counts = crops.read_photograph, []
    monkeypatch.setattr(crops, "read_photograph", lambda path: counts.append(path) or read(path))
    first = [cached[i] for i in (2, 0, 1)]
    again = [cached[i] for i in (2, 0, 1)]
    assert len(counts) == 3 + 1
    for one, two, i in zip(first, again, (2, 0, 1), strict=True):
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.image, plain[i].image)
        assert torch.equal(one.parts, plain[i].parts)


def test_cache_changes_nothing_and_batches_collate(collection: Path):
    prepare.main(["--dataset", "toy", "--category", "bird"])
    detections = load_detections("toy")
    cached = ObjectImages(detections, 16, rows=[2, 0], parts="argmax", cache_bytes=2**20)
    plain = ObjectImages(detections, 16, rows=[2, 0], parts="argmax")
    batches = [next(iter(DataLoader(data, batch_size=2))) for data in (cached, plain, cached)]
    for batch in batches[1:]:
        assert torch.equal(batch.image, batches[0].image)
        assert torch.equal(batch.parts, batches[0].parts)
    assert batches[0].image.shape == (2, 4, 16, 16)
    assert batches[0].parts.shape == (2, 4, 16, 16)
    assert batches[0].index.tolist() == [0, 1]
    assert cached.box(0) == square_box(detections[2].bbox)
    assert ObjectImages(detections, 16)[1].parts.shape == (0, 16, 16)
    with pytest.raises(IndexError):
        cached[2]


def test_damaged_or_exchanged_photographs_are_named(collection: Path):
    prepare.main(["--dataset", "toy", "--category", "bird"])
    images = ObjectImages(load_detections("toy"), 16)
    path = collection / "images" / "1.png"
    Image.new("RGB", (61, 40)).save(path)
    with pytest.raises(UserError, match=r"1\.png: expected 60 x 40 pixels .* got 61 x 40"):
        images[1]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"datasets/toy/images/1\.png cannot be read"):
        images[1]
    path.unlink()
    with pytest.raises(UserError, match=r"datasets/toy/images/1\.png does not exist"):
        images[1]
