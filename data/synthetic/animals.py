"""Coats and plumages: procedural textures of the animal categories."""

import numpy as np
from scipy.spatial import KDTree

from data.synthetic.canvas import Canvas, step

BLACK, DARK, WHITE, CREAM = (
    (0.06, 0.06, 0.07),
    (0.16, 0.13, 0.11),
    (0.93, 0.92, 0.9),
    (0.9, 0.84, 0.7),
)


def bird(canvas: Canvas) -> None:
    """Two-toned: back against belly; wings with bars, cap, banded tail, perhaps a spotted breast."""
    back = canvas.hue((0.15, 0.9), (0.35, 0.95))
    belly = canvas.pick(
        [WHITE, CREAM, (0.95, 0.8, 0.2), (0.9, 0.5, 0.2), (0.75, 0.2, 0.15), 1.25 * back]
    )
    wing = canvas.pick([0.6 * back, DARK, canvas.hue((0.2, 0.8), (0.2, 0.7)), (0.5, 0.42, 0.34)])
    accent = canvas.pick([BLACK, WHITE, (0.85, 0.15, 0.12), (0.95, 0.75, 0.15), wing])
    canvas.fill(back)
    # Belly, spots on the breast, head
    below = step(
        -0.8 * canvas.up - 2 * canvas.z + 0.3 * canvas.noise(5), canvas.rng.uniform(-0.3, 0.3), 0.12
    )
    canvas.layer(below, belly)
    spots = step(canvas.noise((26, 14, 26)), 0.9, 0.15) * below
    canvas.layer(spots * canvas.chance(0.4), 0.4 * back)
    canvas.layer(canvas.part("head") * canvas.chance(0.5), back)
    cap_height = canvas.centers["head"][2] + canvas.rng.uniform(-0.04, 0.04)
    cap = canvas.part("head", 0.015) * step(canvas.z, cap_height, 0.012)
    canvas.layer(cap * canvas.chance(0.6), accent)
    canvas.layer(canvas.part("wing", 0.008), wing)
    # Wings and tail with bars
    angle, bars = canvas.rng.uniform(-0.5, 0.5), canvas.rng.uniform(14, 30)
    phase = bars * (np.cos(angle) * canvas.y + np.sin(angle) * canvas.z) + 0.6 * canvas.noise(6)
    canvas.layer(0.9 * canvas.part("wing") * step(np.sin(phase), 0.75, 0.12), accent)
    canvas.layer(0.9 * canvas.part("tail"), wing)
    canvas.layer(
        canvas.part("tail") * step(np.sin(2 * phase), 0.5, 0.2) * canvas.chance(0.5), accent
    )
    canvas.tint(1 + 0.09 * canvas.noise((30, 9, 30)) + 0.05 * canvas.noise(60))
    # Bare parts
    beak = canvas.pick([(0.9, 0.55, 0.12), (0.25, 0.22, 0.2), (0.75, 0.65, 0.5), (0.95, 0.8, 0.2)])
    legs = canvas.pick([beak, (0.4, 0.3, 0.25), (0.85, 0.5, 0.35)])
    canvas.paint_part("leg", legs)
    canvas.paint_part("foot", legs)
    canvas.paint_part("beak", beak, 0.25)
    _eyes(canvas, BLACK if canvas.chance(0.7) else (0.8, 0.5, 0.1))


def zebra(canvas: Canvas) -> None:
    """Stripes around the trunk and neck, level ones on the legs, pale belly, dark muzzle."""
    canvas.fill(canvas.pick([WHITE, CREAM], 0.02))
    # Stripes around the body, distorted by noise, and level ones on the legs
    warp = 0.9 * canvas.noise(3) + 0.35 * canvas.noise(9)
    around = canvas.rng.uniform(26, 38) * (canvas.y + 0.35 * np.minimum(canvas.z, 0) * canvas.y)
    level = canvas.rng.uniform(40, 52) * canvas.z
    legs = canvas.part("leg", 0.06)
    wave = (1 - legs) * np.sin(around + warp) + legs * np.sin(level + 0.5 * warp)
    # The belly stays pale
    belly = step(-canvas.up, 0.75, 0.08) * (1 - legs)
    stripes = step(wave, canvas.rng.uniform(-0.15, 0.2), 0.12) * (1 - 0.9 * belly)
    canvas.layer(stripes, canvas.pick([BLACK, DARK], 0.02))
    _extremities(canvas, muzzle=(0.14, 0.11, 0.1), hooves=(0.15, 0.14, 0.13))
    tuft = canvas.part("tail") * step(-canvas.z, -canvas.centers["tail"][2], 0.05)
    canvas.layer(tuft, BLACK)
    _eyes(canvas, BLACK)


