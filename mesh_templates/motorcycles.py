"""Modeled motorcycles, in meters."""

import numpy as np

from mesh_templates.outlines import grown, hull
from mesh_templates.primitives import (
    Distance,
    Shape,
    Vector,
    box,
    capsule,
    chain,
    cylinder,
    ellipsoid,
    intersect,
    mirrored,
    prism,
    torus,
    union,
)


def motorcycle1() -> Shape:
    """Sport bike: full fairing, low bars, raised tail."""
    front, rear = (0, -0.7, 0.3), (0, 0.7, 0.31)
    # Fairing, tank, seat and tail
    fairing = hull(
        side=[(-0.72, 0.66), (-0.76, 0.78), (-0.6, 0.95), (-0.36, 1.13), (-0.3, 0.98), (-0.12, 0.8), (0.1, 0.5),
              (0.22, 0.26), (-0.2, 0.22), (-0.34, 0.5)],
        above=[(0.05, -0.82), (0.17, -0.6), (0.22, -0.3), (0.2, 0.3)],
        front=[(0.14, 0.2), (0.2, 0.4), (0.24, 0.75), (0.17, 0.98), (0.1, 1.15)],
        blend=0.06,
    )  # fmt: skip
    tank = ellipsoid((0, -0.06, 0.86), (0.17, 0.3, 0.14))
    seat = chain([(0, 0.22, 0.8), (0, 0.48, 0.82), (0, 0.66, 0.9)], [0.12, 0.11, 0.1], blend=0.05)
    tail = chain([(0, 0.5, 0.86), (0, 0.75, 0.95), (0, 0.98, 1.02)], [0.12, 0.09, 0.04], blend=0.05)
    # Engine, forks and bars
    engine = box((0, 0.08, 0.46), (0.17, 0.28, 0.22), 0.06)
    forks = mirrored(capsule((0.1, -0.7, 0.3), (0.09, -0.42, 0.94), 0.035))
    bars = mirrored(
        chain([(0.05, -0.4, 0.95), (0.22, -0.38, 0.96), (0.37, -0.3, 0.95)], [0.025, 0.025, 0.032])
    )
    # Mirrors
    mirrors = mirrored(
        union(
            capsule((0.1, -0.52, 0.98), (0.3, -0.5, 1.1), 0.02),
            ellipsoid((0.32, -0.5, 1.12), (0.09, 0.04, 0.05)),
        )
    )
    # Swingarm, exhaust and fenders
    swingarm = mirrored(capsule((0.14, 0.25, 0.42), (0.13, 0.7, 0.31), 0.045))
    exhaust = mirrored(
        chain([(0.12, 0.1, 0.27), (0.2, 0.45, 0.36), (0.22, 0.92, 0.52)], [0.04, 0.055, 0.07])
    )
    fenders = union(_fender(front, 0.33, 0.06, 20, 120), _fender(rear, 0.35, 0.07, 40, 110))
    # The last solid is the frame
    solid = union(
        _wheel(front, 0.3, 0.06), _wheel(rear, 0.31, 0.085), fairing, tank, seat, tail, engine, forks, bars,
        mirrors, swingarm, exhaust, fenders, capsule((0, 0.2, 0.5), (0, 0.45, 0.78), 0.1), blend=0.015,
    )  # fmt: skip
    return Shape(
        solid,
        ((-0.45, -1.1, -0.05), (0.45, 1.05, 1.25)),
        {
            "wheel": union(_tire_region(front, 0.3), _tire_region(rear, 0.31)),
            "fender": grown(fenders, 0.01),
            "engine": box((0, 0.05, 0.45), (0.3, 0.34, 0.17)),
            "gas_tank": grown(tank, 0.012),
            "seat": intersect(grown(seat, 0.015), box((0, 0.45, 1), (0.2, 0.33, 0.25))),
            "handlebar": grown(bars, 0.015),
            "mirror": grown(mirrors, 0.015),
            "windshield": prism(
                [(-0.62, 0.96), (-0.36, 1.2), (-0.3, 0.98), (-0.46, 0.96)], -0.3, 0.3
            ),
            "headlight": mirrored(ellipsoid((0.1, -0.68, 0.82), (0.07, 0.1, 0.05))),
            "light": ellipsoid((0, 0.98, 1.02), (0.08, 0.08, 0.06)),
        },
    )


