"""Modeled airplanes, in meters."""

import numpy as np

from mesh_templates.outlines import Outline, facing, grown, hull, sideways
from mesh_templates.primitives import (
    Distance,
    Points,
    Shape,
    box,
    capsule,
    cylinder,
    ellipsoid,
    intersect,
    mirrored,
    prism,
    subtract,
    tube,
    union,
)


def airplane1() -> Shape:
    """Airliner: swept low wings, two engines under them, gear down."""
    # Fuselage
    fuselage = tube(
        [
            (0, -18.4, -0.55),
            (0, -17.4, -0.35),
            (0, -15.2, 0),
            (0, 7.5, 0),
            (0, 13.5, 0.6),
            (0, 18.6, 1.35),
        ],
        [0.35, 1.4, 2.15, 2.15, 1.45, 0.35],
    )
    # Wings and tail
    wings = _panel(
        [(0, -5.2), (2, -4.6), (17, 4.8), (17.2, 6.6), (6.2, 3.0), (0, 3.4)], -1.0, 1.0, 0.5, 0.1
    )
    winglets = mirrored(prism([(4.9, 0.6), (6.2, 2.2), (7.0, 2.2), (6.6, 0.6)], 16.75, 17.2))
    tail = union(
        _panel([(0, 12.6), (6.6, 16.8), (6.7, 18.2), (0, 17.4)], 0.9, 0.8, 0.45, 0.12),
        prism(
            [(9.6, 1.5), (12.8, 2.3), (16.6, 7.9), (18.8, 7.9), (18.0, 1.3)],
            -0.3,
            0.3,
            rounding=0.28,
        ),
    )
    # Engines: hollow intakes on pylons
    nacelle = subtract(
        capsule((5.8, -4.4, -2.1), (5.8, -0.6, -1.9), 1.2, 0.7),
        union(box((5.8, -6.4, -2.1), (2, 1.6, 2)), cylinder((5.8, -5.0, -2.1), 0.9, 0.5, axis=1)),
    )
    engines = mirrored(union(nacelle, box((5.8, -2.0, -1.1), (0.25, 2.0, 0.7))))
    # Landing gear, and the fairing of the wings
    gear = union(_leg(0.0, -14.2, -1.2, -3.3), _leg(2.8, 1.0, -0.9, -3.3))
    belly = ellipsoid((0, -0.6, -1.1), (1.7, 5.5, 1.2))
    solid = union(
        union(fuselage, belly, blend=0.5), wings, winglets, tail, engines, gear, blend=0.25
    )
    panes: Outline = [(-14, 0.35), (-14, 0.8), (11, 0.8), (11, 0.35)]
    return Shape(
        solid,
        ((-17.9, -19.5, -3.9), (17.9, 19.45, 8.45)),
        {
            "wing": intersect(grown(union(wings, winglets), 0.1), _beyond(1.9)),
            "engine": grown(engines, 0.1),
            "tail": grown(tail, 0.15),
            "landing_gear": intersect(grown(gear, 0.1), box((0, 0, -3), (9, 30, 1.0))),
            "nose": box((0, -18.5, 0), (3, 1.8, 3)),
            "cockpit": intersect(box((0, -16.5, 0.75), (3, 0.8, 0.4)), _beyond(-1)),
            "window": sideways(panes),
            "door": sideways([(-15.2, -0.4), (-15.2, 1.2), (-14.3, 1.2), (-14.3, -0.4)]),
        },
    )


