"""A surface that is painted in layers: positions, parts and solid noise at the visible points."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Color = Sequence[float] | NDArray


class Canvas:
    """Visible points of an individual, painted layer by layer.

    Positions are those of the undeformed template, so that patterns follow the body.

    Attributes:
        position: (P, 3) float32 in [-1, 1].
        up: (P,) vertical component of the normal.
        parts: distance (P,) to each part of the template, negative inside.
        centers: middle of each part at x >= 0.
        surface: (V, 3) vertices of the template.
        surface_parts: distance (V,) of those to each part.
        depths: largest depth inside each part, positive.
        rng: source of all numbers; what is drawn from it does not depend on the points.
        color: (P, 3) result.
        gloss: (P,) result, 0 = matte, 1 = glass.
        paint: name of the color of the paint, of what has one; else None.
    """

    def __init__(
        self,
        position: NDArray,
        up: NDArray,
        parts: dict[str, NDArray],
        template_vertices: NDArray,
        template_parts: dict[str, NDArray],
        rng: np.random.Generator,
    ) -> None:
        self.position, self.up, self.parts, self.rng = position, up, parts, rng
        self.surface, self.surface_parts = template_vertices, template_parts
        # Centers on one side, because those of pairs would lie in the middle
        one_side = template_vertices[:, 0] >= 0
        self.centers = {
            name: template_vertices[one_side & (distance <= max(distance.min(), 0))].mean(axis=0)
            for name, distance in template_parts.items()
        }
        self.depths = {name: max(float(-d.min()), 1e-3) for name, d in template_parts.items()}
        self.color = np.zeros((len(position), 3), np.float32)
        self.gloss = np.full(len(position), 0.03, np.float32)
        self.paint: str | None = None

    @property
    def y(self) -> NDArray:
        return self.position[:, 1]

    @property
    def z(self) -> NDArray:
        return self.position[:, 2]

    def fill(self, color: Color, gloss: float = 0.03) -> None:
        """Paints everything."""
        self.color[:] = color
        self.gloss[:] = gloss

    def layer(self, mask: NDArray | float, color: Color, gloss: float | None = None) -> None:
        """Blends a color (3,) or (P, 3) over where the mask (P,) is 1."""
        mask = np.asarray(mask, np.float32)
        self.color += mask[..., None] * (np.asarray(color, np.float32) - self.color)
        if gloss is not None:
            self.gloss += mask * (np.float32(gloss) - self.gloss)

    def tint(self, factor: NDArray) -> None:
        """Multiplies the brightness (P,)."""
        self.color *= factor[:, None]

    def part(self, name: str, softness: float = 0.006, inner: float = 0.0) -> NDArray:
        """Mask (P,) of a part; `inner` in [0, 1) leaves out that share of its depth from its border."""
        if name not in self.parts:
            return np.zeros(len(self.position), np.float32)
        return step(-self.parts[name] - inner * self.depths[name], 0, softness)

    def paint_part(self, name: str, color: Color, gloss: float | None = None) -> None:
        """Paints a part if the template has it."""
        if name in self.parts:
            self.layer(self.part(name), color, gloss)

    def seam(self, name: str, width: float = 0.006) -> NDArray:
        """Mask (P,) of a thin line around a part."""
        if name not in self.parts:
            return np.zeros(len(self.position), np.float32)
        return np.exp(-((self.parts[name] / width) ** 2))

    def noise(self, frequency: float | Sequence[float], count: int = 10) -> NDArray:
        """Smooth solid noise (P,) of zero mean and unit spread, even in x.

        Args:
            frequency: typical radians per unit, for all axes or each.
            count: number of waves.
        """
        # Random plane waves; |x| makes the pattern mirror-symmetric
        waves = self.rng.normal(size=(3, count)) * np.reshape(frequency, (-1, 1))
        phase = self.rng.uniform(0, 2 * np.pi, count)
        even = np.concatenate([np.abs(self.position[:, :1]), self.position[:, 1:]], axis=1)
        angles = even @ waves.astype(np.float32) + phase.astype(np.float32)
        return np.sin(angles).sum(axis=1) * np.float32((2 / count) ** 0.5)

    def chance(self, probability: float) -> bool:
        """Draws yes or no."""
        return bool(self.rng.random() < probability)

    def pick(self, colors: Sequence[Color], spread: float = 0.04) -> NDArray:
        """Draws one of the colors, slightly varied."""
        # Brightness and hue vary a little
        color = np.asarray(colors[int(self.rng.integers(len(colors)))], float)
        return np.clip(
            color * self.rng.uniform(0.88, 1.12) + self.rng.normal(0, spread / 2, 3), 0, 1
        )

    def hue(self, saturation: tuple[float, float], value: tuple[float, float]) -> NDArray:
        """Draws a color of any hue."""
        u = self.rng.random(3)
        return np.array(
            colorsys.hsv_to_rgb(
                u[0],
                saturation[0] + u[1] * (saturation[1] - saturation[0]),
                value[0] + u[2] * (value[1] - value[0]),
            )
        )


# Names of hues, each from an angle in degrees on; what is dark of the second one is brown
_HUES = (
    (345, "red"),
    (260, "purple"),
    (165, "blue"),
    (70, "green"),
    (45, "yellow"),
    (15, "orange"),
)
_GRAYS = ((0.79, "white"), (0.52, "silver"), (0.22, "gray"), (0.0, "black"))
COLOR_NAMES = (*(name for _, name in (*_HUES, *_GRAYS)), "brown")


def color_name(color: Color) -> str:
    """Names a color (3,) in [0, 1] by one of the eleven words in COLOR_NAMES."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(x) for x in color))
    if saturation < 0.35:
        return next(name for least, name in _GRAYS if value >= least)
    name = next((name for least, name in _HUES if 360 * hue >= least), "red")
    return "brown" if name == "orange" and value < 0.55 else name


def step(value: NDArray, threshold: float, softness: float) -> NDArray:
    """Smooth step (P,) from 0 below the threshold to 1 above it."""
    return 1 / (1 + np.exp(-np.clip((value - threshold) / softness, -30, 30)))
