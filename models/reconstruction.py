"""The mesh estimator: an image to a displacement map, a texture and a part map in UV space."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geometry.uv_maps import MESH_RESOLUTIONS, average_poles, double_map, symmetric_extension
from models.layers import CategoryNorm, convolve3, replicate_pad, scaled, upsample

TEXTURE_RESOLUTIONS = (64, 128, 256)
PREDICTION_TYPES = ("none", "texture", "semantics", "both")
TEXTURE_MODELS = ("rgb", "flow")  # colors, or where the image shows them
SHAPE_HEADS = ("convolution", "linear", "both")
_STRIDE = 32
_COARSE = (3, 32, 16)  # half of a displacement map that is a linear function of the code
_IMPOSSIBLE = -10000.0  # logit of the parts that the category of an image does not have


def _zero(convolution: nn.Conv2d) -> None:
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions with normalization by category."""

    def __init__(self, norm: str, in_channels: int, out_channels: int, num_categories: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, bias=False)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, bias=False)
        self.bn1 = CategoryNorm(norm, in_channels, num_categories)
        self.bn2 = CategoryNorm(norm, out_channels, num_categories)
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor, category: Tensor, *, doubled: bool = False) -> Tensor:
        """Maps (B, in, h, w) to (B, out, h, w); doubles x before if asked."""
        out = F.relu(self.bn1(convolve3(x, self.conv1.weight, doubled=doubled), category))
        out = F.relu(self.bn2(convolve3(out, self.conv2.weight), category))
        # Texels are independent in the shortcut, which is cheaper before they are repeated
        x = self.shortcut(x)
        return out + (upsample(x) if doubled else x)


