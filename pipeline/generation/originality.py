"""How samples relate to what was trained on: the nearest training texture of each, and their diversity.

Textures are compared as mirror-symmetric ones, on the texels that both sides show. Samples that copy
lie nearer to a training texture than other photographs do; samples that are all alike lie nearer to each
other than training textures do.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data.pseudo_ground_truth import PseudoGroundTruth, UVSample
from geometry.sphere_mesh import SphereMesh
from geometry.uv_maps import fold, symmetric_extension
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig
from pipeline.generation.linear.refined import AnyGenerator
from utils.pictures import labeled_rows
from utils.progress import progress

NUM_SAMPLES = 128
_SIZE = 64  # texels in which textures are compared
_SHARED = 0.1  # of the texels, in which two textures are to be seen for a comparison
_SHOWN = 12
_PICTURE = 128  # pixels of a rendering


class Textures(NamedTuple):
    """Small mirror-symmetric textures, and where they were seen.

    Attributes:
        colors: (N, 3, 64, 32) in [0, 1].
        seen: (N, 1, 64, 32) 0 or 1.
    """

    colors: Tensor
    seen: Tensor


class Originality(NamedTuple):
    """Distances within and between samples and training items.

    Colors are in [0, 1], and differences root mean squares; shapes differ by the mean distance of
    corresponding vertices, in radii of the sphere. NaN where there is nothing to compare.

    Attributes:
        nearest: median distance of a sample's texture to the nearest training texture.
        nearest_held_out: the same of the textures of photographs that were kept.
        texture, shape: mean difference of two samples.
        training_texture, training_shape: the same of two training items.
    """

    nearest: float
    nearest_held_out: float
    texture: float
    training_texture: float
    shape: float
    training_shape: float

    def lines(self) -> Iterator[str]:
        """Yields what to say of it."""
        held_out = (
            ""
            if np.isnan(self.nearest_held_out)
            else f"; held-out ones {self.nearest_held_out:.3f}"
        )
        yield f"nearest training texture: {self.nearest:.3f} away in color{held_out}"
        yield (
            f"diversity: two textures differ by {self.texture:.3f} (in training {self.training_texture:.3f}), "
            f"two shapes by {self.shape:.4f} radii (in training {self.training_shape:.4f})"
        )


class Compared(NamedTuple):
    """What is compared: samples, what was trained on, and what was kept.

    Attributes:
        samples, trained, held_out: textures; None where nothing was kept.
        sample_labels, trained_labels, held_out_labels: (N,) or (N, S) classes or labels of these.
        shapes, trained_shapes: (N, V, 3) vertices.
        shown: the first samples, as they were generated.
    """

    samples: Textures
    sample_labels: Tensor
    shapes: Tensor
    trained: Textures
    trained_labels: Tensor
    trained_shapes: Tensor
    held_out: Textures | None
    held_out_labels: Tensor | None
    shown: sampling.Generated


def collect(
    generator: AnyGenerator,
    config: GenerationConfig,
    dataset: PseudoGroundTruth,
    held_out: PseudoGroundTruth | None,
    template: SphereMesh,
) -> Compared:
    """Generates samples, and reads what they are compared with.

    Args:
        generator: in evaluation mode.
        config: of the run.
        dataset: what was trained on.
        held_out: what was kept; None for nothing.
        template: topology of the meshes.
    """
    eligible = sampling.eligible_rows(config, dataset.metadata, None, dataset.label_names)
    rows = sampling.sample_rows(eligible, NUM_SAMPLES, config.seed)
    sampled, shapes, shown = [], [], []
    for start in range(0, NUM_SAMPLES, config.batch_size):
        numbers = range(start, min(start + config.batch_size, NUM_SAMPLES))
        chosen = [rows[i] for i in numbers]
        sample = sampling.generate(generator, config, dataset.metadata, dataset, chosen, numbers)
        sampled.append(small(sample.texture, torch.ones_like(sample.texture[:, :1])))
        shapes.append(template.deform(sample.displacement).cpu())
        shown.append(sampling.select(sample, [i for i, n in enumerate(numbers) if n < _SHOWN]))
    trained, trained_shapes = _items(dataset, template)
    return Compared(
        samples=_joined(sampled),
        sample_labels=dataset.metadata.category[rows],
        shapes=torch.cat(shapes),
        trained=trained,
        trained_labels=dataset.metadata.category,
        trained_shapes=trained_shapes,
        held_out=None if held_out is None else _items(held_out, template)[0],
        held_out_labels=None if held_out is None else held_out.metadata.category,
        shown=sampling.joined(shown),
    )


def originality(compared: Compared) -> Originality:
    """Returns the distances within and between samples and training items."""
    trained, held_out = compared.trained, compared.held_out
    return Originality(
        nearest=_nearest(compared.samples, trained),
        nearest_held_out=float("nan") if held_out is None else _nearest(held_out, trained),
        texture=_mean_of_pairs(differences(compared.samples, compared.samples)),
        training_texture=_mean_of_pairs(differences(trained, trained)),
        shape=_mean_of_pairs(shape_differences(compared.shapes)),
        training_shape=_mean_of_pairs(shape_differences(compared.trained_shapes)),
    )


def small(textures: Tensor, alpha: Tensor) -> Textures:
    """Returns textures (B, 3, R, R) in [-1, 1], 0 where alpha (B, 1, R, R) is, as small symmetric ones."""
    # A texel that is half background has the color of neither
    seen = (alpha > 0.5).to(textures)
    colors, weights = fold(textures / alpha.clamp(min=0.5), seen)
    step = colors.shape[-2] // _SIZE
    mass = F.avg_pool2d(weights, step)
    means = F.avg_pool2d(colors * weights, step) / mass.clamp(min=1e-6)
    return Textures((means / 2 + 0.5).cpu(), (mass > 0.5).float().cpu())


def differences(first: Textures, second: Textures) -> Tensor:
    """Returns the root mean squared differences (N, M) on common texels; infinite if these are few."""
    x, y = first.colors.flatten(2), second.colors.flatten(2)  # (N, 3, T)
    seen, other = first.seen.flatten(1), second.seen.flatten(1)  # (N, T)
    # (x - y)^2 = x^2 - 2 x y + y^2, each summed where both are seen; in double, for these cancel
    x, y = (x * seen[:, None]).double(), (y * other[:, None]).double()
    seen, other = seen.double(), other.double()
    squares = x.square().sum(1) @ other.T + seen @ y.square().sum(1).T
    squares -= 2 * x.flatten(1) @ y.flatten(1).T
    common = seen @ other.T
    mean = squares.clamp(min=0) / (3 * common.clamp(min=1))
    return mean.sqrt().where(common >= _SHARED * seen.shape[1], torch.inf)


def shape_differences(vertices: Tensor) -> Tensor:
    """Returns mean distances (N, N) of the corresponding vertices (N, V, 3) of meshes."""
    return torch.stack([(vertices - one).norm(dim=-1).mean(dim=1) for one in vertices])


def _mean_of_pairs(matrix: Tensor) -> float:
    """Returns the mean of the finite entries off the diagonal."""
    kept = ~torch.eye(len(matrix), dtype=torch.bool) & matrix.isfinite()
    return matrix[kept].mean().item()


def _items(dataset: PseudoGroundTruth, template: SphereMesh) -> tuple[Textures, Tensor]:
    """Returns textures and vertices (N, V, 3) of all items."""
    textures, shapes = [], []
    for row in progress(range(len(dataset)), description="training textures"):
        item = dataset[row]
        textures.append(small(item.texture[None], item.alpha[None]))
        shapes.append(item.mesh)
    device = template.vertices.device
    return _joined(textures), template.deform(torch.stack(shapes).to(device)).cpu()


def _nearest(textures: Textures, trained: Textures) -> float:
    return differences(textures, trained).min(dim=1).values.median().item()


def _both_sides(item: UVSample) -> Tensor:
    """Returns the texture (3, R, R) of an item, what one side shows on both as in samples; gray elsewhere."""
    seen = (item.alpha > 0.5).to(item.texture)
    half, _ = fold(item.texture[None] / item.alpha[None].clamp(min=0.5), seen[None])
    return symmetric_extension(half)[0]


def _joined(parts: Sequence[Textures]) -> Textures:
    return Textures(*(torch.cat(members) for members in zip(*parts, strict=True)))


def draw(compared: Compared, dataset: PseudoGroundTruth, template: SphereMesh) -> np.ndarray:
    """Draws samples, their texture maps, and the nearest training textures on the same meshes, (H, W, 3) uint8."""
    sample = compared.shown
    distances, index = differences(compared.samples, compared.trained).min(dim=1)
    chosen = index[: len(sample.texture)].tolist()
    nearest = torch.stack([_both_sides(dataset[row]) for row in chosen]).to(sample.texture)
    rows = {}
    for name, texture in ("samples", sample.texture), ("nearest training textures", nearest):
        colors, coverage = sampling.render(template, sample._replace(texture=texture), _PICTURE)
        maps = F.interpolate(texture, (_PICTURE, _PICTURE), mode="area")
        rows[name] = (colors + (1 - coverage)).cpu()
        rows[f"{name}, maps"] = maps.cpu()
    return labeled_rows(rows, f"{distances.min():.3f} to {distances.max():.3f} away")
