"""The generator: a latent code to a mirror-symmetric texture and displacement map."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geometry.uv_maps import MESH_RESOLUTIONS, average_poles, half_map, symmetric_extension
from models.conditions import UNCONDITIONAL, Conditions, class_sizes, columns_of
from models.layers import (
    LatentNorm,
    SpectralConv2d,
    convolve3,
    replicate_pad,
    resize,
    scaled,
    upsample,
)

RESOLUTIONS = (128, 256, 512, 1024)
_CLASS_DIM = 64


class _Block(nn.Module):
    """Residual block of two spectral 3x3 convolutions with normalization by the latent code."""

    def __init__(self, norm: str, in_channels: int, out_channels: int, latent_dim: int) -> None:
        super().__init__()
        middle = min(in_channels, out_channels)
        self.conv1 = SpectralConv2d(in_channels, middle, 3, bias=False)
        self.conv2 = SpectralConv2d(middle, out_channels, 3, bias=False)
        self.norm1 = LatentNorm(norm, middle, latent_dim)
        self.norm2 = LatentNorm(norm, out_channels, latent_dim)
        if in_channels != out_channels:
            self.shortcut = SpectralConv2d(in_channels, out_channels, 1, bias=False)
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor, z: Tensor, *, doubled: bool = False) -> Tensor:
        """Maps (B, in, h, w) to (B, out, h, w) under the codes z (B, latent_dim); doubles x before if asked."""
        out = convolve3(x, self.conv1.normalized_weight(), doubled=doubled)
        out = F.leaky_relu(self.norm1(out, z), 0.2, inplace=True)
        out = convolve3(out, self.conv2.normalized_weight())
        out = F.leaky_relu(self.norm2(out, z), 0.2, inplace=True)
        # Texels are independent in the shortcut, which is cheaper before they are repeated
        x = self.shortcut(x)
        return out + (upsample(x) if doubled else x)


def sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns num_classes and num_parts of the generator that has these weights."""
    names = itertools.takewhile(weights.__contains__, (f"{n}.weight" for n in _embedding_names()))
    parts = weights.get("parts1.weight_orig")
    return {
        "num_classes": [len(weights[name]) for name in names],
        "num_parts": 0 if parts is None else parts.shape[1],
    }


def _embedding_names() -> Iterator[str]:
    """Yields the names of the embeddings of the first, second, ... label set."""
    yield "emb_class"
    yield from (f"emb_class{i}" for i in itertools.count(2))


