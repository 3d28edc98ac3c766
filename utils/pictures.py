"""Pictures for people: files, grids, colors of parts, text and wireframes."""

import colorsys
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from utils.files import atomic_path

_LABEL_HEIGHT = 14  # pixels


def save_image(path: str | Path, pixels: np.ndarray) -> None:
    """Writes a picture atomically; the suffix chooses the format.

    Args:
        path: file to write, such as `output/grid.png`.
        pixels: (h, w, 3) RGB or (h, w, 4) RGBA, uint8.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ValueError(f"pixels: expected (h, w, 3|4) uint8, got {pixels.shape} {pixels.dtype}.")
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def to_uint8(images: Tensor) -> np.ndarray:
    """Converts (..., C, h, w) in [-1, 1] to (..., h, w, C) uint8; values outside are clipped."""
    # -1 becomes 0 and 1 becomes 255, rounded to nearest
    levels = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.movedim(-3, -1).cpu().numpy()


def make_grid(images: Tensor, columns: int, padding: int = 2, value: float = 1.0) -> Tensor:
    """Arranges images in rows of `columns`, with `padding` pixels of `value` around each.

    Args:
        images: (B, C, h, w).
        columns: images per row; the last row is filled up with `value`.
        padding: width of the lines between the images, in pixels.
        value: color of the lines and of empty cells.

    Returns:
        (C, H, W).
    """
    if images.ndim != 4:
        raise ValueError(f"images: expected shape (B, C, h, w), got {tuple(images.shape)}.")
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    # Every cell has its padding on the left and above; the last ones follow at the end
    images = F.pad(images.detach(), (padding, 0, padding, 0), value=value)
    fill = images.new_full((rows * columns - len(images), *images.shape[1:]), value)
    cells = torch.cat([images, fill])  # (rows * columns, C, h + padding, w + padding)
    cells = cells.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    return F.pad(cells.flatten(3, 4).flatten(1, 2), (0, padding, 0, padding), value=value)


def part_palette(count: int) -> np.ndarray:
    """Returns (count, 3) uint8 colors; consecutive ones differ clearly in hue."""
    colors = [
        # Steps of the golden ratio spread hues evenly for any count
        colorsys.hsv_to_rgb((i * 0.618034) % 1, (0.85, 0.55)[i // 8 % 2], (0.95, 0.7)[i // 16 % 2])
        for i in range(count)
    ]
    return np.round(np.array(colors).reshape(count, 3) * 255).astype(np.uint8)


def drawable(text: str) -> str:
    """Returns a text in the letters that Pillow's own font has: without accents, others as question marks."""
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode("ascii")


def draw_text(pixels: np.ndarray, text: str, position: tuple[int, int] = (4, 4)) -> np.ndarray:
    """Returns a copy of (h, w, 3) uint8 pixels with outlined text at (x, y) from the top left."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    draw.text(position, drawable(text), fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(image)


def labeled_rows(rows: Mapping[str, Tensor], title: str) -> np.ndarray:
    """Returns a picture of several rows of images, each below its name.

    Args:
        rows: name -> (B, 3, h, w) in [-1, 1]; all of the same shape.
        title: words before the first name.

    Returns:
        (H, W, 3) uint8.
    """
    strips = []
    for name, images in rows.items():
        grid = to_uint8(make_grid(images, len(images)))
        heading = np.full((_LABEL_HEIGHT, grid.shape[1], 3), 255, np.uint8)
        text = name if strips else f"{title}: {name}"
        strips += [draw_text(heading, text, (4, 1)), grid]
    return np.concatenate(strips)


def draw_wireframe(
    pixels: np.ndarray, vertices: Tensor, faces: Tensor, color: str = "white"
) -> np.ndarray:
    """Returns a copy of the picture with the edges of front-facing triangles.

    Args:
        pixels: (h, w, 3) uint8.
        vertices: (V, 3) screen space: x right, y up in [-1, 1].
        faces: (F, 3) int64, counter-clockwise seen from outside.
        color: a color name of Pillow.
    """
    height, width = pixels.shape[:2]
    points = vertices.detach().cpu().double().numpy()[:, :2]
    points = (points * [1, -1] + 1) / 2 * [width, height]  # pixels, y down
    corners = points[faces.cpu().numpy()]  # (F, 3, 2)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # Back faces have the opposite orientation
    facing = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0  # y down flips the sign
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for triangle in corners[facing]:
        draw.polygon([tuple(point) for point in triangle], outline=color)
    return np.asarray(image)
