"""All modeled animals by file name."""

from collections.abc import Callable

from mesh_templates import birds, equines, heavy_mammals, ruminants
from mesh_templates.primitives import Shape

SHAPES: dict[str, Callable[[], Shape]] = {
    "bird1": birds.bird1,
    "bird2": birds.bird2,
    "sheep1": ruminants.sheep1,
    "elephant1": heavy_mammals.elephant1,
    "zebra1": equines.zebra1,
    "horse1": equines.horse1,
    "cow1": ruminants.cow1,
    "bear1": heavy_mammals.bear1,
    "giraffe1": ruminants.giraffe1,
}
