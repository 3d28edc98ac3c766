"""Patch discriminators of textures and displacement maps in UV space."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geometry.uv_maps import circular_pad
from models.conditions import UNCONDITIONAL, Conditions, class_sizes, columns_of
from models.layers import SpectralConv2d, positional_encoding, resize, scaled

_ALPHA = slice(3, 4)
NORMS = ("none", "instance")


class PatchDiscriminator(nn.Module):
    """Spectral convolutions, circular in width, ending in one score per patch.

    Args:
        size: height and width of the input.
        channels: channels of the input (without positions) and of each hidden layer.
        halve: whether the first layer already halves the resolution; all later ones do.
        num_classes: number of labels of each set that is projected; none makes the scores
            unconditional.
        norm: "none" or "instance".
    """

    def __init__(
        self,
        size: int,
        channels: Sequence[int],
        *,
        halve: bool,
        num_classes: Sequence[int],
        norm: str,
    ) -> None:
        super().__init__()
        self.pos_emb: Tensor
        self.register_buffer("pos_emb", positional_encoding(size))
        self.depth = len(channels) - 1
        self.halve = halve
        # The first layer: kernel 4 with stride 2 or kernel 5 with stride 1
        first = 4 if halve else 5
        inputs = channels[0] + self.pos_emb.shape[1]
        self.conv1 = SpectralConv2d(
            inputs, channels[1], first, stride=2 if halve else 1, padding=(1 if halve else 2, 0)
        )
        # Hidden layers halve the resolution
        for i in range(2, self.depth + 1):
            convolution = SpectralConv2d(
                channels[i - 1], channels[i], 4, stride=2, padding=(1, 0), bias=norm == "none"
            )
            self.add_module(f"conv{i}", convolution)
            if norm == "instance":
                self.add_module(f"norm{i}", nn.InstanceNorm2d(channels[i], affine=True))
        # One score per patch, and the projection of the classes (https://arxiv.org/abs/1802.05637)
        self.add_module(f"conv{self.depth + 1}", SpectralConv2d(channels[-1], 1, 5, padding=(2, 0)))
        self._projectors = [
            "projector" if number == 1 else f"projector{number}"
            for number in range(1, len(num_classes) + 1)
        ]
        for name, count in zip(self._projectors, num_classes, strict=True):
            self.add_module(name, nn.Embedding(count, channels[-1]))

    @property
    def patch(self) -> int:
        """Side length of the input area, in texels, that one score covers."""
        return 2 ** (self.depth if self.halve else self.depth - 1)

    def forward(self, x: Tensor, class_id: Tensor | None) -> Tensor:
        """Scores the patches of (B, C, size, size); returns (B, 1, size / patch, size / patch)."""
        # Position is part of the input, because maps in UV space are not translation invariant
        x = torch.cat((x, self.pos_emb.expand(x.shape[0], -1, -1, -1)), 1)
        x = F.leaky_relu(self.conv1(circular_pad(x, 1 if self.halve else 2)), 0.2, inplace=True)
        for i in range(2, self.depth + 1):
            x = self.get_submodule(f"conv{i}")(circular_pad(x, 1))
            if hasattr(self, f"norm{i}"):
                x = self.get_submodule(f"norm{i}")(x)
            x = F.leaky_relu(x, 0.2, inplace=True)
        scores = self.get_submodule(f"conv{self.depth + 1}")(circular_pad(x, 2))
        # Projection discriminator: the class embeddings, summed, correlate with the features
        if class_id is not None:
            columns = zip(self._projectors, columns_of(class_id), strict=True)
            codes = [self.get_submodule(name)(column) for name, column in columns]
            scores = scores + (x * torch.stack(codes).sum(0)[:, :, None, None]).sum(1, keepdim=True)
        return scores


class MultiScaleDiscriminator(nn.Module):
    """Judges textures at one or two scales (d1, d3) and displacement maps with textures (d2).

    State-dict names are those of the published checkpoints. A part map, if the model is
    conditional on one, is concatenated to the textures.

    Args:
        texture_resolution: R.
        num_discriminators: 2 (texture, mesh), or 3 with the texture at a quarter of R >= 512.
        num_classes: number of classes, or of labels of each set; 0 makes the model unconditional.
        num_parts: channels of the part map; 0 for none.
        norm: "none" or "instance".
        width: factor on all channel counts; 1 is the paper's size.
        texture_only: leaves out d2, so that only textures are judged.
        mesh_resolution: S, side of the displacement maps; d2 has as many scores for each.
    """

    def __init__(
        self,
        texture_resolution: int = 512,
        num_discriminators: int = 3,
        num_classes: int | Sequence[int] = 0,
        num_parts: int = 0,
        norm: str = "none",
        width: float = 1.0,
        *,
        texture_only: bool = False,
        mesh_resolution: int = 32,
    ) -> None:
        super().__init__()
        # Three discriminators need a texture that is large at a quarter of its size, too
        if num_discriminators not in (2, 3) or (
            num_discriminators == 3 and texture_resolution < 512
        ):
            raise ValueError(
                f"num_discriminators: expected 2, or 3 for textures of at least 512, "
                f"got {num_discriminators} for {texture_resolution}."
            )
        if norm not in NORMS:
            raise ValueError(f"norm: expected one of {', '.join(NORMS)}, got {norm!r}.")
        self.texture_resolution = texture_resolution
        self.num_classes = class_sizes(num_classes)
        self.num_parts = num_parts
        self.texture_only = texture_only
        self.mesh_resolution = mesh_resolution
        # d1 sees textures, d2 displacement maps with small textures, d3 textures at a quarter
        hidden = [scaled(channels, width) for channels in (64, 128, 256, 512)]
        texture_channels = [4 + num_parts, *hidden]
        mesh_channels = [7 + num_parts, *hidden[:3]]
        r = texture_resolution
        self.d1 = PatchDiscriminator(
            r, texture_channels, halve=r >= 512, num_classes=self.num_classes, norm=norm
        )
        if not texture_only:
            self.d2 = PatchDiscriminator(
                mesh_resolution,
                mesh_channels,
                halve=mesh_resolution > 32,
                num_classes=self.num_classes,
                norm=norm,
            )
        self.d3 = None
        if num_discriminators == 3:
            self.d3 = PatchDiscriminator(
                r // 4, texture_channels, halve=r >= 1024, num_classes=self.num_classes, norm=norm
            )

    def forward(
        self,
        texture_and_alpha: Tensor,
        displacement_map: Tensor | None = None,
        conditions: Conditions = UNCONDITIONAL,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Scores textured meshes.

        Args:
            texture_and_alpha: (B, 4, R, R), colors in [-1, 1] times alpha, then alpha.
            displacement_map: (B, 3, S, S), ignored by a texture-only model.
            conditions: category and part map, as far as the model is conditional on them.

        Returns:
            The scores (B, 1, s, s) of each discriminator in the order d1, d2, d3, and the mean
            alpha of the area that each score covers.
        """
        conditions.check(self.num_classes, self.num_parts)
        class_id, seg = conditions
        # Part maps belong to the texture
        x = texture_and_alpha
        if seg is not None:
            x = torch.cat((x, resize(seg, (self.texture_resolution, self.texture_resolution))), 1)
        judged = [(self.d1, x)]
        if not self.texture_only:
            if displacement_map is None:
                raise ValueError(
                    "displacement_map: needed unless the discriminator is texture-only."
                )
            small = F.avg_pool2d(x, self.texture_resolution // self.mesh_resolution)
            # Alpha stays in channel 3, where the masks below are read
            judged.append((self.d2, torch.cat((small[:, :4], displacement_map, small[:, 4:]), 1)))
        # The second scale of the texture
        if self.d3 is not None:
            judged.append((self.d3, F.avg_pool2d(x, 4)))
        # Scores count as much as the area behind them was observed
        outputs = [module(maps, class_id) for module, maps in judged]
        masks = [F.avg_pool2d(maps[:, _ALPHA].detach(), module.patch) for module, maps in judged]
        return outputs, masks