class Generator(nn.Module):
    """Generates half of a mirror-symmetric UV map and extends it to the full width.

    State-dict names are those of the published checkpoints. With num_parts > 0 a part map in UV
    space is added, through spectral 1x1 convolutions, to the features at each resolution of the
    common trunk and once more before the last texture blocks, where part borders are sharper.

    Args:
        texture_resolution: R, one of RESOLUTIONS.
        latent_dim: length of the latent code.
        num_classes: number of classes, or of labels of each set, which are then embedded side by
            side; 0 makes the model unconditional.
        num_parts: channels of the part map; 0 makes the model unconditional on parts.
        norm: normalization, one of models.layers.NORMS.
        width: factor on all channel counts; 1 is the paper's size.
        mesh_resolution: S, side of the displacement maps, one of MESH_RESOLUTIONS; 32 in the published
            networks.
    """

    def __init__(
        self,
        texture_resolution: int = 512,
        latent_dim: int = 64,
        num_classes: int | Sequence[int] = 0,
        num_parts: int = 0,
        norm: str = "syncbatch",
        width: float = 1.0,
        mesh_resolution: int = 32,
    ) -> None:
        super().__init__()
        if mesh_resolution not in MESH_RESOLUTIONS:
            raise ValueError(
                f"mesh_resolution: expected one of {MESH_RESOLUTIONS}, got {mesh_resolution}."
            )
        if texture_resolution not in RESOLUTIONS:
            raise ValueError(
                f"texture_resolution: expected one of {RESOLUTIONS}, got {texture_resolution}."
            )
        self.latent_dim = latent_dim
        self.num_classes = class_sizes(num_classes)
        self.num_parts = num_parts
        self.mesh_resolution = mesh_resolution
        # Channel counts of the paper times width
        c512, c256, c128, c64 = (scaled(channels, width) for channels in (512, 256, 128, 64))
        sets = len(self.num_classes)
        size = _CLASS_DIM // max(sets, 1)  # of the embedding of each set
        code = latent_dim + sets * size

        # Latent code and class embedding to 8 x 4 features, then a common trunk up to 32 x 16
        self._embeddings = [*itertools.islice(_embedding_names(), sets)]
        for name, count in zip(self._embeddings, self.num_classes, strict=True):
            self.add_module(name, nn.Embedding(count, size))
        self.fc = nn.Linear(code, 8 * 4 * c512)
        self.blk1 = _Block(norm, c512, c512, code)
        self.blk2 = _Block(norm, c512, c256, code)
        # Each of the blocks 3a, 3b, 3c doubles the resolution of the trunk (32), up to R / 4
        self._middle = [
            f"blk3{letter}"
            for letter, r in (("a", 256), ("b", 512), ("c", 1024))
            if texture_resolution >= r
        ]
        for name in self._middle:
            self.add_module(name, _Block(norm, c256, c256, code))
        # Texture branch
        self.blk4 = _Block(norm, c256, c128, code)
        self.blk5 = _Block(norm, c128, c128, code)
        self.blk6 = _Block(norm, c128, c64, code)
        self.conv_final = nn.Conv2d(c64, 3, 5, padding=(2, 0))
        # Displacement branch; it starts at zero, which is the sphere itself
        self.blk3_mesh = _Block(norm, c256, c64, code)
        if mesh_resolution == 64:
            self.blk4_mesh = _Block(norm, c64, c64, code)
        self.conv_mesh = nn.Conv2d(c64, 3, 5, padding=(2, 0))
        nn.init.zeros_(self.conv_mesh.weight)
        assert self.conv_mesh.bias is not None
        nn.init.zeros_(self.conv_mesh.bias)
        # Part maps are added through 1x1 convolutions
        if num_parts:
            self.parts1 = SpectralConv2d(num_parts, c512, 1, bias=False)
            self.parts2 = SpectralConv2d(num_parts, c512, 1, bias=False)
            self.parts3 = SpectralConv2d(num_parts, c256, 1, bias=False)
            self.parts4 = SpectralConv2d(num_parts, c256, 1, bias=False)

    def forward(self, z: Tensor, conditions: Conditions = UNCONDITIONAL) -> tuple[Tensor, Tensor]:
        """Generates textured meshes.

        Args:
            z: (B, latent_dim) latent codes.
            conditions: category and part map, as far as the model is conditional on them.

        Returns:
            Textures (B, 3, R, R) in [-1, 1] and displacement maps (B, 3, S, S).
        """
        conditions.check(self.num_classes, self.num_parts)
        class_id, seg = conditions
        if class_id is not None:
            columns = zip(self._embeddings, columns_of(class_id), strict=True)
            z = torch.cat([z, *(self.get_submodule(name)(column) for name, column in columns)], 1)
        # Only half of a map is generated; the other half is its reflection
        half = None if seg is None else half_map(seg)
        x = self.fc(z).view(z.shape[0], -1, 8, 4)
        small = half is None  # maps stay as they are until the next block doubles them
        x = self.blk1(self._add_parts("parts1", x, half), z)
        x = self.blk2(self._add_parts("parts2", x, half, doubled=True), z, doubled=small)
        # Two branches from the same features, (B, 256, 32, 16) when doubled
        trunk = self._add_parts("parts3", x, half, doubled=True)
        x = self.blk3_mesh(trunk, z, doubled=small)
        if self.mesh_resolution == 64:
            x = self.blk4_mesh(x, z, doubled=True)
        x = F.leaky_relu(x, 0.2)
        return self._texture(trunk, z, half), self._displacement_map(x)

    def _add_parts(
        self, name: str, x: Tensor, half: Tensor | None, *, doubled: bool = False
    ) -> Tensor:
        """Adds parts to features, which are doubled before if there are parts."""
        if half is None:
            return x
        x = upsample(x) if doubled else x
        height, width = x.shape[-2:]
        return x + self.get_submodule(name)(resize(half, (height, width)))

    def _texture(self, x: Tensor, z: Tensor, half: Tensor | None) -> Tensor:
        doubled = half is None
        for name in self._middle:
            x, doubled = self.get_submodule(name)(x, z, doubled=doubled), True
        x = self._add_parts("parts4", x, half, doubled=doubled)
        x = self.blk4(x, z, doubled=half is None)
        x = self.blk5(x, z, doubled=True)
        x = F.leaky_relu(self.blk6(x, z, doubled=True), 0.2)
        return symmetric_extension(torch.tanh(self.conv_final(replicate_pad(x, 2))))

    def _displacement_map(self, x: Tensor) -> Tensor:
        x = self.conv_mesh(replicate_pad(x, 2))
        return symmetric_extension(average_poles(x))
