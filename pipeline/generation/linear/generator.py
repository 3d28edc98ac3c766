"""The statistical generator: a mean and modes of textures and of displacement maps, and no network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from geometry.uv_maps import MESH_RESOLUTIONS, average_poles, symmetric_extension
from models.conditions import UNCONDITIONAL, Conditions, class_sizes, columns_of


class LinearGenerator(nn.Module):
    """Adds to a mean texture and a mean shape, which depend on the class, modes times latent codes.

    The first latent codes are those of the shape, the others those of the texture.

    Attributes:
        shape: (P + S, 3, H, H/2) half displacement maps: the mean, what each of the P - 1 labels of all
            sets adds to it, and S modes, the strongest first; scaled to codes of unit variance.
        texture: (P + T, 3, R, R/2) half textures, likewise.
        latent_dim: S + T.
        num_shape_modes: S.
        num_classes: number of labels of each set; empty for an unconditional model.
        num_parts: 0, the model is not conditional on parts.
    """

    num_parts = 0

    def __init__(self, shape: Tensor, texture: Tensor, num_classes: int | Sequence[int]) -> None:
        super().__init__()
        self.num_classes = class_sizes(num_classes)
        self.shape = nn.Parameter(shape, requires_grad=False)
        self.texture = nn.Parameter(texture, requires_grad=False)
        self.register_buffer("classes", torch.tensor(self.num_classes, dtype=torch.int64))
        means = 1 + sum(self.num_classes)
        self.num_shape_modes = len(shape) - means
        self.latent_dim = len(shape) + len(texture) - 2 * means

    def forward(self, z: Tensor, conditions: Conditions = UNCONDITIONAL) -> tuple[Tensor, Tensor]:
        """Generates textured meshes: textures (B, 3, R, R) in [-1, 1] and displacement maps (B, 3, H, H).

        Args:
            z: (B, latent_dim) latent codes.
            conditions: category, as far as the model is conditional on it.
        """
        conditions.check(self.num_classes, self.num_parts)
        return self._generate(design(conditions.category, self.num_classes, len(z)).to(z), z)

    def mean(self, category: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the mean texture (3, R, R) and displacement map (3, H, H) over some classes (B,) or (B, S)."""
        count = 1 if category is None else len(category)
        known = design(category, self.num_classes, count).mean(0, keepdim=True).to(self.shape)
        texture, displacement = self._generate(known, known.new_zeros(1, self.latent_dim))
        return texture[0], displacement[0]

    def _generate(self, known: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        count = self.num_shape_modes
        shape = _combine(known, z[:, :count], self.shape)
        texture = _combine(known, z[:, count:], self.texture)
        return (
            symmetric_extension(texture.clamp(-1, 1)),
            symmetric_extension(average_poles(shape)),
        )


def from_state(weights: Mapping[str, Tensor]) -> LinearGenerator:
    """Returns the generator that has these entries.

    Raises:
        ValueError: if an entry is missing, or has another shape than the others ask for.
    """
    missing = {"shape", "texture", "classes"} - weights.keys()
    if missing:
        raise ValueError(f"no {sorted(missing)[0]}")
    shape, texture, classes = (weights[name] for name in ("shape", "texture", "classes"))
    sizes = [int(size) for size in classes.flatten().tolist()]
    fits = (
        shape.ndim == 4
        and shape.shape[1:] in [(3, side, side // 2) for side in MESH_RESOLUTIONS]
        and texture.ndim == 4
        and texture.shape[1:] == (3, texture.shape[2], texture.shape[2] // 2)
        and min(sizes, default=1) > 0
        and min(len(shape), len(texture)) > sum(sizes)
    )
    if not fits:
        raise ValueError(f"shapes {tuple(shape.shape)}, {tuple(texture.shape)} and classes {sizes}")
    return LinearGenerator(shape.float(), texture.float(), sizes)


def design(category: Tensor | None, num_classes: Sequence[int], count: int) -> Tensor:
    """Returns what is known of samples (count, P): 1, and for each label of each set whether they have it.

    Args:
        category: (count,) or (count, S) labels; None for an unconditional model.
        num_classes: number of labels of each set.
        count: number of samples.
    """
    known = [torch.ones(count, 1)]
    if category is not None:
        columns = zip(columns_of(category.cpu()), num_classes, strict=True)
        known += [nn.functional.one_hot(labels, size).float() for labels, size in columns]
    return torch.cat(known, dim=1)


def _combine(known: Tensor, z: Tensor, basis: Tensor) -> Tensor:
    """Returns the maps (B, C, h, w) that factors (B, P) and codes (B, K) make of a basis (P + K, C, h, w)."""
    # One sample after the other: products of matrices round differently with the number of rows
    factors = torch.cat([known, z], dim=1)
    return torch.stack([torch.einsum("k,kchw->chw", one, basis) for one in factors])
