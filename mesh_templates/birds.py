"""Birds as signed distances, in object space (x lateral, front -y, z up), about 2 units long."""

from mesh_templates.primitives import (
    Shape,
    ellipsoid,
    half_space,
    inflated,
    intersect,
    joined,
    mirrored,
    prism,
    transformed,
    tube,
    union,
)


def bird1() -> Shape:
    """Songbird with folded wings. Its long axis lies along y; the head looks slightly downwards.

    Perched birds hold this axis 30-40 degrees up; here that tilt belongs to the pose.
    """
    # Trunk, head and beak
    trunk = tube(
        [(0, -0.63, 0.05), (0, -0.42, -0.06), (0, -0.15, -0.08), (0, 0.15, -0.03), (0, 0.47, 0.1)],
        [0.17, 0.28, 0.33, 0.25, 0.08],
        width=0.66,
    )
    head = ellipsoid((0, -0.7, 0.11), (0.14, 0.185, 0.165))
    beak = tube([(0, -0.83, 0.09), (0, -0.93, 0.05), (0, -1.02, 0.01)], [0.065, 0.036, 0.008])
    # Tail, a flat fan
    feathers = [(0.06, 0.25), (0.09, 0.6), (0.11, 0.96), (0.08, 1.02), (0, 0.97)]
    tail = transformed(
        mirrored(prism([*feathers, (-0.05, 0.97), (-0.05, 0.25)], -0.035, 0.025, 2, rounding=0.02)),
        shift=(0, 0, 0.04),
        rotation=(9, 0, 0),
    )
    # Folded wings: shoulder and tip
    wing = mirrored(
        union(
            ellipsoid((0.155, -0.08, 0.04), (0.05, 0.4, 0.17), rotation=(4, 0, 3)),
            tube(
                [(0.15, 0.1, 0.05), (0.095, 0.36, 0.08), (0.05, 0.62, 0.145)],
                [0.1, 0.075, 0.03],
                0.5,
            ),
            blend=0.1,
        )
    )
    # Short legs
    leg = mirrored(
        tube([(0.09, 0, -0.22), (0.09, 0.06, -0.4), (0.08, 0.02, -0.5)], [0.08, 0.04, 0.03])
    )
    # Regions reach slightly beyond the solids, cut off where a part ends
    return Shape(
        distance=joined(trunk, (head, 0.12), (tail, 0.1), (beak, 0.04), (wing, 0.03), (leg, 0.08)),
        bounds=((-0.4, -1.08, -0.55), (0.4, 1.12, 0.4)),
        parts={
            "wing": inflated(wing, 0.012),
            "tail": intersect(inflated(tail, 0.03), half_space((0, 0.5, 0), (0, -1, 0))),
            "leg": intersect(inflated(leg, 0.03), half_space((0, 0, -0.37), (0, 0, 1))),
            "head": intersect(inflated(head, 0.05), half_space((0, -0.6, 0), (0, 1, 0.4))),
            "beak": intersect(inflated(beak, 0.02), half_space((0, -0.86, 0), (0, 1, 0))),
            "eye": mirrored(ellipsoid((0.115, -0.77, 0.15), (0.05, 0.03, 0.03))),
        },
    )


def bird2() -> Shape:
    """Water bird standing: long upright neck, flat bill, long legs with webbed feet, short tail."""
    # Trunk, neck, head and bill
    trunk = tube(
        [(0, -0.46, 0.0), (0, -0.22, -0.04), (0, 0.14, -0.02), (0, 0.45, 0.06), (0, 0.64, 0.12)],
        [0.19, 0.285, 0.27, 0.16, 0.06],
        width=0.85,
    )
    neck = tube(
        [(0, -0.38, 0.08), (0, -0.57, 0.28), (0, -0.57, 0.5), (0, -0.6, 0.64)],
        [0.19, 0.125, 0.09, 0.1],
    )
    head = ellipsoid((0, -0.65, 0.68), (0.1, 0.15, 0.11), rotation=(8, 0, 0))
    bill = tube(
        [(0, -0.75, 0.67), (0, -0.88, 0.62), (0, -1.0, 0.585)], [0.06, 0.035, 0.025], width=1.4
    )
    # Tail, a flat fan
    tail = transformed(
        mirrored(
            prism([(-0.05, 0.3), (0.1, 0.3), (0.13, 0.86), (-0.05, 0.92)], -0.035, 0.025, 2, 0.02)
        ),
        shift=(0, 0, 0.05),
        rotation=(8, 0, 0),
    )
    # Folded wings: shoulder and tip
    wing = mirrored(
        union(
            ellipsoid((0.19, -0.05, 0.04), (0.055, 0.38, 0.17), rotation=(6, 0, 4)),
            tube(
                [(0.18, 0.1, 0.06), (0.11, 0.4, 0.12), (0.05, 0.74, 0.19)], [0.1, 0.07, 0.025], 0.5
            ),
            blend=0.1,
        )
    )
    # Long legs with webbed feet
    leg = mirrored(
        tube(
            [(0.11, 0.08, -0.2), (0.11, 0.12, -0.36), (0.11, 0.09, -0.55), (0.11, 0.07, -0.74)],
            [0.1, 0.05, 0.034, 0.034],
        )
    )
    foot = mirrored(
        prism(
            [(0.08, 0.11), (0.03, -0.12), (0.11, -0.16), (0.19, -0.12), (0.14, 0.11)],
            -0.79,
            -0.73,
            2,
            0.02,
        )
    )
    # Joined with a fillet of its own width at each joint
    body = joined(trunk, (neck, 0.15), (head, 0.05), (tail, 0.08), (bill, 0.03), (wing, 0.03))
    # Regions reach slightly beyond the solids, cut off where a part ends
    return Shape(
        distance=joined(body, (leg, 0.06), (foot, 0.03)),
        bounds=((-0.4, -1.1, -0.85), (0.4, 1.0, 0.85)),
        parts={
            "wing": inflated(wing, 0.012),
            "tail": intersect(inflated(tail, 0.03), half_space((0, 0.6, 0), (0, -1, 0))),
            "leg": intersect(inflated(leg, 0.03), half_space((0, 0, -0.3), (0, 0, 1))),
            "foot": inflated(foot, 0.015),
            "neck": intersect(inflated(neck, 0.03), half_space((0, 0, 0.22), (0, 0.4, -1))),
            "head": inflated(head, 0.04),
            "eye": mirrored(ellipsoid((0.085, -0.7, 0.71), (0.04, 0.03, 0.03))),
            "beak": intersect(inflated(bill, 0.02), half_space((0, -0.79, 0), (0, 1, 0))),
        },
    )
