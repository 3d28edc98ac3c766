"""Paint, glass, rubber and metal: procedural textures of the vehicle categories."""

import numpy as np
from numpy.typing import NDArray

from data.synthetic.canvas import Canvas, color_name, step

RUBBER, GLASS, CHROME = (0.09, 0.09, 0.1), (0.12, 0.15, 0.18), (0.72, 0.73, 0.75)
DARK_METAL, WHITE = (0.22, 0.22, 0.24), (0.92, 0.92, 0.91)


def car(canvas: Canvas) -> None:
    """One or two colors, dark glass, lamps, grille and plates, rims in black tires."""
    paint = _paint(canvas)
    canvas.paint = color_name(paint)
    canvas.fill(paint, 0.55)
    # A second color below the waist, a dark or white roof, stripes
    waist = canvas.centers["door"][2] + canvas.rng.uniform(-0.06, 0.02)
    canvas.layer(step(-canvas.z, -waist, 0.004) * canvas.chance(0.25), _paint(canvas), 0.55)
    roof = step(canvas.z, canvas.centers["windshield"][2] + 0.01, 0.01)
    canvas.layer(roof * canvas.chance(0.15), canvas.pick([(0.08, 0.08, 0.09), WHITE]), 0.5)
    canvas.layer(
        _bonnet_stripes(canvas) * canvas.chance(0.15), canvas.pick([WHITE, (0.1, 0.1, 0.11)])
    )
    _bodywork(canvas, paint)


def truck(canvas: Canvas) -> None:
    """A colored cab, the load behind it often in another color."""
    paint = _paint(canvas)
    canvas.fill(paint, 0.45)
    # The load begins behind the cab
    rear = canvas.y > canvas.centers["window"][1] + 0.17
    load = canvas.pick([WHITE, (0.75, 0.76, 0.78), paint, (0.25, 0.35, 0.6), (0.9, 0.75, 0.3)])
    canvas.layer(rear * canvas.chance(0.7), load, 0.3)
    band = np.abs(canvas.z - canvas.centers["window"][2]) < canvas.rng.uniform(0.03, 0.1)
    canvas.layer(rear * band * canvas.chance(0.5), _paint(canvas))
    canvas.tint(1 - 0.08 * step(canvas.noise(5) - 3 * canvas.z, 0.6, 0.3))
    _bodywork(canvas, paint)


def bus(canvas: Canvas) -> None:
    """Two colors divided by a level or slanting line, rows of windows."""
    paint, second = _paint(canvas), _paint(canvas)
    canvas.fill(paint, 0.45)
    # Two colors along a line with a border
    slant = canvas.rng.normal(0, 0.08)
    line = canvas.rng.uniform(-0.14, 0.02) + slant * canvas.y
    canvas.layer(step(line - canvas.z, 0, 0.004), second, 0.45)
    canvas.layer(
        np.exp(-(((canvas.z - line) / 0.012) ** 2)), canvas.pick([WHITE, paint, (0.1, 0.1, 0.1)])
    )
    canvas.layer(step(canvas.up, 0.7, 0.1), WHITE)
    _bodywork(canvas, paint)


def motorcycle(canvas: Canvas) -> None:
    """Dark mechanics; tank, fenders and fairing painted; chrome, leather and rubber."""
    paint = _paint(canvas)
    fairing = paint if canvas.chance(0.6) else np.array(DARK_METAL)
    canvas.fill(0.5 * (fairing + DARK_METAL) if "windshield" not in canvas.parts else fairing, 0.5)
    canvas.layer(step(-canvas.z, 0.05, 0.01) * 0.85, canvas.pick([DARK_METAL, CHROME]), 0.6)
    # Stripes on tank and fairing
    stripe = step(np.sin(14 * canvas.y + 9 * canvas.z + canvas.rng.uniform(0, 6)), 0.8, 0.06)
    canvas.layer(stripe * step(canvas.z, 0.0, 0.02) * canvas.chance(0.5), _paint(canvas))
    # Cooling ribs of the engine
    ribs = 1 - 0.45 * step(np.sin(120 * canvas.z), 0.0, 0.3)
    engine = np.array(canvas.pick([CHROME, DARK_METAL, (0.5, 0.5, 0.52)]))[None] * ribs[:, None]
    canvas.layer(canvas.part("engine"), engine, 0.6)
    canvas.paint_part("fender", paint, 0.6)
    canvas.paint_part("gas_tank", paint, 0.7)
    canvas.paint_part("seat", canvas.pick([(0.07, 0.07, 0.08), (0.35, 0.2, 0.12)]), 0.15)
    canvas.paint_part("handlebar", canvas.pick([CHROME, (0.1, 0.1, 0.1)]), 0.7)
    _wheels(canvas, rim=canvas.pick([CHROME, (0.12, 0.12, 0.13), paint]))
    canvas.paint_part("windshield", (0.3, 0.36, 0.42), 0.9)
    canvas.paint_part("mirror", (0.12, 0.12, 0.13), 0.7)
    _lamps(canvas)


