"""Cow, sheep and giraffe as signed distances (units and axes: `quadruped`)."""

from mesh_templates.primitives import (
    Shape,
    ellipsoid,
    half_space,
    inflated,
    intersect,
    joined,
    mirrored,
    rippled,
    tube,
    union,
)
from mesh_templates.quadruped import (
    above,
    behind,
    face_regions,
    leg_regions,
    pair_of_legs,
    profile,
    standing,
)


def cow1() -> Shape:
    """Horned cow: long rectangular trunk, low head, dewlap, udder and tufted tail."""
    # Trunk with hip bones, neck with dewlap
    trunk = profile(
        [
            (-0.5, 0.72, 0.2),
            (-0.3, 0.69, 0.28),
            (0.02, 0.67, 0.3),
            (0.32, 0.7, 0.275),
            (0.52, 0.77, 0.2),
        ],
        width=0.94,
    )
    hips = mirrored(ellipsoid((0.15, 0.42, 0.9), (0.1, 0.2, 0.1)))
    neck = profile([(-0.42, 0.78, 0.22), (-0.64, 0.9, 0.165), (-0.78, 1.0, 0.12)], width=0.7)
    dewlap = profile([(-0.55, 0.58, 0.08), (-0.68, 0.72, 0.07), (-0.76, 0.85, 0.05)], width=0.4)
    # Head, ears and horns
    head = profile(
        [(-0.79, 1.06, 0.11), (-0.88, 0.99, 0.11), (-1.0, 0.84, 0.085), (-1.05, 0.77, 0.085)],
        width=0.85,
    )
    ear = mirrored(
        tube([(0.08, -0.77, 1.04), (0.19, -0.75, 1.03), (0.3, -0.75, 0.99)], [0.035, 0.055, 0.02])
    )
    horn = mirrored(
        tube(
            [(0.06, -0.79, 1.13), (0.16, -0.79, 1.17), (0.23, -0.82, 1.24), (0.22, -0.86, 1.33)],
            [0.045, 0.04, 0.032, 0.012],
        )
    )
    # Udder
    udder = ellipsoid((0, 0.26, 0.42), (0.14, 0.15, 0.11))
    teats = mirrored(
        union(
            tube([(0.06, 0.2, 0.4), (0.06, 0.2, 0.29)], [0.03, 0.022]),
            tube([(0.06, 0.31, 0.4), (0.06, 0.31, 0.29)], [0.03, 0.022]),
        )
    )
    # Tail
    tail = profile(
        [
            (0.6, 0.92, 0.045),
            (0.69, 0.85, 0.034),
            (0.73, 0.6, 0.027),
            (0.73, 0.42, 0.032),
            (0.73, 0.3, 0.055),
            (0.73, 0.2, 0.025),
        ]
    )
    # Legs, from the trunk down
    front = pair_of_legs(
        0.15,
        [
            (-0.4, 0.62, 0.13),
            (-0.4, 0.45, 0.095),
            (-0.39, 0.28, 0.066),
            (-0.39, 0.15, 0.05),
            (-0.39, 0.09, 0.056),
        ],
        foot=[(-0.4, 0.06, 0.055), (-0.415, 0.03, 0.066), (-0.42, -0.05, 0.075)],
    )
    hind = pair_of_legs(
        0.15,
        [
            (0.44, 0.7, 0.16),
            (0.41, 0.52, 0.125),
            (0.47, 0.38, 0.08),
            (0.53, 0.31, 0.064),
            (0.52, 0.16, 0.05),
        ],
        foot=[(0.51, 0.1, 0.056), (0.5, 0.06, 0.055), (0.485, 0.03, 0.067), (0.48, -0.05, 0.076)],
    )
    # Joined with a fillet of its own width at each joint
    solid = joined(
        trunk,
        (hips, 0.15),
        (neck, 0.15),
        (dewlap, 0.1),
        (head, 0.06),
        (ear, 0.02),
        (horn, 0.015),
        (tail, 0.03),
    )
    # Cut flat at the feet; parts are regions of space around the solids
    return standing(
        joined(solid, (front, 0.08), (hind, 0.08), (udder, 0.05), (teats, 0.02)),
        length=(-1.2, 0.85),
        height=1.4,
        parts=leg_regions(front, hind, "hoof", knee=0.42, ankle=0.085)
        | {
            "tail": intersect(inflated(tail, 0.02), behind(0.67)),
            "neck": intersect(inflated(neck, 0.03), half_space((0, -0.5, 0.85), (0, 0.9, -0.4))),
            "head": inflated(head, 0.03),
            "ear": intersect(inflated(ear, 0.02), mirrored(half_space((0.13, 0, 0), (-1, 0, 0)))),
            "horn": inflated(horn, 0.015),
        }
        | face_regions(muzzle=(-1.08, 0.77, 0.11), eye=(0.1, -0.9, 1.02)),
    )


