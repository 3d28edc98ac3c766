"""Shaded pictures of a template from several sides, painted far to near (for looking at only)."""

import colorsys

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from mesh_templates.primitives import Shape

# Azimuth and elevation in degrees; azimuth 0 looks at the front (-y), 90 at the left side (+x).
VIEWS = ((90, 0), (0, 0), (45, 20), (180, 15), (90, 90))


def draw(mesh: trimesh.Trimesh, shape: Shape, size: int = 360) -> Image.Image:
    """All views of the mesh in a row, orthographic and at one scale; a tint for every part."""
    tints = _part_tints(mesh, shape)
    row = Image.new("RGB", (size * len(VIEWS), size), "white")
    for i, (azimuth, elevation) in enumerate(VIEWS):
        row.paste(_draw_view(mesh, tints, (azimuth, elevation), size), (i * size, 0))
    return row


def _part_tints(mesh: trimesh.Trimesh, shape: Shape) -> NDArray[np.float64]:
    tints = np.tile([1.0, 0.97, 0.9], (len(mesh.faces), 1))
    for i, region in enumerate(shape.parts.values()):
        inside = region(mesh.triangles_center) < 0
        tints[inside] = colorsys.hsv_to_rgb(i * 0.381966 % 1, 0.3, 1)
    return tints


def _draw_view(
    mesh: trimesh.Trimesh, tints: NDArray, view: tuple[float, float], size: int
) -> Image.Image:
    azimuth, elevation = view
    # Orthographic view along +y after the turn
    rotation = Rotation.from_euler("zx", [-azimuth, elevation], degrees=True)
    center = mesh.bounds.mean(axis=0)
    radius = np.abs(mesh.vertices - center).max() * 1.15
    vertices = rotation.apply(mesh.vertices - center) / radius
    normals = rotation.apply(mesh.vertex_normals[mesh.faces].mean(axis=1))
    triangles = vertices[mesh.faces]
    image = Image.new("RGB", (2 * size, 2 * size), "white")
    pen = ImageDraw.Draw(image)
    # Painter's algorithm: far triangles first
    for i in np.argsort(-triangles[:, :, 1].mean(axis=1)):
        corners = (triangles[i][:, [0, 2]] * [1, -1] + 1) * size
        pen.polygon([tuple(corner) for corner in corners], fill=_shade(normals[i], tints[i]))
    # Drawn at twice the size, for smooth edges
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _shade(normal: NDArray, tint: NDArray) -> tuple[int, int, int]:
    light = np.array([-0.4, -0.6, 0.7])
    brightness = 0.35 + 0.6 * max(float(normal @ light), 0.0) / np.linalg.norm(light)
    red, green, blue = 255 * brightness * tint
    return int(red), int(green), int(blue)
