"""What the models of four-legged animals share: tubes in the mirror plane, legs, regions of parts.

Animals are modeled standing on z = 0, front -y, in units of the height of their withers (giraffe:
half its height), then centered.
"""

from collections.abc import Sequence

from mesh_templates.primitives import (
    Distance,
    Shape,
    ellipsoid,
    half_space,
    inflated,
    intersect,
    mirrored,
    moved,
    tube,
    union,
)

Profile = Sequence[tuple[float, float, float]]


def standing(
    solid: Distance,
    length: tuple[float, float],
    height: float,
    parts: dict[str, Distance],
    width: float = 0.45,
) -> Shape:
    """The animal cut flat at its feet, moved so that its extents are centered on the origin."""
    shape = Shape(
        distance=intersect(solid, above(0)),
        bounds=((-width, length[0], 0), (width, length[1], height)),
        parts=parts,
    )
    return moved(shape, (0, -(length[0] + length[1]) / 2, -height / 2))


def profile(nodes: Profile, width: float = 1.0) -> Distance:
    """Tube in the plane x = 0 through (y, z, radius); `width` is its relative lateral size."""
    return tube([(0, y, z) for y, z, _ in nodes], [radius for *_, radius in nodes], width)


def pair_of_legs(x: float, nodes: Profile, foot: Profile) -> Distance:
    """A pair of legs at -x and x through (y, z, radius), from the trunk down to the foot."""
    path = [*nodes, *foot]
    return mirrored(tube([(x, y, z) for y, z, _ in path], [radius for *_, radius in path]))


def leg_regions(
    front: Distance, hind: Distance, foot: str, knee: float, ankle: float
) -> dict[str, Distance]:
    """Regions of the legs below the height `knee` and of the feet below `ankle`."""
    legs = inflated(union(front, hind), 0.025)
    return {"leg": intersect(legs, below(knee)), foot: intersect(legs, below(ankle))}


def face_regions(muzzle: Sequence[float], eye: Sequence[float]) -> dict[str, Distance]:
    """Regions of the nose and mouth around the muzzle (y, z, radius) and of the eyes."""
    y, z, radius = muzzle
    around = ellipsoid((0, y, z), (radius, radius, radius))
    return {
        "nose": intersect(around, above(z)),
        "mouth": intersect(around, below(z)),
        "eye": mirrored(ellipsoid(eye, (0.035, 0.03, 0.03))),
    }


def above(z: float) -> Distance:
    return half_space((0, 0, z), (0, 0, -1))


def below(z: float) -> Distance:
    return half_space((0, 0, z), (0, 0, 1))


def behind(y: float) -> Distance:
    return half_space((0, y, 0), (0, -1, 0))
