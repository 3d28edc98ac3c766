"""Horse and zebra as signed distances (units and axes: `quadruped`)."""

from mesh_templates.primitives import (
    Shape,
    ellipsoid,
    half_space,
    inflated,
    intersect,
    joined,
    mirrored,
    tube,
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


def horse1() -> Shape:
    """Riding horse with its neck up, long mane and tail."""
    # Trunk and neck, along the spine
    trunk = profile(
        [
            (-0.4, 0.76, 0.19),
            (-0.22, 0.74, 0.235),
            (0, 0.735, 0.23),
            (0.24, 0.76, 0.215),
            (0.41, 0.78, 0.18),
        ],
        width=0.97,
    )
    withers = ellipsoid((0, -0.2, 0.9), (0.08, 0.2, 0.1))
    neck = profile([(-0.34, 0.8, 0.21), (-0.52, 1.04, 0.15), (-0.66, 1.3, 0.11)], width=0.6)
    # Head, with the jaw, and mane
    head = joined(
        profile(
            [(-0.68, 1.36, 0.09), (-0.8, 1.22, 0.088), (-0.9, 1.1, 0.07), (-0.95, 1.02, 0.068)],
            width=0.72,
        ),
        (ellipsoid((0, -0.7, 1.25), (0.07, 0.1, 0.1)), 0.06),
    )
    mane = profile(
        [(-0.75, 1.45, 0.035), (-0.64, 1.44, 0.06), (-0.48, 1.23, 0.07), (-0.3, 1.0, 0.05)],
        width=0.55,
    )
    # Ears
    ear = mirrored(
        tube([(0.05, -0.66, 1.41), (0.065, -0.67, 1.48), (0.06, -0.69, 1.55)], [0.04, 0.036, 0.01])
    )
    # Tail
    tail = profile(
        [
            (0.5, 0.9, 0.05),
            (0.61, 0.84, 0.05),
            (0.66, 0.65, 0.065),
            (0.66, 0.45, 0.07),
            (0.64, 0.25, 0.03),
        ]
    )
    # Legs, from the trunk down
    front = pair_of_legs(
        0.115,
        [
            (-0.32, 0.7, 0.12),
            (-0.33, 0.53, 0.085),
            (-0.33, 0.34, 0.053),
            (-0.33, 0.2, 0.037),
            (-0.335, 0.12, 0.045),
        ],
        foot=[(-0.35, 0.07, 0.04), (-0.365, 0.03, 0.056), (-0.37, -0.05, 0.065)],
    )
    hind = pair_of_legs(
        0.125,
        [
            (0.33, 0.74, 0.14),
            (0.3, 0.57, 0.115),
            (0.38, 0.43, 0.07),
            (0.44, 0.35, 0.056),
            (0.43, 0.2, 0.04),
        ],
        foot=[(0.425, 0.12, 0.046), (0.41, 0.07, 0.04), (0.395, 0.03, 0.057), (0.39, -0.05, 0.066)],
    )
    # Joined with a fillet of its own width at each joint
    solid = joined(
        trunk, (withers, 0.15), (neck, 0.15), (head, 0.06), (mane, 0.03), (ear, 0.015), (tail, 0.03)
    )
    # Cut flat at the feet; parts are regions of space around the solids
    return standing(
        joined(solid, (front, 0.08), (hind, 0.08)),
        length=(-1.1, 0.8),
        height=1.6,
        parts=leg_regions(front, hind, "hoof", knee=0.55, ankle=0.09)
        | {
            "tail": intersect(inflated(tail, 0.02), behind(0.52)),
            "neck": intersect(inflated(neck, 0.03), half_space((0, -0.42, 0.9), (0, 0.6, -0.8))),
            "mane": inflated(mane, 0.015),
            "head": inflated(head, 0.03),
            "ear": intersect(inflated(ear, 0.02), above(1.42)),
        }
        | face_regions(muzzle=(-1.0, 1.01, 0.09), eye=(0.075, -0.77, 1.3)),
    )


def zebra1() -> Shape:
    """Stockier than the horse, with an upright mane, large round ears and a tufted tail."""
    # Trunk and neck, along the spine
    trunk = profile(
        [
            (-0.38, 0.74, 0.21),
            (-0.2, 0.71, 0.26),
            (0.02, 0.69, 0.275),
            (0.24, 0.73, 0.24),
            (0.4, 0.77, 0.19),
        ],
        width=0.95,
    )
    neck = profile([(-0.34, 0.8, 0.2), (-0.5, 1.03, 0.155), (-0.61, 1.23, 0.115)], width=0.65)
    # Head, with the jaw, and mane
    head = joined(
        profile(
            [(-0.63, 1.28, 0.09), (-0.74, 1.15, 0.09), (-0.84, 1.03, 0.078), (-0.88, 0.97, 0.075)],
            width=0.75,
        ),
        (ellipsoid((0, -0.65, 1.17), (0.075, 0.1, 0.1)), 0.06),
    )
    mane = profile(
        [(-0.7, 1.4, 0.03), (-0.6, 1.42, 0.055), (-0.45, 1.23, 0.07), (-0.26, 1.0, 0.045)],
        width=0.5,
    )
    # Ears
    ear = mirrored(
        tube([(0.06, -0.6, 1.33), (0.1, -0.6, 1.42), (0.1, -0.61, 1.49)], [0.045, 0.055, 0.02])
    )
    # Tail
    tail = profile(
        [
            (0.5, 0.88, 0.04),
            (0.59, 0.8, 0.03),
            (0.62, 0.6, 0.026),
            (0.62, 0.45, 0.045),
            (0.61, 0.3, 0.025),
        ]
    )
    # Legs, from the trunk down
    front = pair_of_legs(
        0.125,
        [
            (-0.31, 0.68, 0.12),
            (-0.32, 0.5, 0.085),
            (-0.32, 0.32, 0.056),
            (-0.32, 0.19, 0.04),
            (-0.325, 0.12, 0.047),
        ],
        foot=[(-0.335, 0.07, 0.043), (-0.35, 0.03, 0.056), (-0.355, -0.05, 0.065)],
    )
    hind = pair_of_legs(
        0.135,
        [
            (0.33, 0.72, 0.15),
            (0.3, 0.54, 0.12),
            (0.37, 0.42, 0.075),
            (0.43, 0.33, 0.058),
            (0.42, 0.19, 0.043),
        ],
        foot=[(0.415, 0.12, 0.048), (0.4, 0.07, 0.043), (0.385, 0.03, 0.057), (0.38, -0.05, 0.066)],
    )
    # Joined with a fillet of its own width at each joint
    solid = joined(trunk, (neck, 0.15), (head, 0.06), (mane, 0.02), (ear, 0.015), (tail, 0.03))
    # Cut flat at the feet; parts are regions of space around the solids
    return standing(
        joined(solid, (front, 0.08), (hind, 0.08)),
        length=(-1.05, 0.75),
        height=1.55,
        parts=leg_regions(front, hind, "hoof", knee=0.5, ankle=0.09)
        | {
            "tail": intersect(inflated(tail, 0.02), behind(0.53)),
            "neck": intersect(inflated(neck, 0.03), half_space((0, -0.42, 0.9), (0, 0.6, -0.8))),
            "mane": inflated(mane, 0.015),
            "head": inflated(head, 0.03),
            "ear": intersect(inflated(ear, 0.02), above(1.34)),
        }
        | face_regions(muzzle=(-0.92, 0.95, 0.095), eye=(0.08, -0.71, 1.23)),
    )
