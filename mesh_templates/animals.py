"""Animals as signed distances, in object space (x lateral, front -y, z up), about 2 units long."""

from collections.abc import Callable

from mesh_templates.primitives import (
    Shape,
    ellipsoid,
    half_space,
    inflated,
    intersect,
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
    trunk = tube(
        [(0, -0.62, 0.08), (0, -0.42, 0), (0, -0.18, -0.03), (0, 0.12, 0), (0, 0.47, 0.1)],
        [0.15, 0.25, 0.29, 0.22, 0.07],
        width=0.82,
    )
    head = ellipsoid((0, -0.7, 0.13), (0.155, 0.185, 0.165))
    beak = tube([(0, -0.83, 0.11), (0, -0.93, 0.075), (0, -1.02, 0.035)], [0.065, 0.036, 0.008])
    feathers = [(0.06, 0.25), (0.105, 0.6), (0.14, 0.96), (0.1, 1.02), (0, 0.97)]
    tail = transformed(
        mirrored(prism([*feathers, (-0.05, 0.97), (-0.05, 0.25)], -0.035, 0.025, 2, rounding=0.02)),
        shift=(0, 0, 0.04),
        rotation=(9, 0, 0),
    )
    wing = mirrored(
        union(
            ellipsoid((0.182, -0.08, 0.05), (0.055, 0.4, 0.16), rotation=(4, 0, 3)),
            tube(
                [(0.18, 0.1, 0.06), (0.11, 0.36, 0.08), (0.05, 0.62, 0.145)],
                [0.1, 0.075, 0.03],
                0.5,
            ),
            blend=0.1,
        )
    )
    leg = mirrored(
        tube([(0.1, 0, -0.2), (0.1, 0.06, -0.36), (0.09, 0.02, -0.46)], [0.09, 0.04, 0.03])
    )
    body = union(union(trunk, head, blend=0.12), tail, blend=0.1)
    body = union(union(body, beak, blend=0.04), wing, blend=0.03)
    return Shape(
        distance=union(body, leg, blend=0.08),
        bounds=((-0.4, -1.08, -0.55), (0.4, 1.12, 0.4)),
        parts={
            "wing": inflated(wing, 0.012),
            "tail": intersect(inflated(tail, 0.03), half_space((0, 0.5, 0), (0, -1, 0))),
            "leg": intersect(inflated(leg, 0.03), half_space((0, 0, -0.29), (0, 0, 1))),
            "head": intersect(inflated(head, 0.05), half_space((0, -0.6, 0), (0, 1, 0.4))),
            "beak": intersect(inflated(beak, 0.02), half_space((0, -0.86, 0), (0, 1, 0))),
            "eye": mirrored(ellipsoid((0.13, -0.76, 0.16), (0.05, 0.03, 0.03))),
        },
    )


SHAPES: dict[str, Callable[[], Shape]] = {"bird1": bird1}
