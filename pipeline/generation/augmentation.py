"""Random changes of textured meshes that the discriminator sees, the same kinds for real and generated ones.

With few photographs the discriminator learns them by heart; changes that vary at every step prevent that. Each
is applied to some samples only, and the gradient passes through, so that the generator does not
learn the changes (Zhao et al. 2020, https://arxiv.org/abs/2006.10738; Karras et al. 2020,
https://arxiv.org/abs/2006.06676).
"""

import torch
from torch import Tensor

BRIGHTNESS = 0.2  # largest shift of colors in [-1, 1]
CONTRAST = 0.3  # largest relative change of the distance to the mean color
SATURATION = 0.5  # largest relative change of the distance to gray
SHIFT = 8  # the largest shift around the sphere is a circumference divided by this
HOLE = 0.4  # side of the hidden square, relative to that of the map
_COLUMNS = 9  # uniform numbers that a sample takes


def uniform_numbers(count: int, generator: torch.Generator) -> Tensor:
    """Draws what `augment` takes for a number of samples, (count, 9) in [0, 1)."""
    return torch.rand(count, _COLUMNS, generator=generator)


def augment(
    texture: Tensor, displacement: Tensor, uniform: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """Recolors, shifts around the sphere, and hides a square, each with some probability.

    Args:
        texture: (B, 4, R, R), colors in [-1, 1] times alpha, then alpha.
        displacement: (B, 3, S, S).
        uniform: (B, 9), see `uniform_numbers`.
        probability: of each of the three changes, for each sample.

    Returns:
        Texture and displacement maps, changed.
    """
    chosen = (uniform[:, :3] < probability).to(texture)
    values = uniform[:, 3:].to(texture)
    texture = _recolor(texture, (2 * values[:, :3] - 1) * chosen[:, :1])
    # Whole texels of the displacement map, so that both maps stay together
    texels = displacement.shape[-1]
    steps = ((2 * values[:, 3] - 1) * (texels // SHIFT) * chosen[:, 1]).round().int().tolist()
    texture = _turn(texture, [step * (texture.shape[-1] // texels) for step in steps])
    displacement = _turn(displacement, steps)
    return texture * _holes(values[:, 4:6], chosen[:, 2], texture.shape[-1]), displacement


def _recolor(texture: Tensor, amounts: Tensor) -> Tensor:
    """Changes brightness, contrast and saturation by amounts (B, 3) in [-1, 1]."""
    colors, alpha = texture[:, :3], texture[:, 3:]
    brightness, contrast, saturation = amounts[:, :, None, None, None].unbind(1)
    # Contrast about the mean of what is seen; colors are multiplied by alpha, and so is the mean
    seen = alpha.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (alpha * colors.sum((1, 2, 3), keepdim=True) / (3 * seen)).expand_as(colors)
    colors = torch.lerp(mean, colors, 1 + CONTRAST * contrast)
    gray = colors.mean(1, keepdim=True).expand_as(colors)
    colors = torch.lerp(gray, colors, 1 + SATURATION * saturation)
    return torch.cat([colors + alpha * BRIGHTNESS * brightness, alpha], dim=1)


def _turn(maps: Tensor, steps: list[int]) -> Tensor:
    """Turns each map (C, H, W) around the sphere by its number of texels."""
    return torch.stack([one.roll(step, dims=-1) for one, step in zip(maps, steps, strict=True)])


def _holes(place: Tensor, chosen: Tensor, size: int) -> Tensor:
    """Returns factors (B, 1, size, size), 0 in a square around a place (B, 2) of the chosen samples."""
    position = (torch.arange(size).to(place) + 0.5) / size
    distance = (position - place[..., None]).abs()  # (B, 2, size) of rows and columns
    # Columns go around the sphere
    across = torch.minimum(distance[:, 1], 1 - distance[:, 1])
    inside = (distance[:, 0, :, None] < HOLE / 2) & (across[:, None, :] < HOLE / 2)
    return 1 - inside[:, None] * chosen[:, None, None, None]
