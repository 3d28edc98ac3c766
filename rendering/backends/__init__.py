"""Implementations of the rasterizer: one mathematics, several machines."""

from typing import NamedTuple


class Options(NamedTuple):
    """What to render, besides the mesh."""

    size: int  # height and width of the image, pixels
    sharpness: float = 7000.0  # inverse softness of the silhouette, per squared screen unit
    soft: bool = True  # whether to make alpha
    cull: bool = True  # whether faces turned away from the viewer cover nothing
    box_length: float = 0.02  # reach of a face beyond its bounding box, screen units
    max_faces: int = 30  # faces that a pixel outside the silhouette takes into account
