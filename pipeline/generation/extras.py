"""What common topology and texture coordinates make possible: sliders of shape, walks, swaps, colored parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from data.pseudo_ground_truth import PseudoGroundTruth
from geometry.glb import save_glb
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import average_poles, fold, symmetric_extension
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig
from pipeline.generation.export_folder import PARTS
from pipeline.generation.linear.generator import LinearGenerator
from pipeline.generation.model_file import Model
from rendering import gallery
from utils.cli import UserError
from utils.pictures import make_grid, part_palette, save_image, to_uint8

NUM_MODES = 6
MORPH_SAMPLES = 128  # from which the modes of shape are found
SWAPPED = 4  # samples whose textures are swapped
_WORDS = (("wider", "narrower"), ("longer", "shorter"), ("higher", "lower"))  # x, y, z
_CHANGE = 0.02  # of an extent, from which on a mode is named by it
_SIZE = 192  # pixels of a rendering
_WALK_SIZE = 256  # the same of a walk
# What pictures show, for the page
MORPHS = "morphs.glb"
CAPTIONS = {
    "walk.gif": "from one mesh to another, and back",
    "swap.png": "every texture, by column, on every shape, by row",
    PARTS: "the parts of the meshes",
}


class Drawn(NamedTuple):
    """What samples are drawn from.

    Attributes:
        model: the generator and its views.
        config: of the run, with the model's architecture.
        template: topology of the meshes.
        items: part maps and meshes, of conditional models.
        eligible: rows of the views to draw from.
    """

    model: Model
    config: GenerationConfig
    template: SphereMesh
    items: sampling.Items | None
    eligible: Sequence[int]

    def samples(self, count: int) -> sampling.Generated:
        """Returns the first samples, those that an export numbers alike."""
        rows = sampling.sample_rows(self.eligible, count, self.config.seed)
        parts = []
        for start in range(0, count, self.config.batch_size):
            numbers = range(start, min(start + self.config.batch_size, count))
            chosen = [rows[i] for i in numbers]
            parts.append(
                sampling.generate(
                    *(self.model.generator, self.config, self.model.views, self.items),
                    *(chosen, numbers),
                )
            )
        return sampling.joined(parts)


class ShapeModes(NamedTuple):
    """A mean mesh and the strongest ways in which meshes differ from it.

    Attributes:
        mean: (V, 3) object space.
        modes: name -> (V, 3) offsets of one standard deviation, the strongest first.
    """

    mean: Tensor
    modes: dict[str, Tensor]


def shape_modes(vertices: Tensor, count: int = NUM_MODES) -> ShapeModes:
    """Returns the principal components of meshes (N, V, 3), named by how they change the extents."""
    mean = vertices.mean(dim=0)
    flat = (vertices - mean).flatten(1).double()
    _, deviations, directions = torch.linalg.svd(flat, full_matrices=False)
    offsets = directions * deviations[:, None] / len(vertices) ** 0.5
    return _named(mean, offsets[: len(vertices) - 1].view(-1, *mean.shape), count)


def linear_modes(
    generator: LinearGenerator, mean: Tensor, template: SphereMesh, count: int = NUM_MODES
) -> ShapeModes:
    """Returns the modes of shape that a statistical generator consists of, about the displacement map of a mean."""
    first = len(generator.shape) - generator.num_shape_modes
    maps = symmetric_extension(average_poles(generator.shape[first:]))
    # Vertices are an affine function of displacement maps
    center = template.deform(mean[None])
    return _named(center[0], template.deform(mean + maps) - center, count)


def _named(mean: Tensor, offsets: Tensor, count: int) -> ShapeModes:
    """Names offsets (K, V, 3) of one standard deviation, the strongest first, and keeps `count`."""
    variances = offsets.square().sum((1, 2))
    shares = variances / variances.sum().clamp(min=1e-12)
    found = {}
    for number, offset in enumerate(offsets[:count].to(mean)):
        # The sign means nothing: the largest change of an extent is growth
        change = _extents(mean + offset) / _extents(mean) - 1
        if change[change.abs().argmax()] < 0:
            offset, change = -offset, _extents(mean - offset) / _extents(mean) - 1
        name = f"{number + 1}: {_describe(change)} ({100 * shares[number]:.0f} %)"
        found[name] = offset
    return ShapeModes(mean, found)


def _extents(vertices: Tensor) -> Tensor:
    return vertices.amax(dim=0) - vertices.amin(dim=0)


def _describe(change: Tensor) -> str:
    """Names a change (3,) of the extents, the largest first."""
    order = change.abs().argsort(descending=True).tolist()
    words = [_WORDS[axis][int(change[axis] < 0)] for axis in order if abs(change[axis]) > _CHANGE]
    return ", ".join(words) or "form"


def save_morphs(path: Path, drawn: Drawn, origin: Mapping[str, object]) -> None:
    """Writes the mean mesh and texture with the strongest modes of shape as morph targets."""
    generator = drawn.model.generator
    if isinstance(generator, LinearGenerator):
        rows = list(drawn.eligible)
        category = drawn.model.views.category[rows] if generator.num_classes else None
        texture, displacement = generator.mean(category)
        found = linear_modes(generator, displacement, drawn.template)
    else:
        sample = drawn.samples(MORPH_SAMPLES)
        found = shape_modes(drawn.template.deform(sample.displacement))
        texture = sample.texture.mean(0)
    save_glb(path, drawn.template, found.mean, texture, origin, found.modes)


def save_walk(path: Path, drawn: Drawn, ends: Sequence[tuple[int, int]]) -> None:
    """Writes a turntable of the way from one sample to another, each a seed and a number.

    Codes (1 - t) a + t b are scaled by 1 / |(1 - t, t)|, so that they have the variance of samples.
    """
    generator, config = drawn.model.generator, drawn.config
    size, sigma = generator.latent_dim, config.truncation_sigma
    first, last = (sampling.latent_codes([n], size, sigma, seed) for seed, n in ends)
    # There and back, so that the picture repeats without a jump
    half = gallery.TURNTABLE_FRAMES // 2
    steps = [(half - abs(half - i)) / half for i in range(gallery.TURNTABLE_FRAMES)]
    codes = [((1 - t) * first + t * last) / ((1 - t) ** 2 + t**2) ** 0.5 for t in steps]
    row = sampling.sample_rows(drawn.eligible, 1, config.seed)
    frames = []
    for number, code in enumerate(codes):
        sample = sampling.generate_from(
            code, generator, config, drawn.model.views, drawn.items, row
        )
        vertices = drawn.template.deform(sample.displacement)
        frames.append(gallery.turned(drawn.template, vertices, sample.texture, number, _WALK_SIZE))
    gallery.save_turntable(path, torch.stack(frames, dim=1))


def save_swaps(folder: Path, drawn: Drawn, origin: Mapping[str, object]) -> None:
    """Writes every texture of some samples on every shape: swap.png, and swap_<shape>_<texture>.glb."""
    sample = sampling.framed(drawn.template, drawn.samples(SWAPPED))
    vertices = drawn.template.deform(sample.displacement)
    pictures = []
    for shape in range(SWAPPED):
        # A row is one shape, from one view
        same = [shape] * SWAPPED
        row = sampling.select(sample, same)._replace(texture=sample.texture)
        colors, coverage = sampling.render(drawn.template, row, 2 * _SIZE)
        pictures.append(F.avg_pool2d(colors + (1 - coverage), 2).cpu())
        for texture in range(SWAPPED):
            if texture == shape:
                continue
            own = {**origin, "shape of sample": shape, "texture of sample": texture}
            path = folder / f"swap_{shape}_{texture}.glb"
            save_glb(path, drawn.template, vertices[shape], sample.texture[texture], own)
    grid = make_grid(torch.cat(pictures), SWAPPED, padding=0)
    save_image(folder / "swap.png", to_uint8(grid))


def save_parts(folder: Path, drawn: Drawn, count: int, origin: Mapping[str, object]) -> None:
    """Writes meshes in the colors of their parts: parts.png, and mesh_<i>_parts.glb.

    Raises:
        UserError: if there are no part maps.
    """
    texture = part_texture(drawn.config)
    sample = sampling.framed(drawn.template, drawn.samples(count))
    textures = texture.to(sample.texture).expand(count, -1, -1, -1)
    vertices = drawn.template.deform(sample.displacement)
    for number in range(count):
        path = folder / f"mesh_{number}_parts.glb"
        save_glb(path, drawn.template, vertices[number], texture, {**origin, "sample": number})
    colors, coverage = sampling.render(drawn.template, sample._replace(texture=textures), 2 * _SIZE)
    pictures = F.avg_pool2d(colors + (1 - coverage), 2).cpu()
    grid = make_grid(pictures, sampling.GRID_COLUMNS, padding=0)
    save_image(folder / PARTS, to_uint8(grid))


def part_texture(config: GenerationConfig) -> Tensor:
    """Returns a texture (3, R, R) in [-1, 1] in which each texel has the color of its usual part."""
    names = (config.data.dataset, config.model.texture_resolution, config.data.mode)
    shape = config.model.mesh_resolution
    dataset = PseudoGroundTruth(*names, segmentation=True, mesh_resolution=shape)
    mean = torch.stack([dataset[row].seg for row in range(len(dataset))]).mean(0)
    if len(mean) < 2:
        raise UserError(
            f"--part_colors: the pseudo-ground-truth of {config.data.dataset} knows no parts. Estimate poses "
            "with parts first."
        )
    # Parts are mirror-symmetric, like textures; the first channel is what belongs to none
    size = config.model.texture_resolution
    maps = F.interpolate(mean[None], (size, size), mode="bilinear", align_corners=False)
    half, _ = fold(maps, torch.ones_like(maps[:, :1]))
    parts = symmetric_extension(half)[0].argmax(dim=0)
    gray = torch.full((1, 3), 0.7)
    palette = torch.cat([gray, torch.from_numpy(part_palette(len(mean) - 1)) / 255])
    return palette[parts].movedim(2, 0) * 2 - 1
