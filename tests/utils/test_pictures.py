import numpy as np
import pytest
import torch
from PIL import Image

from utils import pictures


def test_a_saved_picture_reads_back(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    pictures.save_image(tmp_path / "a" / "b.png", pixels)
    with Image.open(tmp_path / "a" / "b.png") as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match=r"expected .* uint8"):
        pictures.save_image(tmp_path / "a.png", pixels)
    assert not (tmp_path / "a.png").exists()


def test_the_range_of_colors_maps_to_bytes():
    levels = pictures.to_uint8(torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).expand(3, 2, 5))
    assert levels.shape == (2, 5, 3)
    assert levels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_grid_places_images_row_by_row():
    cells = torch.arange(5.0)[:, None, None, None].expand(5, 3, 4, 6)
    grid = pictures.make_grid(cells, columns=3, padding=2, value=-1)
    assert grid.shape == (3, 2 * 6 + 2, 3 * 8 + 2)
    for index in range(5):
        row, column = divmod(index, 3)
        cell = grid[:, 2 + 6 * row : 6 + 6 * row, 2 + 8 * column : 8 + 8 * column]
        assert (cell == index).all()
    assert (grid == -1).sum() == 3 * (14 * 26 - 5 * 24)


def test_a_grid_is_no_wider_than_its_images():
    assert pictures.make_grid(torch.zeros(2, 1, 4, 4), columns=8, padding=0).shape == (1, 4, 8)


@pytest.mark.parametrize("count", [0, 1, 34])
def test_parts_have_different_colors(count):
    palette = pictures.part_palette(count)
    assert palette.shape == (count, 3)
    assert palette.dtype == np.uint8
    assert len({tuple(color) for color in palette}) == count


def test_text_changes_the_corner_only_and_not_its_input():
    pixels = np.full((40, 80, 3), 128, np.uint8)
    drawn = pictures.draw_text(pixels, "IoU 0.9")
    assert (pixels == 128).all()
    assert (drawn[:20] != 128).any()
    assert (drawn[30:] == 128).all()


def test_letters_that_the_font_lacks_are_replaced():
    assert pictures.drawable("Bärbel, Vo\u0308gel \u9ce5.jpg") == "Barbel, Vogel ?.jpg"
    blank = np.zeros((20, 80, 3), np.uint8)
    assert (pictures.draw_text(blank, "ö") == pictures.draw_text(blank, "o")).all()


def test_a_wireframe_shows_the_faces_that_look_at_the_viewer():
    triangle = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.9, 0.0]])
    pixels = np.zeros((64, 64, 3), np.uint8)
    toward = pictures.draw_wireframe(pixels, triangle, torch.tensor([[0, 1, 2]]))
    away = pictures.draw_wireframe(pixels, triangle, torch.tensor([[0, 2, 1]]))
    assert away.max() == 0
    assert toward[:, :, 0].argmax(axis=0)[32] < 8  # the tip is up
    assert toward[48].any()


def test_rows_of_images_stand_below_their_names():
    rows = {"first": torch.full((2, 3, 20, 90), -1.0), "second": torch.zeros(2, 3, 20, 90)}
    pixels = pictures.labeled_rows(rows, "step 3")
    assert pixels.shape == (2 * (14 + 20 + 4), 2 * 92 + 2, 3)
    names, images = pixels.reshape(2, 38, 186, 3)[:, :14], pixels.reshape(2, 38, 186, 3)[:, 14:]
    assert [(image[3:5, 10] == level).all() for image, level in zip(images, (0, 128), strict=True)]
    dark = [(strip.min(axis=2) < 100).any(axis=0).nonzero()[0].max() for strip in names]
    assert dark[0] > dark[1] > 0  # the title makes the first name longer
