"""Draws docs/images/axes.png, the picture of docs/conventions.md: run `python -m docs.axes`."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from data.cache.template_files import load_templates
from geometry import quaternion
from geometry.camera import Pose, project
from geometry.sphere_mesh import SphereMesh
from rendering.texture import render_textured
from utils.pictures import save_image, to_uint8

PANEL = 420
OVERSAMPLING = 3
COLORS = {"x": (200, 40, 40), "y": (30, 140, 50), "z": (40, 80, 200)}
INK = (40, 40, 40)
DIRECTIONS = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


def main() -> None:
    """Draws the picture with the remeshed bird."""
    template, vertices = SphereMesh(), load_templates("bird", "singletpl")
    panels = [
        object_space(template, vertices),
        screen_space(template, vertices),
        texture_space(),
        views(template, vertices),
    ]
    sheet = Image.new("RGB", (2 * PANEL, 2 * PANEL), "white")
    for i, panel in enumerate(panels):
        sheet.paste(panel, (i % 2 * PANEL, i // 2 * PANEL))
    save_image(Path(__file__).parent / "images" / "axes.png", np.asarray(sheet))


def map_colors(size: int = 64) -> Tensor:
    """Returns a texture (3, size, size) whose hue encodes u and whose lightness encodes v."""
    u = (torch.arange(size) + 0.5) / size
    v = 1 - torch.arange(size)[:, None] / (size - 1)
    # A hue around the object, lighter towards the back, with checks
    hues = [0.5 + 0.5 * torch.cos(2 * torch.pi * (u - shift)) for shift in (0.5, 0.25, 0.0)]
    light = 0.35 + 0.55 * v
    checks = 1 - 0.12 * (((u * 8).floor() + (v * 8).floor()) % 2)
    return torch.stack([2 * (0.35 + 0.65 * hue) * light * checks - 1 for hue in hues]).clamp(-1, 1)


def make_pose(azimuth: float, elevation: float, scale: float) -> Pose:
    """A camera without translation, some distance away."""
    angles = [torch.tensor([angle]) for angle in (azimuth, elevation, 0.0)]
    zero = torch.zeros(1, 2)
    return Pose(zero[:, :1] + scale, zero, quaternion.from_view(*angles), zero[:, :1] + 2)


def draw_object(template: SphereMesh, vertices: Tensor, pose: Pose, size: int) -> Image.Image:
    """Picture of the colored mesh on white."""
    large = size * OVERSAMPLING
    picture = render_textured(
        template, project(vertices, pose), map_colors()[None], large, soft=False
    )
    colors = torch.where(picture.coverage > 0, picture.colors, torch.ones(()))
    image = Image.fromarray(to_uint8(colors)[0])
    return image.resize((size, size), Image.Resampling.LANCZOS)


def object_space(template: SphereMesh, vertices: Tensor) -> Image.Image:
    """The axes of object space on the object."""
    pose = make_pose(azimuth=145.0, elevation=22.0, scale=0.72)
    image = draw_object(template, vertices, pose, PANEL)
    pen = ImageDraw.Draw(image)
    labels = {"x": "x: lateral, mirror plane x = 0", "y": "y: back", "z": "z: up"}
    # Axes from the origin, slightly beyond the object
    for name, direction in DIRECTIONS.items():
        tip = 1.0 if name == "x" else 1.25
        start, end = to_pixels(project(torch.tensor([[[0.0] * 3, direction]]) * tip, pose)[0])
        arrow(pen, start, end, COLORS[name])
        write(pen, end, labels[name], COLORS[name])
    front = to_pixels(project(torch.tensor([[[0.0, -1.15, 0.0]]]), pose)[0])[0]
    write(pen, front, "front: -y", INK)
    title(pen, "object space (right-handed)")
    return image


def screen_space(template: SphereMesh, vertices: Tensor) -> Image.Image:
    """The image square with the axes of screen space."""
    pose = make_pose(azimuth=20.0, elevation=0.0, scale=0.85)
    inner = PANEL - 120
    image = Image.new("RGB", (PANEL, PANEL), "white")
    image.paste(draw_object(template, vertices, pose, inner), (60, 60))
    pen = ImageDraw.Draw(image)
    pen.rectangle((60, 60, 60 + inner, 60 + inner), outline=INK)
    middle = (PANEL / 2, PANEL / 2)
    arrow(pen, middle, (60 + inner + 30, PANEL / 2), COLORS["x"])
    arrow(pen, middle, (PANEL / 2, 40), COLORS["y"])
    # z points out of the page
    pen.ellipse([c + d for d in (-9, 9) for c in middle], outline=COLORS["z"], width=3)
    pen.ellipse([c + d for d in (-3, 3) for c in middle], fill=COLORS["z"])
    write(pen, (60 + inner + 32, PANEL / 2 - 20), "x", COLORS["x"])
    write(pen, (PANEL / 2 + 8, 36), "y", COLORS["y"])
    write(pen, (PANEL / 2 + 12, PANEL / 2 + 6), "z: to the viewer", COLORS["z"])
    write(pen, (30, 42), "(-1, 1)", INK)
    write(pen, (30 + inner, 64 + inner), "(1, -1)", INK)
    title(pen, "screen space: from -1 to 1, here azimuth 20")
    return image


def texture_space() -> Image.Image:
    """The texture of all panels, with the regions of the object."""
    inner = PANEL - 140
    texture = Image.fromarray(to_uint8(map_colors())).resize((inner, inner))
    image = Image.new("RGB", (PANEL, PANEL), "white")
    image.paste(texture, (70, 70))
    pen = ImageDraw.Draw(image)
    names = ("-x", "top", "+x", "bottom", "-x")
    # Meridians, and their u
    for i, name in enumerate(names):
        x = 70 + inner * i / 4
        pen.line((x, 62, x, 70 + inner), fill=INK)
        pen.text((x, 52), name, fill=INK, anchor="mm", font=font())
        pen.text((x, 82 + inner), f"{i / 4:g}", fill=INK, anchor="mm", font=font())
    pen.text((35, 78), "v = 1", fill=INK, anchor="mm", font=font())
    pen.text((35, 62 + inner), "v = 0", fill=INK, anchor="mm", font=font())
    middle = 70 + inner / 2
    pen.text((middle, 104 + inner), "u", fill=INK, anchor="mm", font=font())
    pen.text((middle, 84), "row 0: north pole, +y, back", fill=INK, anchor="mm", font=font())
    pen.text((middle, 56 + inner), "south pole, -y, front", fill="white", anchor="mm", font=font())
    title(pen, "texture space")
    return image


def views(template: SphereMesh, vertices: Tensor) -> Image.Image:
    """The object from four sides and from above."""
    image = Image.new("RGB", (PANEL, PANEL), "white")
    pen = ImageDraw.Draw(image)
    size = PANEL // 3
    for i, (azimuth, elevation) in enumerate(
        [(0.0, 0.0), (90.0, 0.0), (0.0, 30.0), (180.0, 0.0), (270.0, 0.0), (0.0, 80.0)]
    ):
        corner = (i % 3 * size, 60 + i // 3 * (size + 40))
        picture = draw_object(template, vertices, make_pose(azimuth, elevation, 0.85), size)
        image.paste(picture, corner)
        text = f"azimuth {azimuth:.0f}" if i % 3 < 2 else f"azimuth 0, elevation {elevation:.0f}"
        pen.text((corner[0] + size / 2, corner[1] - 4), text, fill=INK, anchor="mm", font=font(12))
    title(pen, "views")
    return image


def to_pixels(screen: Tensor) -> list[tuple[float, float]]:
    """Pixel positions of screen points (N, 3)."""
    return [((x + 1) / 2 * PANEL, (1 - y) / 2 * PANEL) for x, y, _ in screen.tolist()]


def arrow(
    pen: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    color: tuple[int, int, int],
) -> None:
    """Line with a head at its end."""
    pen.line((*start, *end), fill=color, width=3)
    tip, tail = np.array(end), np.array(start)
    # Head of the arrow
    along = (tip - tail) / max(float(np.linalg.norm(tip - tail)), 1e-9)
    across = np.array([-along[1], along[0]])
    corners = [tip, tip - 12 * along + 5 * across, tip - 12 * along - 5 * across]
    pen.polygon([(float(x), float(y)) for x, y in corners], fill=color)


def write(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, color: tuple[int, int, int]
) -> None:
    """Text beside a point, kept inside the panel."""
    width = pen.textlength(text, font=font())
    x = min(max(at[0] + 4, 4), PANEL - width - 4)
    pen.text((x, at[1]), text, fill=color, font=font(), stroke_width=2, stroke_fill="white")


def title(pen: ImageDraw.ImageDraw, text: str) -> None:
    """Heading of a panel."""
    pen.text((PANEL / 2, 18), text, fill=INK, anchor="mm", font=font(18))


def font(size: int = 14) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size)


if __name__ == "__main__":
    main()
