"""Solids and surface regions that are given by outlines, the way vehicles are drawn.

Outlines are polygons seen from the side (y, z), from above (x, y) or from the front (x, z). Those
that are seen along the mirror plane list their half at x >= 0 only.
"""

from collections.abc import Sequence

import numpy as np

from mesh_templates.primitives import Distance, intersect, mirrored, prism, union

Outline = Sequence[tuple[float, float]]


def hull(side: Outline, above: Outline, front: Outline, blend: float = 0.1) -> Distance:
    return intersect(
        intersect(prism(side, -9, 9), prism(both_sides(above), -9, 9, axis=2), blend),
        prism(both_sides(front), -9, 9, axis=1),
        blend,
    )


def both_sides(half: Outline) -> Outline:
    return [*half, *[(-x, v) for x, v in reversed(half)]]


def sideways(*outlines: Outline) -> Distance:
    """What shows within the outlines (y, z) on both flanks."""
    return mirrored(union(*[prism(outline, 0.3, 9) for outline in outlines]))


def facing(half: Outline, low: float, high: float) -> Distance:
    """What shows within the outline (x >= 0, z) between two lengths y."""
    return prism(both_sides(half), low, high, axis=1)


def ends(start: float, top: float) -> Distance:
    """Everything below `top` beyond |y| = `start`: bumpers that are one with the body."""
    return lambda points: np.maximum(start - np.abs(points[:, 1]), points[:, 2] - top)


def grown(distance: Distance, by: float = 0.03) -> Distance:
    return lambda points: distance(points) - by
