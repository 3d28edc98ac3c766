"""Curves with two logarithmic axes, as a picture."""

import itertools
import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from utils import files

Curves = dict[str, list[tuple[float, float]]]

_WIDTH, _HEIGHT = 560, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 45, 30, 55  # margins
_COLORS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94", "#8d8741", "#444444")


def write_log_plots(path: Path, plots: dict[str, Curves], y_label: str) -> None:
    """Writes plots side by side.

    Args:
        path: PNG to write.
        plots: label of the x axis -> name of the curve -> points (x, y), both positive.
        y_label: label of the y axes.
    """
    picture = Image.new("RGB", (len(plots) * _WIDTH, _HEIGHT), "white")
    for i, (x_label, curves) in enumerate(plots.items()):
        picture.paste(_plot(curves, x_label, y_label), (i * _WIDTH, 0))
    with files.atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _plot(curves: Curves, x_label: str, y_label: str) -> Image.Image:
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=14)
    points = [point for curve in curves.values() for point in curve]
    # Axes end at powers of ten
    low_x, high_x = _decades(x for x, _ in points)
    low_y, high_y = _decades(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        u = (math.log10(x) - low_x) / (high_x - low_x)
        v = (math.log10(y) - low_y) / (high_y - low_y)
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        return _LEFT + u * (right - _LEFT), bottom - v * (bottom - _TOP)

    # Grid and labels of both axes
    for k in range(low_x, high_x + 1):
        x, bottom = at(10.0**k, 10.0**low_y)
        draw.line([(x, bottom), at(10.0**k, 10.0**high_y)], "#dddddd")
        draw.text((x, bottom + 14), f"{10**k:,}", "#222222", font, anchor="mm")
    for k in range(low_y, high_y + 1):
        left, y = at(10.0**low_x, 10.0**k)
        draw.line([(left, y), at(10.0**high_x, 10.0**k)], "#dddddd")
        draw.text((left - 8, y), f"{10.0**k:g}", "#222222", font, anchor="rm")
    draw.text((_WIDTH / 2, _HEIGHT - 14), x_label, "#222222", font, anchor="mm")
    draw.text((8, 12), y_label, "#222222", font, anchor="lm")
    # Curves, and their names in a corner
    for i, (name, curve) in enumerate(curves.items()):
        color = _COLORS[i % len(_COLORS)]
        ends = [at(*point) for point in curve]
        for start, end in itertools.pairwise(ends):
            draw.line([start, end], color, width=2)
        for x, y in ends:
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], color)
        draw.text((_LEFT + 15, _TOP + 14 + 18 * i), name, color, font, anchor="lm")
    return picture


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """Powers of ten around positive values."""
    logs = [math.log10(value) for value in values]
    low = math.floor(min(logs))
    return low, max(math.ceil(max(logs)), low + 1)
