"""Modeled road vehicles, motorcycles and airplanes, in meters (airplanes: any unit).

A body is the intersection of three outlines: from the side (y, z), from above (x, y) and from the
front (x, z). Outlines that are seen along the mirror plane list their half at x >= 0 only.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mesh_templates.primitives import (
    Distance,
    Points,
    Shape,
    box,
    capsule,
    chain,
    cylinder,
    ellipsoid,
    intersect,
    mirrored,
    prism,
    subtract,
    torus,
    union,
)

Outline = Sequence[tuple[float, float]]


def car1() -> Shape:
    """Sedan: three boxes."""
    hull = _hull(
        side=[(-2.1, 0.2), (-2.28, 0.32), (-2.3, 0.6), (-2.15, 0.74), (-1.0, 0.93), (0.2, 0.98),
              (1.35, 1.02), (2.15, 0.99), (2.28, 0.8), (2.28, 0.35), (2.1, 0.22)],
        above=[(0.66, -2.31), (0.85, -1.95), (0.9, -1.2), (0.91, 0.3), (0.88, 1.7), (0.72, 2.3)],
        front=[(0.82, 0.18), (0.92, 0.5), (0.9, 0.75), (0.78, 1.04)],
    )  # fmt: skip
    cabin = _hull(
        side=[(-1.15, 0.8), (-0.3, 1.36), (0.0, 1.45), (0.5, 1.46), (0.95, 1.36), (1.75, 0.85)],
        above=[(0.9, -1.3), (0.9, 1.8)],
        front=[(0.88, 0.8), (0.8, 0.98), (0.6, 1.42), (0.35, 1.47)],
    )
    mirrors = mirrored(ellipsoid((0.88, -0.72, 1.0), (0.15, 0.07, 0.08)))
    wheels = [_Wheel(y, 0.9, 0.33, 0.22) for y in (-1.4, 1.36)]
    side_windows = _sideways(
        [(-0.72, 0.99), (-0.14, 1.35), (0.22, 1.38), (0.22, 0.99)],
        [(0.3, 0.99), (0.3, 1.38), (0.82, 1.33), (1.3, 1.02)],
    )
    return _road_vehicle(
        body=union(hull, cabin, blend=0.08),
        wheels=wheels,
        extras=[mirrors],
        parts={
            "window": union(side_windows, _facing([(0.58, 1.04), (0.48, 1.34)], 1.0, 1.8)),
            "windshield": _facing([(0.68, 0.98), (0.52, 1.36)], -1.2, -0.2),
            "mirror": _grown(mirrors),
            "headlight": mirrored(ellipsoid((0.68, -2.15, 0.66), (0.2, 0.25, 0.1))),
            "light": mirrored(ellipsoid((0.7, 2.22, 0.82), (0.2, 0.25, 0.1))),
            "grillroom": box((0, -2.3, 0.62), (0.42, 0.2, 0.08)),
            "license_plate": box((0, 0, 0.45), (0.26, 3, 0.06)),
            "bumper": subtract(box((0, 0, 0.36), (2, 3, 0.17)), box((0, 0, 0), (2, 2.0, 2))),
            "door": _sideways([(-0.85, 0.3), (-0.85, 0.96), (0.95, 0.98), (0.85, 0.3)]),
        },
    )


SHAPES: dict[str, Callable[[], Shape]] = {"car1": car1}


class _Wheel:
    """A pair of wheels that stand on the ground at `y`, flush with x = +-`outside`."""

    def __init__(self, y: float, outside: float, radius: float, width: float) -> None:
        self.center = (outside - width / 2, y, radius)
        self.radius, self.width, self.outside = radius, width, outside

    def solid(self) -> Distance:
        x, y, z = self.center
        tire = cylinder(self.center, self.radius, self.width / 2, rounding=0.2 * self.width)
        dish = cylinder((self.outside, y, z), 0.62 * self.radius, 0.2 * self.width)
        hub = cylinder((self.outside - 0.2 * self.width, y, z), 0.25 * self.radius, 0.2 * self.width)
        return union(mirrored(union(subtract(tire, dish), hub)), capsule((-x, y, z), (x, y, z), 0.05))

    def arch(self) -> Distance:
        x, y, z = self.center
        depth = self.width - 0.03  # The wheel sinks into the body, so that no thin gap remains
        return mirrored(cylinder((self.outside + 0.3 - depth / 2, y, z), self.radius * 1.2, depth / 2 + 0.3))

    def region(self) -> Distance:
        return mirrored(cylinder(self.center, self.radius * 1.06, self.width / 2 + 0.1))


def _road_vehicle(body: Distance, wheels: Sequence[_Wheel], extras: Sequence[Distance], parts: dict[str, Distance]) -> Shape:
    carved = subtract(body, union(*[wheel.arch() for wheel in wheels]))
    solid = union(carved, *[wheel.solid() for wheel in wheels], *extras)
    return Shape(solid, _bounds(solid), parts | {"wheel": union(*[wheel.region() for wheel in wheels])})


def _hull(side: Outline, above: Outline, front: Outline, blend: float = 0.1) -> Distance:
    return intersect(
        intersect(prism(side, -9, 9), prism(_both_sides(above), -9, 9, axis=2), blend),
        prism(_both_sides(front), -9, 9, axis=1),
        blend,
    )


def _both_sides(half: Outline) -> Outline:
    return [*half, *[(-x, v) for x, v in reversed(half)]]


def _sideways(*outlines: Outline) -> Distance:
    """What shows within the outlines (y, z) on both flanks."""
    return mirrored(union(*[prism(outline, 0.3, 9) for outline in outlines]))


def _facing(half: Outline, low: float, high: float) -> Distance:
    """What shows within the outline (x >= 0, z) between two lengths y."""
    return prism(_both_sides(half), low, high, axis=1)


def _grown(distance: Distance, by: float = 0.03) -> Distance:
    return lambda points: distance(points) - by


def _bounds(solid: Distance) -> tuple[list[float], list[float]]:
    """Box around the solid, found on a coarse grid."""
    axes = [np.arange(-2.5, 2.5, 0.1), np.arange(-6.5, 6.5, 0.1), np.arange(-0.5, 4, 0.1)]
    grid: Points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = grid[solid(grid) < 0.1]
    return (inside.min(axis=0) - 0.1).tolist(), (inside.max(axis=0) + 0.1).tolist()