def horse(canvas: Canvas) -> None:
    """Bay, chestnut, black, gray, palomino or pinto, with socks and a blaze now and then."""
    coats = [
        ((0.42, 0.22, 0.11), BLACK), ((0.52, 0.26, 0.11), (0.46, 0.22, 0.09)), ((0.13, 0.11, 0.11), BLACK),
        ((0.72, 0.72, 0.72), (0.85, 0.85, 0.85)), ((0.8, 0.6, 0.32), WHITE), ((0.33, 0.2, 0.13), (0.2, 0.13, 0.1)),
    ]  # fmt: skip
    body, hair = coats[int(canvas.rng.integers(len(coats)))]
    canvas.fill(canvas.pick([body]), 0.1)
    canvas.layer(0.5 * step(canvas.noise(4), 0.4, 0.4), 1.2 * np.array(body))
    canvas.layer(step(canvas.noise(3.5), 0.5, 0.07) * canvas.chance(0.2), WHITE)
    # Socks, mane and tail, blaze
    low = step(-canvas.z, -canvas.centers["leg"][2] + canvas.rng.uniform(0, 0.1), 0.04)
    canvas.layer(0.8 * canvas.part("leg", 0.03) * low, WHITE if canvas.chance(0.35) else hair)
    for name in ("mane", "tail"):
        canvas.layer(
            canvas.part(name, 0.01), np.array(hair) * (1 + 0.15 * canvas.noise(25))[:, None]
        )
    blaze = (
        step(-np.abs(canvas.position[:, 0]), -0.022, 0.006)
        * canvas.part("head")
        * step(canvas.up - canvas.y, 0.9, 0.2)
    )
    canvas.layer(blaze * canvas.chance(0.5), WHITE)
    _extremities(canvas, muzzle=0.6 * np.array(body), hooves=(0.2, 0.17, 0.14))
    _eyes(canvas, BLACK)


def cow(canvas: Canvas) -> None:
    """Black or brown patches on white, or one color with a white face."""
    dark = canvas.pick([BLACK, (0.35, 0.2, 0.12), (0.5, 0.27, 0.13), (0.2, 0.15, 0.12)])
    if canvas.chance(0.65):
        canvas.fill(WHITE)
        patches = canvas.noise(canvas.rng.uniform(3, 5)) + 0.25 * canvas.noise(12)
        canvas.layer(step(patches, canvas.rng.uniform(-0.3, 0.4), 0.06), dark)
    else:
        canvas.fill(canvas.pick([dark, (0.75, 0.55, 0.35), CREAM]))
        canvas.layer(canvas.part("head", 0.03) * canvas.chance(0.5), WHITE)
        canvas.layer(0.5 * step(-canvas.up, 0.5, 0.2), CREAM)
    canvas.tint(1 + 0.06 * canvas.noise(20))
    _extremities(canvas, muzzle=(0.75, 0.55, 0.5), hooves=(0.2, 0.17, 0.15))
    canvas.paint_part("horn", (0.85, 0.8, 0.68), 0.2)
    _eyes(canvas, BLACK)


def sheep(canvas: Canvas) -> None:
    """Curly wool; face, ears and legs smooth, often dark."""
    canvas.fill(canvas.pick([CREAM, WHITE, (0.8, 0.76, 0.68), (0.35, 0.28, 0.23)]))
    canvas.tint(1 + 0.08 * canvas.noise(18) + 0.1 * canvas.noise(45))
    # Legs and face are bare skin
    skin = canvas.pick([BLACK, DARK, WHITE, (0.75, 0.62, 0.5)])
    for name in ("leg", "head", "ear"):
        canvas.layer(canvas.part(name, 0.02), skin)
    _extremities(canvas, muzzle=0.8 * skin, hooves=(0.18, 0.16, 0.14))
    canvas.paint_part("horn", (0.72, 0.64, 0.5), 0.15)
    _eyes(canvas, (0.5, 0.4, 0.15) if canvas.chance(0.3) else BLACK)


