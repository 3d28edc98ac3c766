"""Modeled cars, trucks and a bus, in meters."""

from collections.abc import Sequence

from mesh_templates.outlines import ends, facing, grown, hull, sideways
from mesh_templates.primitives import (
    Distance,
    Shape,
    Vector,
    box,
    capsule,
    cylinder,
    ellipsoid,
    mirrored,
    prism,
    subtract,
    union,
)


def car1() -> Shape:
    """Sedan: three boxes."""
    # Body and cabin, by their outlines from the side, from above and from the front
    lower = hull(
        side=[(-2.1, 0.2), (-2.28, 0.32), (-2.3, 0.6), (-2.15, 0.74), (-1.0, 0.93), (0.2, 0.98),
              (1.35, 1.02), (2.15, 0.99), (2.28, 0.8), (2.28, 0.35), (2.1, 0.22)],
        above=[(0.66, -2.31), (0.85, -1.95), (0.9, -1.2), (0.91, 0.3), (0.88, 1.7), (0.72, 2.3)],
        front=[(0.82, 0.18), (0.92, 0.5), (0.9, 0.75), (0.78, 1.04)],
    )  # fmt: skip
    cabin = hull(
        side=[(-1.15, 0.8), (-0.3, 1.36), (0.0, 1.45), (0.5, 1.46), (0.95, 1.36), (1.75, 0.85)],
        above=[(0.9, -1.3), (0.9, 1.8)],
        front=[(0.88, 0.8), (0.8, 0.98), (0.6, 1.42), (0.35, 1.47)],
    )
    # Attachments and glass
    mirrors = mirrored(ellipsoid((0.86, -0.72, 1.0), (0.13, 0.07, 0.08)))
    wheels = [_Wheel(y, 0.9, 0.33, 0.22) for y in (-1.4, 1.36)]
    side_windows = sideways(
        [(-0.72, 0.99), (-0.14, 1.35), (0.22, 1.38), (0.22, 0.99)],
        [(0.3, 0.99), (0.3, 1.38), (0.82, 1.33), (1.3, 1.02)],
    )
    return _road_vehicle(
        body=union(lower, cabin, blend=0.08),
        wheels=wheels,
        extras=[mirrors],
        bounds=((-1.1, -2.35, -0.1), (1.1, 2.35, 1.55)),
        parts={
            "window": union(side_windows, facing([(0.58, 1.04), (0.48, 1.34)], 1.0, 1.8)),
            "windshield": facing([(0.68, 0.98), (0.52, 1.36)], -1.2, -0.2),
            "mirror": grown(mirrors),
            "headlight": mirrored(ellipsoid((0.68, -2.15, 0.66), (0.2, 0.25, 0.1))),
            "light": mirrored(ellipsoid((0.7, 2.22, 0.82), (0.2, 0.25, 0.1))),
            "grillroom": box((0, -2.3, 0.62), (0.42, 0.2, 0.08)),
            "license_plate": box((0, 0, 0.45), (0.26, 3, 0.06)),
            "bumper": ends(2.0, 0.53),
            "door": sideways([(-0.85, 0.3), (-0.85, 0.96), (0.95, 0.98), (0.85, 0.3)]),
        },
    )