def sheep1() -> Shape:
    """Woolly sheep with a bare face, drooping ears and thin legs."""
    # Wool: solids with ripples
    fleece = rippled(
        profile(
            [
                (-0.46, 0.68, 0.25),
                (-0.2, 0.64, 0.32),
                (0.1, 0.63, 0.33),
                (0.36, 0.65, 0.31),
                (0.5, 0.67, 0.24),
            ],
            width=0.92,
        ),
        amplitude=0.016,
        wavelength=0.17,
    )
    neck = rippled(
        profile([(-0.4, 0.76, 0.22), (-0.56, 0.95, 0.18), (-0.62, 1.02, 0.15)], width=0.85),
        0.012,
        0.17,
    )
    # Bare head and ears
    head = profile(
        [(-0.64, 1.06, 0.12), (-0.76, 0.99, 0.11), (-0.88, 0.88, 0.08), (-0.93, 0.83, 0.072)],
        width=0.78,
    )
    ear = mirrored(
        tube([(0.09, -0.65, 1.08), (0.19, -0.63, 1.05), (0.3, -0.63, 0.98)], [0.035, 0.055, 0.02])
    )
    # Tail
    tail = rippled(profile([(0.66, 0.78, 0.07), (0.76, 0.66, 0.07), (0.78, 0.5, 0.06)]), 0.01, 0.17)
    # Legs, from the trunk down
    front = pair_of_legs(
        0.16,
        [(-0.36, 0.55, 0.13), (-0.36, 0.4, 0.085), (-0.36, 0.25, 0.056), (-0.36, 0.13, 0.043)],
        foot=[(-0.37, 0.07, 0.05), (-0.385, 0.03, 0.06), (-0.39, -0.05, 0.065)],
    )
    hind = pair_of_legs(
        0.16,
        [(0.4, 0.56, 0.15), (0.38, 0.42, 0.1), (0.45, 0.27, 0.06), (0.44, 0.14, 0.045)],
        foot=[(0.43, 0.07, 0.05), (0.415, 0.03, 0.06), (0.41, -0.05, 0.065)],
    )
    # Joined with a fillet of its own width at each joint
    solid = joined(
        fleece, (neck, 0.12), (head, 0.03), (ear, 0.02), (tail, 0.04), (front, 0.04), (hind, 0.04)
    )
    # Cut flat at the feet; parts are regions of space around the solids
    return standing(
        solid,
        length=(-1.1, 0.9),
        height=1.3,
        parts=leg_regions(front, hind, "hoof", knee=0.36, ankle=0.08)
        | {
            "tail": intersect(inflated(tail, 0.02), behind(0.7)),
            "neck": intersect(inflated(neck, 0.03), half_space((0, -0.47, 0.85), (0, 0.8, -0.6))),
            "head": inflated(head, 0.025),
            "ear": intersect(inflated(ear, 0.02), mirrored(half_space((0.13, 0, 0), (-1, 0, 0)))),
        }
        | face_regions(muzzle=(-0.96, 0.81, 0.095), eye=(0.09, -0.77, 1.04)),
    )


