"""Implementations of the rasterizer: one definition, several kinds of hardware."""

from typing import NamedTuple

# Defaults of DIB-R in Kaolin, with which the published models were trained
SHARPNESS = 7000.0
BOX_LENGTH = 0.02
MAX_FACES = 30


class Options(NamedTuple):
    """What to render, besides the mesh; the defaults are those of `rendering.rasterizer`."""

    size: int  # height and width of the image, pixels
    sharpness: float = SHARPNESS  # inverse softness of the silhouette, per squared screen unit
    soft: bool = True  # whether to make alpha
    cull: bool = True  # whether faces turned away from the viewer cover nothing
    box_length: float = BOX_LENGTH  # reach of a face beyond its bounding box, screen units
    max_faces: int = MAX_FACES  # faces that a pixel outside the silhouette takes into account
