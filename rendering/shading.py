"""Pictures of meshes without their textures, in one color and a soft light."""

from torch import Tensor
from torch.nn import functional as F

from geometry.operators import vertex_normals
from rendering.rasterizer import rasterize

BODY = (0.61, 0.75, 0.92)  # color of the surface, in [0, 1]
AMBIENT = 0.35  # light on sides turned away
LIGHT = (-0.4, 0.6, 0.7)  # towards the light: from the upper left of the viewer


def render_shaded(screen: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Renders a mesh in diffuse light.

    Args:
        screen: (V, 3) screen space.
        faces: (F, 3) counter-clockwise seen from outside.
        size: height and width in pixels.

    Returns:
        colors (3, size, size) in [0, 1], zero outside, and coverage (1, size, size).
    """
    light = F.normalize(screen.new_tensor(LIGHT), dim=0)
    shade = AMBIENT + (1 - AMBIENT) * (vertex_normals(screen, faces) @ light).clamp(min=0)
    colors = shade[:, None] * screen.new_tensor(BODY)
    raster = rasterize(screen[None], faces, size, attributes=colors[None], soft=False)
    assert raster.attributes is not None
    return raster.attributes[0], raster.coverage[0]