def airplane2() -> Shape:
    """Light propeller airplane: high straight wing on struts, fixed gear."""
    # Body and cabin
    body = tube(
        [
            (0, -3.7, 0),
            (0, -3.45, 0),
            (0, -2.3, 0.05),
            (0, -0.8, 0.12),
            (0, 0.8, 0.15),
            (0, 2.6, 0.3),
            (0, 4.5, 0.45),
        ],
        [0.3, 0.5, 0.62, 0.68, 0.62, 0.36, 0.12],
    )
    cabin = hull(
        side=[
            (-1.9, 0.3),
            (-1.75, 0.62),
            (-1.05, 1.2),
            (-0.7, 1.26),
            (0.9, 1.24),
            (2.3, 0.6),
            (2.4, 0.3),
        ],
        above=[(0.5, -2.0), (0.62, -1.2), (0.62, 0.8), (0.35, 2.5)],
        front=[(0.64, 0.2), (0.62, 0.6), (0.5, 1.28)],
    )
    # Wings, tail and struts
    wings = _panel(
        [(0, -1.1), (2.6, -1.1), (5.4, -0.9), (5.55, 0.2), (2.6, 0.55), (0, 0.55)],
        1.24,
        0.26,
        0.16,
        0.02,
    )
    tail = union(
        _panel([(0, 3.5), (1.75, 3.75), (1.85, 4.5), (0, 4.7)], 0.5, 0.16, 0.16, 0),
        prism(
            [(2.4, 0.5), (3.5, 0.95), (4.1, 2.15), (4.75, 2.15), (4.75, 0.4)],
            -0.1,
            0.1,
            rounding=0.09,
        ),
    )
    struts = mirrored(capsule((0.5, -0.35, -0.2), (2.7, -0.25, 1.2), 0.075))
    # Propeller, as a disc at rest
    propeller = union(
        ellipsoid((0, -3.85, 0), (0.18, 0.32, 0.18)),
        ellipsoid((0, -3.9, 0), (0.13, 0.09, 1.05)),
    )
    # Fixed gear
    gear = union(
        mirrored(
            union(
                capsule((0.3, -0.1, -0.4), (1.15, -0.1, -1.0), 0.09),
                _tire(1.2, -0.1, -1.05, 0.3, 0.13),
            )
        ),
        capsule((0, -2.9, -0.4), (0, -3.0, -1.0), 0.09),
        _tire(0, -3.0, -1.05, 0.27, 0.13),
    )
    solid = union(union(body, cabin, blend=0.15), wings, tail, struts, propeller, gear, blend=0.06)
    # Parts
    return Shape(
        solid,
        ((-5.75, -4.35, -1.55), (5.75, 4.95, 2.35)),
        {
            "wing": intersect(grown(wings, 0.03), _beyond(0.65)),
            "engine": box((0, -3.0, 0), (1, 0.75, 0.75)),
            "nose": box((0, -4.0, 0), (1, 0.4, 1.2)),
            "tail": grown(tail, 0.04),
            "landing_gear": intersect(grown(gear, 0.05), box((0, 0, -1.2), (3, 9, 0.6))),
            "cockpit": union(
                facing([(0.5, 0.68), (0.42, 1.1)], -2.0, -0.9),
                sideways([(-1.35, 0.62), (-0.95, 1.08), (-0.3, 1.1), (-0.3, 0.62)]),
            ),
            "window": sideways([(-0.15, 0.62), (-0.15, 1.08), (0.7, 1.08), (1.2, 0.66)]),
            "door": sideways([(-1.0, -0.2), (-1.0, 0.6), (-0.2, 0.6), (-0.2, -0.2)]),
        },
    )


def _panel(half: Outline, z: float, root: float, tip: float, dihedral: float) -> Distance:
    """A wing by its outline from above, its thickness at root and tip, and its rise per length."""
    span = max(x for x, _ in half)
    outline = [*half, *[(-x, y) for x, y in reversed(half) if x > 0]]
    flat = prism(outline, -99, 99, axis=2)

    def distance(points: Points) -> np.ndarray:
        # Rounded edges: the radius shrinks towards the tip
        x = np.abs(points[:, 0])
        radius = (root + (tip - root) * np.minimum(x / span, 1)) / 2
        beyond = np.maximum(flat(points) + radius, 0)
        return np.hypot(beyond, points[:, 2] - z - dihedral * x) - radius

    return distance


def _leg(x: float, y: float, top: float, bottom: float) -> Distance:
    return mirrored(
        union(
            capsule((x, y, top), (x, y, bottom + 0.6), 0.28),
            cylinder((x, y, bottom + 0.6), 0.6, 0.55, rounding=0.1),
        )
    )


def _tire(x: float, y: float, z: float, radius: float, half_width: float) -> Distance:
    return cylinder((x, y, z), radius, half_width, rounding=0.05)


def _beyond(x: float) -> Distance:
    return lambda points: x - np.abs(points[:, 0])