def car2() -> Shape:
    """Sport utility vehicle: two boxes, upright, with roof rails."""
    # Body and cabin, by their outlines from the side, from above and from the front
    lower = hull(
        side=[(-2.1, 0.3), (-2.24, 0.42), (-2.26, 0.8), (-2.15, 0.98), (-1.0, 1.12), (2.2, 1.14),
              (2.28, 0.95), (2.26, 0.45), (2.1, 0.32)],
        above=[(0.72, -2.27), (0.9, -1.95), (0.95, -1.2), (0.95, 1.7), (0.84, 2.28)],
        front=[(0.86, 0.28), (0.97, 0.6), (0.95, 0.9), (0.86, 1.16)],
    )  # fmt: skip
    cabin = hull(
        side=[(-1.1, 1.0), (-0.42, 1.62), (-0.1, 1.74), (0.9, 1.77), (1.85, 1.7), (2.22, 1.1), (2.2, 1.0)],
        above=[(0.92, -1.2), (0.92, 1.7), (0.82, 2.3)],
        front=[(0.91, 1.0), (0.88, 1.12), (0.72, 1.66), (0.5, 1.78)],
    )  # fmt: skip
    rails = mirrored(capsule((0.62, 0.0, 1.78), (0.62, 1.5, 1.77), 0.04))
    # Attachments and glass
    mirrors = mirrored(ellipsoid((0.94, -0.78, 1.18), (0.16, 0.08, 0.11)))
    side_windows = sideways(
        [(-0.78, 1.15), (-0.26, 1.62), (0.16, 1.65), (0.16, 1.15)],
        [(0.25, 1.15), (0.25, 1.65), (1.02, 1.65), (1.08, 1.15)],
        [(1.17, 1.18), (1.12, 1.64), (1.68, 1.6), (1.95, 1.2)],
    )
    return _road_vehicle(
        body=union(lower, cabin, blend=0.06),
        wheels=[_Wheel(y, 0.95, 0.38, 0.26) for y in (-1.38, 1.38)],
        extras=[rails, mirrors],
        bounds=((-1.2, -2.35, -0.1), (1.2, 2.35, 1.9)),
        parts={
            "window": union(side_windows, facing([(0.66, 1.2), (0.56, 1.62)], 1.5, 2.5)),
            "windshield": facing([(0.76, 1.14), (0.62, 1.64)], -1.3, -0.2),
            "mirror": grown(mirrors),
            "headlight": mirrored(ellipsoid((0.72, -2.15, 0.86), (0.2, 0.3, 0.1))),
            "light": mirrored(ellipsoid((0.84, 2.25, 1.0), (0.14, 0.25, 0.2))),
            "grillroom": box((0, -2.3, 0.82), (0.46, 0.2, 0.12)),
            "license_plate": box((0, 0, 0.56), (0.26, 3, 0.06)),
            "bumper": ends(1.95, 0.58),
            "door": sideways([(-0.88, 0.42), (-0.88, 1.1), (1.0, 1.1), (0.88, 0.42)]),
        },
    )


def truck1() -> Shape:
    """Pickup truck with an open bed."""
    # Body with an open bed, and cabin
    lower = hull(
        side=[(-2.55, 0.42), (-2.7, 0.5), (-2.72, 0.9), (-2.6, 1.08), (-1.2, 1.2), (2.6, 1.16),
              (2.66, 1.1), (2.66, 0.55), (2.5, 0.45)],
        above=[(0.84, -2.74), (0.98, -2.4), (1.0, -1.2), (1.0, 2.4), (0.96, 2.7)],
        front=[(0.92, 0.4), (1.0, 0.7), (1.0, 1.0), (0.93, 1.22)],
    )  # fmt: skip
    bed = box((0, 1.72, 1.36), (0.74, 0.82, 0.5), 0.03)
    cabin = hull(
        side=[(-1.3, 1.1), (-0.65, 1.7), (-0.4, 1.82), (0.3, 1.84), (0.62, 1.76), (0.82, 1.1)],
        above=[(0.94, -1.4), (0.94, 0.9)],
        front=[(0.95, 1.1), (0.92, 1.2), (0.74, 1.76), (0.5, 1.86)],
    )
    # Attachments
    bumpers = union(
        box((0, -2.74, 0.56), (0.94, 0.12, 0.14), 0.05),
        box((0, 2.72, 0.56), (0.94, 0.12, 0.12), 0.05),
    )
    mirrors = mirrored(box((0.98, -0.9, 1.3), (0.15, 0.06, 0.11), 0.04))
    return _road_vehicle(
        body=union(subtract(lower, bed), cabin, blend=0.04),
        wheels=[_Wheel(y, 1.0, 0.4, 0.24) for y in (-1.72, 1.62)],
        extras=[bumpers, mirrors],
        bounds=((-1.25, -2.95, -0.1), (1.25, 2.95, 1.95)),
        parts={
            "window": union(
                sideways(
                    [(-0.95, 1.22), (-0.45, 1.7), (-0.12, 1.72), (-0.12, 1.22)],
                    [(-0.03, 1.22), (-0.03, 1.72), (0.5, 1.7), (0.66, 1.22)],
                ),
                facing([(0.68, 1.26), (0.6, 1.68)], 0.4, 1.0),
            ),
            "windshield": facing([(0.78, 1.22), (0.64, 1.72)], -1.5, -0.45),
            "mirror": grown(mirrors),
            "headlight": mirrored(box((0.78, -2.7, 0.92), (0.17, 0.3, 0.1))),
            "light": mirrored(box((0.95, 2.66, 0.92), (0.1, 0.2, 0.18))),
            "grillroom": box((0, -2.7, 0.88), (0.58, 0.25, 0.15)),
            "license_plate": box((0, 0, 0.57), (0.22, 4, 0.07)),
            "bumper": grown(bumpers),
            "door": sideways([(-1.05, 0.5), (-1.05, 1.18), (0.75, 1.18), (0.75, 0.5)]),
        },
    )