def airplane(canvas: Canvas) -> None:
    """White or silver with a cheat line, colored tail and engines, rows of windows."""
    base = canvas.pick([WHITE, WHITE, (0.75, 0.77, 0.8), (0.9, 0.85, 0.6), (0.35, 0.4, 0.35)])
    accent = canvas.hue((0.5, 0.95), (0.3, 0.85))
    canvas.fill(base, 0.4)
    # Belly and cheat line follow the row of windows
    level = canvas.centers["window"][2]
    below = canvas.pick([(0.6, 0.62, 0.65), accent, base])
    canvas.layer(step(level - 0.03 - canvas.z, 0, 0.004) * canvas.chance(0.6), below, 0.4)
    line = np.exp(-(((canvas.z - level + canvas.rng.uniform(-0.01, 0.04)) / 0.014) ** 4))
    canvas.layer(line * (np.abs(canvas.position[:, 0]) < 0.2), accent)
    canvas.paint_part("wing", canvas.pick([(0.7, 0.71, 0.73), base]), 0.35)
    canvas.paint_part("engine", canvas.pick([accent, (0.55, 0.57, 0.6), base]), 0.5)
    # Tail fin
    bands = step(np.sin(canvas.rng.uniform(8, 25) * (canvas.y - 0.6 * canvas.z)), 0.0, 0.08)
    canvas.layer(canvas.part("tail"), accent, 0.4)
    canvas.layer(canvas.part("tail") * bands * canvas.chance(0.5), canvas.pick([base, WHITE]))
    canvas.paint_part("nose", canvas.pick([base, (0.2, 0.2, 0.22), accent]), 0.4)
    # A thin strip stands for the many windows of an airliner; a deep cabin has one pane, in its rear
    frequency = 150 if canvas.depths["window"] < 0.03 else 1
    panes = step(np.sin(frequency * canvas.y), 0.0, 0.1)
    canvas.layer(canvas.part("window") * panes, GLASS, 0.9)
    canvas.layer(canvas.part("cockpit"), GLASS, 0.9)
    canvas.layer(0.5 * canvas.seam("door"), (0.3, 0.3, 0.32))
    canvas.paint_part("landing_gear", (0.2, 0.2, 0.21), 0.2)


def _paint(canvas: Canvas) -> NDArray:
    """Mostly white, silver, gray, black as on roads, else any strong color."""
    if canvas.chance(0.45):
        return canvas.pick([WHITE, (0.68, 0.7, 0.72), (0.4, 0.41, 0.43), (0.1, 0.1, 0.11)])
    return canvas.hue((0.55, 0.95), (0.35, 0.85))


def _bonnet_stripes(canvas: Canvas) -> NDArray:
    return step(-np.abs(np.abs(canvas.position[:, 0]) - 0.07), -0.03, 0.004) * step(
        canvas.up, 0.2, 0.1
    )


def _bodywork(canvas: Canvas, paint: NDArray) -> None:
    """Paints what cars, trucks and buses share: doors, bumpers, plates, wheels, glass and lamps."""
    canvas.layer(0.75 * canvas.seam("door"), 0.25 * paint)
    plastic = canvas.chance(0.5)
    canvas.layer(canvas.part("bumper") * plastic, (0.2, 0.2, 0.21), 0.2)
    canvas.paint_part("fender", 0.9 * paint)
    # Grille and license plates
    slats = 0.1 + 0.35 * step(np.sin(160 * canvas.z), 0.2, 0.3)
    canvas.layer(canvas.part("grillroom"), np.repeat(slats[:, None], 3, axis=1), 0.6)
    glyphs = step(np.sin(95 * canvas.position[:, 0]) + canvas.noise(60), 0.9, 0.2)
    canvas.layer(canvas.part("license_plate"), (0.92 - 0.75 * glyphs)[:, None] * [1, 1, 0.93])
    _wheels(canvas, rim=canvas.pick([CHROME, (0.5, 0.51, 0.53), (0.15, 0.15, 0.16), WHITE]))
    # Glass with reflections, in dark frames
    glass = np.asarray(GLASS) * (1 + 1.5 * step(canvas.noise(3) + 4 * canvas.z, 0.6, 0.3))[:, None]
    for name in ("window", "windshield"):
        canvas.layer(canvas.seam(name, 0.008), (0.05, 0.05, 0.06))
        canvas.layer(canvas.part(name), glass, 1.0)
    canvas.layer(canvas.part("mirror"), paint if canvas.chance(0.6) else (0.08, 0.08, 0.09), 0.5)
    _lamps(canvas)


def _wheels(canvas: Canvas, rim: NDArray) -> None:
    """Black tires around rims with a dark ring."""
    canvas.paint_part("wheel", RUBBER, 0.1)
    # Centers and radii of front and rear wheels from the vertices of the template
    inside = canvas.surface[canvas.surface_parts["wheel"] < 0][:, 1:]
    front = inside[:, 0] < (inside[:, 0].min() + inside[:, 0].max()) / 2
    radii = []
    for wheel in (inside[front], inside[~front]):
        low, high = wheel.min(axis=0), wheel.max(axis=0)
        center = (low + high) / 2
        radii.append(2 * np.hypot(*(canvas.position[:, 1:] - center).T) / (high - low).max())
    # Relative radius: rims end at 0.62, with a dark ring at 0.42
    radius = np.minimum(*radii)
    wheels = canvas.part("wheel")
    canvas.layer(wheels * step(-radius, -0.62, 0.02), rim, 0.7)
    canvas.layer(0.7 * wheels * np.exp(-(((radius - 0.42) / 0.1) ** 2)), 0.3 * rim)


def _lamps(canvas: Canvas) -> None:
    canvas.paint_part("light", (0.75, 0.08, 0.07), 0.8)
    canvas.layer(canvas.seam("headlight", 0.005), (0.2, 0.2, 0.2))
    canvas.paint_part("headlight", (0.95, 0.94, 0.86), 0.9)