def elephant(canvas: Canvas) -> None:
    """Gray to dusty brown, wrinkled; toenails and tusks pale."""
    skin = canvas.pick(
        [(0.47, 0.45, 0.44), (0.42, 0.36, 0.31), (0.55, 0.46, 0.38), (0.36, 0.36, 0.38)]
    )
    canvas.fill(skin)
    # Dust on the back, wrinkles, speckles
    dust = step(canvas.noise(3.5) + canvas.up, 0.6, 0.4)
    canvas.layer(0.5 * dust, canvas.pick([(0.62, 0.5, 0.38), (0.55, 0.5, 0.45)]))
    canvas.tint(1 - 0.22 * step(np.sin(3 * canvas.noise((12, 12, 30))), 0.7, 0.15))
    canvas.tint(1 + 0.06 * canvas.noise(40))
    canvas.layer(0.25 * canvas.part("ear") * step(canvas.noise(8), 0.3, 0.3), (0.7, 0.52, 0.48))
    nails = canvas.part("foot") * step(np.sin(canvas.noise(14) * 3), 0.2, 0.1)
    canvas.layer(0.35 * nails, (0.78, 0.74, 0.66))
    canvas.paint_part("horn", (0.93, 0.89, 0.78), 0.35)
    _eyes(canvas, (0.2, 0.12, 0.06))


def bear(canvas: Canvas) -> None:
    """Brown, black, cinnamon or white fur, muzzle paler or darker."""
    fur = canvas.pick(
        [
            (0.32, 0.2, 0.12),
            (0.1, 0.09, 0.09),
            (0.5, 0.33, 0.18),
            (0.9, 0.87, 0.78),
            (0.42, 0.3, 0.2),
        ]
    )
    canvas.fill(fur)
    canvas.layer(0.5 * step(canvas.up + 0.5 * canvas.noise(4), 0.3, 0.3), np.minimum(1.25 * fur, 1))
    canvas.tint(1 + 0.07 * canvas.noise((40, 16, 25)) + 0.04 * canvas.noise(70))
    canvas.layer(0.5 * canvas.part("leg", 0.04), 0.7 * fur)
    _extremities(canvas, muzzle=canvas.pick([(0.62, 0.48, 0.34), 0.7 * fur]), hooves=0.5 * fur)
    # The tip of the nose is a black disc
    tip = np.linalg.norm(
        canvas.position - [0, canvas.surface[:, 1].min(), canvas.centers["nose"][2]], axis=1
    )
    canvas.layer(step(-tip, -0.07, 0.008), BLACK, 0.4)
    _eyes(canvas, BLACK)


def giraffe(canvas: Canvas) -> None:
    """Reticulated: polygons between pale lines, fading towards belly, face and feet."""
    lines = canvas.pick([CREAM, (0.93, 0.86, 0.68)])
    canvas.fill(lines)
    # Patches are Voronoi cells of random points, the same on both sides
    chosen = canvas.rng.choice(
        len(canvas.surface), int(canvas.rng.integers(260, 420)), replace=False
    )
    seeds = canvas.surface[chosen]
    seeds[:, 0] = np.abs(seeds[:, 0])
    warped = canvas.position + 0.008 * canvas.noise(25)[:, None]
    warped[:, 0] = np.abs(warped[:, 0])
    distance, nearest = map(np.asarray, KDTree(seeds).query(warped, k=2))
    shades = np.clip(1 + 0.16 * canvas.rng.normal(size=len(seeds)), 0.6, 1.4)[nearest[:, 0], None]
    # Lines run where the two nearest points are equally far
    patches = step(distance[:, 1] - distance[:, 0], canvas.rng.uniform(0.008, 0.018), 0.004)
    face = canvas.part("head", 0.02) + canvas.part("ear") + canvas.part("hoof")
    pale = step(-canvas.up, 0.8, 0.08) + 0.8 * step(-canvas.z, 0.6, 0.08) + 0.8 * face
    brown = canvas.pick([(0.56, 0.32, 0.14), (0.45, 0.25, 0.12), (0.66, 0.42, 0.2)])
    canvas.layer(patches * np.clip(1 - pale, 0, 1), np.clip(brown * shades, 0, 1))
    canvas.paint_part("mane", (0.45, 0.26, 0.13))
    canvas.layer(canvas.part("tail") * step(-canvas.z, -canvas.centers["tail"][2], 0.03), DARK)
    _extremities(canvas, muzzle=(0.62, 0.5, 0.4), hooves=(0.3, 0.24, 0.2))
    canvas.paint_part("horn", DARK)
    _eyes(canvas, BLACK)


def _extremities(canvas: Canvas, muzzle: object, hooves: object) -> None:
    for name, color in (("nose", muzzle), ("mouth", muzzle), ("hoof", hooves), ("foot", hooves)):
        canvas.layer(canvas.part(name, 0.012), np.asarray(color))


def _eyes(canvas: Canvas, color: object) -> None:
    canvas.layer(canvas.part("eye", 0.004), np.asarray(color), 0.9)