def truck2() -> Shape:
    """Box truck: a short cab in front of a tall cargo box on a frame."""
    # Cab, cargo box and frame
    cab = hull(
        side=[(-3.3, 0.55), (-3.36, 0.7), (-3.36, 1.15), (-3.2, 1.32), (-2.6, 1.42), (-2.1, 2.3),
              (-1.85, 2.42), (-1.05, 2.42), (-1.05, 0.55)],
        above=[(0.95, -3.4), (1.06, -3.0), (1.08, -1.0)],
        front=[(1.0, 0.5), (1.1, 0.8), (1.08, 1.4), (0.94, 2.34), (0.8, 2.45)],
    )  # fmt: skip
    cargo = box((0, 1.35, 2.1), (1.2, 2.25, 1.2), 0.05)
    spoiler = prism(
        [(-1.9, 2.35), (-1.1, 3.0), (-0.95, 3.0), (-0.95, 2.35)], -0.8, 0.8, rounding=0.05
    )
    frame = box((0, 0.1, 0.78), (0.55, 3.4, 0.2), 0.05)
    # Attachments
    bumpers = union(
        box((0, -3.4, 0.6), (1.08, 0.14, 0.16), 0.06), box((0, 3.5, 0.62), (1.1, 0.12, 0.12), 0.05)
    )
    skirts = mirrored(box((0.95, -0.1, 0.7), (0.14, 0.75, 0.28), 0.06))
    mirrors = mirrored(
        union(
            box((1.28, -2.25, 1.75), (0.11, 0.07, 0.26), 0.05),
            capsule((0.9, -2.2, 1.7), (1.25, -2.25, 1.7), 0.05),
        )
    )
    return _road_vehicle(
        body=union(cab, cargo, frame),
        wheels=[_Wheel(-2.4, 1.08, 0.48, 0.32), _Wheel(2.0, 1.12, 0.48, 0.5)],
        extras=[spoiler, bumpers, skirts, mirrors],
        bounds=((-1.5, -3.65, -0.15), (1.5, 3.75, 3.45)),
        parts={
            "window": sideways([(-2.42, 1.5), (-2.08, 2.2), (-1.35, 2.22), (-1.35, 1.5)]),
            "windshield": facing([(0.9, 1.48), (0.8, 2.25)], -2.7, -2.0),
            "mirror": grown(mirrors),
            "headlight": mirrored(box((0.84, -3.3, 0.95), (0.2, 0.4, 0.12))),
            "light": mirrored(box((1.0, 3.55, 0.78), (0.18, 0.25, 0.14))),
            "grillroom": box((0, -3.35, 0.98), (0.56, 0.3, 0.2)),
            "license_plate": box((0, 0, 0.6), (0.26, 5, 0.08)),
            "bumper": grown(bumpers),
            "fender": grown(mirrored(cylinder((1.0, -2.4, 0.48), 0.7, 0.3))),
            "door": union(
                sideways([(-1.95, 0.7), (-2.3, 1.45), (-2.05, 2.28), (-1.2, 2.3), (-1.2, 0.7)]),
                facing([(1.05, 1.05), (1.05, 3.15)], 3.5, 4.0),
            ),
        },
    )