def motorcycle2() -> Shape:
    """Cruiser: raked fork, high wide bars, teardrop tank, V engine, fenders, saddlebags."""
    front, rear = (0, -0.9, 0.33), (0, 0.78, 0.32)
    # Tank, seat and backrest
    tank = ellipsoid((0, -0.16, 0.84), (0.17, 0.33, 0.13), (8, 0, 0))
    seat = chain([(0, 0.14, 0.72), (0, 0.36, 0.68), (0, 0.66, 0.78)], [0.11, 0.14, 0.1], blend=0.06)
    backrest = box((0, 0.84, 0.95), (0.12, 0.04, 0.14), 0.04, (12, 0, 0))
    # V engine
    crankcase = cylinder((0, 0.04, 0.36), 0.19, 0.16, rounding=0.05)
    heads = [capsule((0, 0.03, 0.42), (0, y, 0.66), 0.11, 0.12) for y in (-0.16, 0.2)]
    engine = union(crankcase, *heads)
    # Frame, forks and bars
    frame = chain(
        [(0, -0.52, 0.92), (0, -0.4, 0.5), (0, -0.1, 0.22), (0, 0.45, 0.26), (0, 0.5, 0.62)],
        [0.05] * 5,
    )
    forks = mirrored(capsule((0.11, -0.9, 0.33), (0.1, -0.5, 1.04), 0.04))
    clamp = box((0, -0.53, 0.98), (0.13, 0.06, 0.06), 0.03)
    bars = mirrored(
        chain(
            [(0.02, -0.5, 1.04), (0.16, -0.46, 1.16), (0.36, -0.34, 1.18), (0.46, -0.14, 1.12)],
            [0.026, 0.026, 0.026, 0.034],
        )
    )
    # Mirrors and lamp
    mirrors = mirrored(
        union(
            capsule((0.3, -0.38, 1.18), (0.38, -0.42, 1.34), 0.02),
            ellipsoid((0.39, -0.42, 1.36), (0.09, 0.035, 0.06)),
        )
    )
    headlight = ellipsoid((0, -0.68, 0.92), (0.11, 0.13, 0.11))
    # Saddlebags, exhaust and fenders
    bags = mirrored(box((0.24, 0.72, 0.56), (0.1, 0.25, 0.15), 0.06))
    exhaust = mirrored(
        chain([(0.12, -0.1, 0.3), (0.18, 0.2, 0.22), (0.2, 1.02, 0.28)], [0.04, 0.05, 0.065])
    )
    fenders = union(_fender(front, 0.37, 0.085, 10, 150), _fender(rear, 0.38, 0.11, 15, 170))
    # The last solids are frame, mounts, swingarm, pegs and a rear lamp
    solid = union(
        _wheel(front, 0.33, 0.07), _wheel(rear, 0.32, 0.1), tank, seat, backrest, engine, frame, forks, clamp, bars,
        mirrors, headlight, bags, exhaust, fenders, capsule((0, -0.6, 0.92), (0, 0.3, 0.68), 0.06),
        mirrored(capsule((0, 0.72, 0.64), (0.25, 0.72, 0.6), 0.05)),
        mirrored(capsule((0.12, 0.4, 0.3), (0.13, 0.78, 0.32), 0.05)),
        mirrored(capsule((0, -0.3, 0.3), (0.32, -0.34, 0.3), 0.035)), ellipsoid((0, 1.17, 0.56), (0.07, 0.06, 0.05)),
        blend=0.015,
    )  # fmt: skip
    return Shape(
        solid,
        ((-0.55, -1.35, -0.05), (0.55, 1.3, 1.5)),
        {
            "wheel": union(_tire_region(front, 0.33), _tire_region(rear, 0.32)),
            "fender": grown(fenders, 0.01),
            "engine": grown(engine, 0.02),
            "gas_tank": grown(tank, 0.012),
            "seat": union(grown(seat, 0.015), grown(backrest, 0.02)),
            "handlebar": grown(bars, 0.015),
            "mirror": grown(mirrors, 0.015),
            "headlight": grown(headlight, 0.01),
            "light": ellipsoid((0, 1.17, 0.56), (0.1, 0.09, 0.07)),
        },
    )


def _wheel(center: Vector, radius: float, tube_radius: float) -> Distance:
    """Tire, a thin disc in place of the spokes, and the hub with its axle."""
    ring = torus(center, radius - tube_radius, tube_radius)
    disc = cylinder(center, radius - tube_radius, 0.025)
    return union(ring, disc, cylinder(center, 0.06, 0.13, rounding=0.02))


def _tire_region(center: Vector, radius: float) -> Distance:
    return cylinder(center, radius + 0.02, 0.1)


def _fender(center: Vector, radius: float, half_width: float, start: float, end: float) -> Distance:
    """Arc over a wheel between two angles in degrees, from the front (0) over the top to the rear."""
    # A chain of capsules along the arc, stretched to the width of the fender
    angles = np.radians(np.linspace(start, end, 9))
    nodes = [(0, center[1] - radius * np.cos(a), center[2] + radius * np.sin(a)) for a in angles]
    thin = chain(nodes, [0.035] * len(nodes))
    return lambda points: thin(points * [0.035 / half_width, 1, 1])
