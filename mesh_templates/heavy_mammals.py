"""Elephant and bear as signed distances (units and axes: `quadruped`)."""

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
    below,
    face_regions,
    leg_regions,
    pair_of_legs,
    profile,
    standing,
)


def elephant1() -> Shape:
    """African elephant: large ears, tusks, trunk hanging to the ground, pillar legs."""
    # Torso and head
    torso = profile(
        [(-0.42, 0.68, 0.28), (-0.15, 0.65, 0.33), (0.14, 0.65, 0.34), (0.38, 0.67, 0.28)],
        width=0.98,
    )
    head = joined(
        ellipsoid((0, -0.68, 0.9), (0.19, 0.2, 0.24)),
        (ellipsoid((0, -0.74, 0.7), (0.13, 0.14, 0.14)), 0.1),
    )
    # Trunk and tusks
    trunk = profile(
        [
            (-0.82, 0.8, 0.13),
            (-0.92, 0.6, 0.095),
            (-0.95, 0.4, 0.075),
            (-0.95, 0.2, 0.06),
            (-1.0, 0.08, 0.05),
            (-1.07, 0.08, 0.042),
        ]
    )
    tusk = mirrored(
        tube(
            [(0.1, -0.8, 0.68), (0.15, -0.92, 0.53), (0.15, -1.04, 0.47), (0.13, -1.15, 0.48)],
            [0.045, 0.04, 0.032, 0.012],
        )
    )
    # Ears
    ear = mirrored(
        joined(
            ellipsoid((0.31, -0.47, 0.88), (0.037, 0.25, 0.28), rotation=(0, 0, -38)),
            (ellipsoid((0.25, -0.53, 0.67), (0.033, 0.13, 0.17), rotation=(0, 0, -38)), 0.06),
        )
    )
    # Tail
    tail = profile(
        [
            (0.66, 0.8, 0.04),
            (0.73, 0.68, 0.03),
            (0.74, 0.45, 0.025),
            (0.74, 0.36, 0.04),
            (0.74, 0.28, 0.025),
        ]
    )
    # Legs, from the trunk down
    front = pair_of_legs(
        0.18,
        [(-0.37, 0.55, 0.15), (-0.37, 0.35, 0.125), (-0.37, 0.2, 0.11)],
        foot=[(-0.38, 0.08, 0.115), (-0.39, 0.02, 0.13), (-0.39, -0.1, 0.14)],
    )
    hind = pair_of_legs(
        0.18,
        [(0.4, 0.58, 0.18), (0.38, 0.38, 0.145), (0.42, 0.22, 0.11)],
        foot=[(0.42, 0.08, 0.11), (0.41, 0.02, 0.125), (0.41, -0.1, 0.135)],
    )
    # Joined with a fillet of its own width at each joint
    solid = joined(torso, (head, 0.15), (trunk, 0.1), (tusk, 0.02), (tail, 0.03), (ear, 0.03))
    # Cut flat at the feet; parts are regions of space around the solids
    return standing(
        joined(solid, (front, 0.07), (hind, 0.07)),
        length=(-1.25, 0.85),
        height=1.25,
        width=0.6,
        parts=leg_regions(front, hind, "foot", knee=0.42, ankle=0.1)
        | {
            "tail": intersect(inflated(tail, 0.02), behind(0.7)),
            "head": inflated(head, 0.05),
            "trunk": intersect(inflated(trunk, 0.03), half_space((0, -0.85, 0.78), (0, 0.7, 0.5))),
            "ear": inflated(ear, 0.015),
            "horn": intersect(inflated(tusk, 0.015), below(0.62)),
            "eye": mirrored(ellipsoid((0.155, -0.79, 0.9), (0.06, 0.035, 0.035))),
            "mouth": ellipsoid((0, -0.74, 0.58), (0.1, 0.12, 0.06)),
        },
    )


def bear1() -> Shape:
    """Brown bear on four paws: shoulder hump, low broad head, round ears, stub tail."""
    # Trunk with the hump of its shoulders, neck
    trunk = profile(
        [
            (-0.5, 0.66, 0.27),
            (-0.22, 0.61, 0.32),
            (0.12, 0.6, 0.335),
            (0.4, 0.61, 0.31),
            (0.53, 0.6, 0.24),
        ],
        width=1.0,
    )
    hump = ellipsoid((0, -0.4, 0.83), (0.17, 0.22, 0.16))
    neck = profile([(-0.48, 0.7, 0.26), (-0.74, 0.75, 0.21)], width=0.98)
    # Head, with the muzzle
    head = joined(
        ellipsoid((0, -0.85, 0.77), (0.19, 0.19, 0.185)),
        (
            profile([(-0.95, 0.72, 0.11), (-1.06, 0.69, 0.09), (-1.13, 0.68, 0.078)], width=0.9),
            0.06,
        ),
    )
    # Ears
    ear = mirrored(ellipsoid((0.135, -0.8, 0.945), (0.065, 0.035, 0.07), rotation=(0, 20, 0)))
    # Tail
    tail = ellipsoid((0, 0.76, 0.7), (0.06, 0.07, 0.08))
    # Legs, from the trunk down
    front = pair_of_legs(
        0.19,
        [(-0.48, 0.55, 0.17), (-0.46, 0.35, 0.135), (-0.45, 0.15, 0.105)],
        foot=[(-0.47, 0.06, 0.1), (-0.56, 0.035, 0.085), (-0.6, 0.03, 0.07)],
    )
    hind = pair_of_legs(
        0.2,
        [(0.44, 0.52, 0.2), (0.42, 0.35, 0.155), (0.5, 0.17, 0.105)],
        foot=[(0.5, 0.06, 0.1), (0.4, 0.035, 0.09), (0.32, 0.03, 0.07)],
    )
    # Joined with a fillet of its own width at each joint
    solid = joined(trunk, (hump, 0.2), (neck, 0.15), (head, 0.1), (ear, 0.02), (tail, 0.04))
    # Cut flat at the feet; parts are regions of space around the solids
    return standing(
        joined(solid, (front, 0.08), (hind, 0.08)),
        length=(-1.3, 0.9),
        height=1.1,
        parts=leg_regions(front, hind, "foot", knee=0.38, ankle=0.1)
        | {
            "tail": intersect(inflated(tail, 0.02), behind(0.73)),
            "neck": intersect(inflated(neck, 0.04), half_space((0, -0.58, 0), (0, 1, 0))),
            "head": inflated(head, 0.03),
            "ear": intersect(inflated(ear, 0.02), above(0.91)),
        }
        | face_regions(muzzle=(-1.18, 0.68, 0.1), eye=(0.1, -0.99, 0.84)),
    )