def giraffe1() -> Shape:
    """Giraffe: sloping back, long neck with a short mane, horn knobs, tufted tail."""
    # Sloping trunk and long neck
    trunk = profile(
        [(-0.27, 0.96, 0.2), (-0.1, 0.94, 0.215), (0.1, 0.91, 0.21), (0.27, 0.89, 0.175)],
        width=0.92,
    )
    neck = profile(
        [(-0.24, 1.02, 0.19), (-0.36, 1.25, 0.12), (-0.47, 1.55, 0.085), (-0.54, 1.83, 0.07)],
        width=0.75,
    )
    # Head and mane
    head = profile(
        [(-0.55, 1.87, 0.075), (-0.64, 1.83, 0.075), (-0.76, 1.76, 0.052), (-0.83, 1.72, 0.048)],
        width=0.8,
    )
    mane = profile(
        [(-0.46, 1.86, 0.03), (-0.39, 1.6, 0.035), (-0.26, 1.3, 0.035), (-0.12, 1.12, 0.03)],
        width=0.6,
    )
    # Ossicones and ears
    horn = mirrored(
        tube(
            [(0.035, -0.55, 1.92), (0.045, -0.53, 1.99), (0.05, -0.52, 2.04)], [0.025, 0.022, 0.03]
        )
    )
    ear = mirrored(
        tube([(0.05, -0.51, 1.89), (0.13, -0.48, 1.92), (0.19, -0.47, 1.92)], [0.025, 0.038, 0.015])
    )
    # Tail
    tail = profile(
        [
            (0.4, 0.98, 0.035),
            (0.46, 0.9, 0.026),
            (0.48, 0.68, 0.022),
            (0.48, 0.58, 0.04),
            (0.48, 0.46, 0.022),
        ]
    )
    # Legs, from the trunk down
    front = pair_of_legs(
        0.105,
        [
            (-0.24, 0.88, 0.12),
            (-0.25, 0.68, 0.078),
            (-0.25, 0.45, 0.054),
            (-0.25, 0.25, 0.037),
            (-0.255, 0.12, 0.042),
        ],
        foot=[(-0.265, 0.07, 0.04), (-0.275, 0.03, 0.05), (-0.28, -0.05, 0.058)],
    )
    hind = pair_of_legs(
        0.11,
        [
            (0.26, 0.86, 0.13),
            (0.24, 0.68, 0.09),
            (0.31, 0.47, 0.058),
            (0.31, 0.25, 0.04),
            (0.305, 0.12, 0.043),
        ],
        foot=[(0.295, 0.07, 0.04), (0.285, 0.03, 0.05), (0.28, -0.05, 0.058)],
    )
    # Joined with a fillet of its own width at each joint
    solid = joined(
        trunk, (neck, 0.15), (head, 0.05), (mane, 0.02), (horn, 0.01), (ear, 0.015), (tail, 0.03)
    )
    # Cut flat at the feet; parts are regions of space around the solids
    return standing(
        joined(solid, (front, 0.08), (hind, 0.08)),
        length=(-0.95, 0.6),
        height=2.1,
        parts=leg_regions(front, hind, "hoof", knee=0.7, ankle=0.085)
        | {
            "tail": intersect(inflated(tail, 0.02), behind(0.42)),
            "neck": intersect(inflated(neck, 0.03), half_space((0, -0.3, 1.15), (0, 0.4, -0.9))),
            "mane": inflated(mane, 0.015),
            "head": inflated(head, 0.025),
            "horn": intersect(inflated(horn, 0.015), above(1.94)),
            "ear": intersect(inflated(ear, 0.02), mirrored(half_space((0.07, 0, 0), (-1, 0, 0)))),
        }
        | face_regions(muzzle=(-0.85, 1.71, 0.07), eye=(0.065, -0.64, 1.88)),
    )