class ReconstructionNetwork(nn.Module):
    """Encodes an image and decodes half of a mirror-symmetric UV map, extended to the full width.

    State-dict names are those of the published checkpoints (there with the prefix "module.").

    Args:
        num_categories: number of categories; with several, each has its own gains and offsets.
        num_parts: Cg, channels of the part map: 1 + the part classes of all categories.
        texture_resolution: R, one of TEXTURE_RESOLUTIONS.
        prediction_type: maps that are predicted besides the mesh, one of PREDICTION_TYPES.
        norm: normalization, one of models.layers.NORMS.
        image_resolution: side of the images, a multiple of 32; 256 in the published networks.
        width: factor on all channel counts; 1 is the paper's size.
        texture_model: what textures consist of, one of TEXTURE_MODELS.
        shape_head: how displacement maps are made, one of SHAPE_HEADS: by convolutions, as in the
            published networks, as a mean shape plus a linear function of the code, or as their sum.
        mesh_resolution: S, side of the displacement maps, one of MESH_RESOLUTIONS; 32 in the published
            networks.

    Attributes:
        mean_mesh: (num_categories, 3, S, S/2) half maps of the mean shapes; not of convolutions alone.
        flow_start: (num_categories, 2, R, R/2) half maps of the hyperbolic arctangents of the positions
            where the flow begins, x right and y up; only of networks that predict flow.
    """

    flow_start: Tensor

    def __init__(
        self,
        num_categories: int = 1,
        num_parts: int = 1,
        texture_resolution: int = 128,
        prediction_type: str = "both",
        norm: str = "syncbatch",
        image_resolution: int = 256,
        width: float = 1.0,
        texture_model: str = "rgb",
        shape_head: str = "convolution",
        mesh_resolution: int = 32,
    ) -> None:
        super().__init__()
        if mesh_resolution not in MESH_RESOLUTIONS:
            raise ValueError(
                f"mesh_resolution: expected one of {MESH_RESOLUTIONS}, got {mesh_resolution}."
            )
        if shape_head not in SHAPE_HEADS:
            raise ValueError(f"shape_head: expected one of {SHAPE_HEADS}, got {shape_head!r}.")
        if texture_model not in TEXTURE_MODELS:
            raise ValueError(
                f"texture_model: expected one of {TEXTURE_MODELS}, got {texture_model!r}."
            )
        if texture_resolution not in TEXTURE_RESOLUTIONS:
            raise ValueError(
                f"texture_resolution: expected one of {TEXTURE_RESOLUTIONS}, got {texture_resolution}."
            )
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type: expected one of {PREDICTION_TYPES}, got {prediction_type!r}."
            )
        if image_resolution % _STRIDE:
            raise ValueError(
                f"image_resolution: expected a multiple of {_STRIDE}, got {image_resolution}."
            )
        self.num_categories = num_categories
        self.prediction_type = prediction_type
        self.texture_model = texture_model
        self.shape_head = shape_head
        self._half_mesh = (3, mesh_resolution, mesh_resolution // 2)
        self._make_encoder(norm, image_resolution // _STRIDE, width)
        self._make_decoder(norm, num_parts, texture_resolution, width)

    def _make_encoder(self, norm: str, grid: int, width: float) -> None:
        # Five convolutions with stride 2, then two fully connected layers
        sizes = [4, *(scaled(channels, width) for channels in (64, 128, 256, 512, 64))]
        for i in range(1, 6):
            kernel = 5 if i == 1 else 3
            convolution = nn.Conv2d(sizes[i - 1], sizes[i], kernel, 2, kernel // 2, bias=False)
            self.add_module(f"conv{i}e", convolution)
            self.add_module(f"bn{i}e", CategoryNorm(norm, sizes[i], self.num_categories))
        f256, f1024 = scaled(256, width), scaled(1024, width)
        self.fc1e = nn.Linear(sizes[-1] * grid * grid, f256, bias=False)
        self.bnfc1e = CategoryNorm(norm, f256, self.num_categories, flat=True)
        self.fc3e = nn.Linear(f256, f1024, bias=False)
        self.bnfc3e = CategoryNorm(norm, f1024, self.num_categories, flat=True)

    def _make_decoder(
        self, norm: str, num_parts: int, texture_resolution: int, width: float
    ) -> None:
        c512, c256, c128, c64 = (scaled(channels, width) for channels in (512, 256, 128, 64))
        n = self.num_categories
        # Common trunk from 4 x 2 to 16 x 8 features (half of a map), doubled by what follows
        self.fc1_tex = nn.Linear(scaled(1024, width), 4 * 2 * c256)
        self.blk1 = _Block(norm, c256, c512, n)
        self.blk2 = _Block(norm, c512, c256, n)
        self.blk3 = _Block(norm, c256, c256, n)
        self._middle: list[str] = []
        # Texture and part map continue together and differ in the last layer only
        if self.prediction_type != "none":
            self._middle = [
                f"blk3{x}_tex" for x, r in (("b", 128), ("c", 256)) if texture_resolution >= r
            ]
            for name in self._middle:
                self.add_module(name, _Block(norm, c256, c256, n))
            self.blk4_tex = _Block(norm, c256, c128, n)
            self.blk5_tex = _Block(norm, c128, c64, n)
        if self.prediction_type in ("texture", "both"):
            self._make_texture_head(c64, texture_resolution)
        if self.prediction_type in ("semantics", "both"):
            self.conv_seg = nn.Conv2d(c64, num_parts, 5, padding=(2, 0))
        # Displacement branch; it starts at zero, which is the sphere itself, or at the mean shapes
        if self.shape_head != "convolution":
            self.fc_mesh = nn.Linear(scaled(1024, width), math.prod(_COARSE), bias=False)
            nn.init.zeros_(self.fc_mesh.weight)
            self.mean_mesh = nn.Parameter(torch.zeros(n, *self._half_mesh))
        if self.shape_head != "linear":
            self.blk4_mesh = _Block(norm, c256, c64, n)
            if self._half_mesh[1] == 64:
                self.blk5_mesh = _Block(norm, c64, c64, n)
            self.conv_mesh = nn.Conv2d(c64, 3, 5, padding=(2, 0))
            _zero(self.conv_mesh)

    def _make_texture_head(self, channels: int, resolution: int) -> None:
        flows = self.texture_model == "flow"
        self.conv_tex = nn.Conv2d(channels, 2 if flows else 3, 5, padding=(2, 0))
        if not flows:
            return
        # Flow begins where `flow_start` says, in the middle of the image unless it is filled
        _zero(self.conv_tex)
        start = torch.zeros(self.num_categories, 2, resolution, resolution // 2)
        self.register_buffer("flow_start", start)

    def forward(
        self, image: Tensor, category: Tensor, selection: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Estimates textured meshes.

        Args:
            image: (B, 4, h, h), colors in [-1, 1] times the mask, then the mask.
            category: (B,) int64 categories.
            selection: (B, P, Cg), one-hot rows: the channel of the part map for part p of the image's
                category. Channels of other categories get probability zero.

        Returns:
            The texture (B, 3, R, R) in [-1, 1], or the positions in the image (B, 2, R, R) that show it,
            x right and y up in [-1, 1], or None; the displacement map (B, 3, S, S); and the part
            probabilities (B, Cg, R, R) or None.
        """
        # Image to code, code to half of a UV map
        code = self._encode(image, category)
        x = self.fc1_tex(code).view(image.shape[0], -1, 4, 2)
        x = self.blk1(x, category)
        x = self.blk3(self.blk2(x, category, doubled=True), category, doubled=True)
        displacement_map = self._displacement_map(code, x, category)  # From (B, 256, 16, 8)
        # Texture and parts need a higher resolution than the mesh
        if self.prediction_type == "none":
            return None, displacement_map, None
        texture, parts = self._maps(x, category, selection)
        return texture, displacement_map, parts

    def _encode(self, x: Tensor, category: Tensor) -> Tensor:
        for i in range(1, 6):
            x = self.get_submodule(f"conv{i}e")(x)
            x = F.relu(self.get_submodule(f"bn{i}e")(x, category))
        x = F.relu(self.bnfc1e(self.fc1e(x.flatten(1)), category))
        return F.relu(self.bnfc3e(self.fc3e(x), category))

    def _displacement_map(self, code: Tensor, x: Tensor, category: Tensor) -> Tensor:
        halves = []
        if self.shape_head != "convolution":
            change = self.fc_mesh(code).unflatten(1, _COARSE)
            if self._half_mesh != _COARSE:
                change = double_map(change)
            halves.append(self.mean_mesh[category] + change)
        if self.shape_head != "linear":
            x = self.blk4_mesh(x, category, doubled=True)
            if self._half_mesh[1] == 64:
                x = self.blk5_mesh(x, category, doubled=True)
            halves.append(self.conv_mesh(replicate_pad(F.relu(x), 2)))
        return symmetric_extension(average_poles(sum(halves[1:], halves[0])))

    def _maps(
        self, x: Tensor, category: Tensor, selection: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        for name in self._middle:
            x = self.get_submodule(name)(x, category, doubled=True)
        x = self.blk4_tex(x, category, doubled=True)
        x = replicate_pad(F.relu(self.blk5_tex(x, category, doubled=True)), 2)
        texture = parts = None
        if self.prediction_type in ("texture", "both"):
            half = self.conv_tex(x)
            if self.texture_model == "flow":
                half = half + self.flow_start[category]
            texture = symmetric_extension(torch.tanh(half))
        if self.prediction_type in ("semantics", "both"):
            # Parts that the category lacks get probability zero
            absent = 1 - selection.sum(1)[:, :, None, None]
            parts = symmetric_extension((self.conv_seg(x) + _IMPOSSIBLE * absent).softmax(1))
        return texture, parts