def bus1() -> Shape:
    """City bus."""
    # Body, and the air conditioning on its roof
    body = hull(
        side=[(-5.5, 0.4), (-5.62, 0.6), (-5.6, 1.4), (-5.42, 2.9), (-5.2, 3.08), (5.3, 3.1),
              (5.5, 2.95), (5.55, 0.7), (5.4, 0.4)],
        above=[(1.02, -5.65), (1.22, -5.3), (1.26, -4.5), (1.26, 5.0), (1.15, 5.56)],
        front=[(1.2, 0.35), (1.27, 0.6), (1.26, 2.3), (1.18, 2.95), (0.98, 3.12)],
    )  # fmt: skip
    unit = box((0, 1.6, 3.15), (0.8, 1.4, 0.16), 0.08)
    # Attachments
    mirrors = mirrored(
        union(
            ellipsoid((1.3, -5.75, 2.1), (0.12, 0.1, 0.3)),
            capsule((1.05, -5.3, 2.6), (1.3, -5.75, 2.3), 0.06),
        )
    )
    bumpers = union(
        box((0, -5.55, 0.56), (1.16, 0.16, 0.18), 0.08),
        box((0, 5.5, 0.56), (1.16, 0.16, 0.16), 0.08),
    )
    # Window panes, by their ends in y
    panes = [(y, y + 1.3) for y in (-3.55, -2.15, -0.75, 0.65, 2.05, 3.45)]
    return _road_vehicle(
        body=union(body, unit),
        wheels=[_Wheel(y, 1.26, 0.52, 0.34) for y in (-3.0, 2.9)],
        extras=[mirrors, bumpers],
        bounds=((-1.6, -6.05, -0.2), (1.6, 5.85, 3.5)),
        parts={
            "window": union(
                sideways(*[[(a, 1.5), (a, 2.6), (b, 2.6), (b, 1.5)] for a, b in panes]),
                facing([(0.95, 1.7), (0.92, 2.6)], 5, 6),
            ),
            "windshield": facing([(1.1, 1.25), (1.05, 2.6)], -6, -5.2),
            "mirror": grown(mirrors),
            "headlight": mirrored(box((0.88, -5.6, 0.9), (0.2, 0.4, 0.12))),
            "light": mirrored(box((1.05, 5.6, 1.0), (0.14, 0.3, 0.3))),
            "license_plate": box((0, 0, 0.58), (0.26, 8, 0.08)),
            "bumper": ends(5.2, 0.74),
            "door": sideways(
                [(-5.0, 0.5), (-5.0, 2.6), (-3.75, 2.6), (-3.75, 0.5)],
                [(-0.7, 0.5), (-0.7, 2.6), (0.6, 2.6), (0.6, 0.5)],
            ),
        },
    )


class _Wheel:
    """A pair of wheels that stand on the ground at `y`, flush with x = +-`outside`."""

    def __init__(self, y: float, outside: float, radius: float, width: float) -> None:
        self.center = (outside - width / 2, y, radius)
        self.radius, self.width, self.outside = radius, width, outside

    def solid(self) -> Distance:
        x, y, z = self.center
        tire = cylinder(self.center, self.radius, self.width / 2, rounding=0.2 * self.width)
        dish = cylinder((self.outside, y, z), 0.62 * self.radius, 0.2 * self.width)
        hub = cylinder(
            (self.outside - 0.2 * self.width, y, z), 0.25 * self.radius, 0.2 * self.width
        )
        return union(
            mirrored(union(subtract(tire, dish), hub)), capsule((-x, y, z), (x, y, z), 0.05)
        )

    def arch(self) -> Distance:
        _, y, z = self.center
        depth = self.width - 0.03  # The wheel sinks into the body, so that no thin gap remains
        return mirrored(
            cylinder((self.outside + 0.3 - depth / 2, y, z), self.radius * 1.2, depth / 2 + 0.3)
        )

    def region(self) -> Distance:
        return mirrored(cylinder(self.center, self.radius * 1.06, self.width / 2 + 0.25))


def _road_vehicle(
    body: Distance,
    wheels: Sequence[_Wheel],
    extras: Sequence[Distance],
    bounds: tuple[Vector, Vector],
    parts: dict[str, Distance],
) -> Shape:
    # Wheel arches are cut out of the body, into which the wheels sink
    carved = subtract(body, union(*[wheel.arch() for wheel in wheels]))
    solid = union(carved, *[wheel.solid() for wheel in wheels], *extras)
    return Shape(solid, bounds, parts | {"wheel": union(*[wheel.region() for wheel in wheels])})
