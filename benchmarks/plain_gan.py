"""The networks of stage 4 and their steps as one writes them down in plain PyTorch, to be compared with.

Maps are repeated before they are convolved, padded by concatenation, and laid out channel by channel;
spectral norms are PyTorch's. The parameters have the names of `models`, so the weights can be exchanged.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


def _spectral(*arguments: int, bias: bool = False, **options: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(*arguments, bias=bias, **options))


def _repeat_columns(x: Tensor, columns: int) -> Tensor:
    return F.pad(x, (columns, columns, 0, 0), mode="replicate")


def _around(x: Tensor, columns: int) -> Tensor:
    return torch.cat([x[..., -columns:], x, x[..., :columns]], 3)


def _mirrored(half: Tensor) -> Tensor:
    left, right = half.flip(3).chunk(2, 3)
    return torch.cat([right, half, left], 3)


class _Norm(nn.Module):
    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.fc_gamma = nn.Linear(latent_dim, channels)
        self.fc_beta = nn.Linear(latent_dim, channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        gain, offset = self.fc_gamma(z)[..., None, None], self.fc_beta(z)[..., None, None]
        return self.norm(x) * (1 + gain) + offset


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, latent_dim: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.conv1, self.norm1 = _spectral(inputs, middle, 3), _Norm(middle, latent_dim)
        self.conv2, self.norm2 = _spectral(middle, outputs, 3), _Norm(outputs, latent_dim)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else _spectral(inputs, outputs, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        out = x
        for convolution, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            padded = F.pad(_repeat_columns(out, 1), (0, 0, 1, 1))
            out = F.leaky_relu(norm(convolution(padded), z), 0.2)
        return out + self.shortcut(x)


class PlainGenerator(nn.Module):
    """The unconditional generator; (B, 64) to textures (B, 3, R, R) and maps (B, 3, 32, 32)."""

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 8 * 4 * 512)
        # (name, channels before and after); all but the first are doubled before
        middle = [(f"blk3{x}", 256, 256) for x, r in (("a", 256), ("b", 512)) if resolution >= r]
        self.texture = [*middle, ("blk4", 256, 128), ("blk5", 128, 128), ("blk6", 128, 64)]
        rest = [("blk1", 512, 512), ("blk2", 512, 256), ("blk3_mesh", 256, 64)]
        for name, inputs, outputs in [*self.texture, *rest]:
            self.add_module(name, _Block(inputs, outputs, 64))
        self.conv_final = nn.Conv2d(64, 3, 5, padding=(2, 0))
        self.conv_mesh = nn.Conv2d(64, 3, 5, padding=(2, 0))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        def run(name: str, x: Tensor) -> Tensor:
            return self.get_submodule(name)(F.interpolate(x, scale_factor=2), z)

        x = trunk = run("blk2", self.get_submodule("blk1")(self.fc(z).view(-1, 512, 8, 4), z))
        for name, *_ in self.texture:
            x = run(name, x)
        texture = torch.tanh(self.conv_final(_repeat_columns(F.leaky_relu(x, 0.2), 2)))
        x = self.conv_mesh(_repeat_columns(F.leaky_relu(run("blk3_mesh", trunk), 0.2), 2))
        # All texels of a polar row are one point
        poles = [x[:, :, i : i + 1].mean(3, keepdim=True).expand(-1, -1, -1, 16) for i in (0, 31)]
        return _mirrored(texture), _mirrored(torch.cat([poles[0], x[:, :, 1:-1], poles[1]], 2))


class _Patches(nn.Module):
    def __init__(self, positions: Tensor, channels: Sequence[int], *, halve: bool) -> None:
        super().__init__()
        self.pos_emb: Tensor
        self.register_buffer("pos_emb", positions)
        self.halve = halve
        kernel, stride, rows = (4, 2, 1) if halve else (5, 1, 2)
        layers = [_spectral(channels[0] + 4, channels[1], kernel, stride=stride, bias=True)]
        layers += [
            _spectral(a, b, 4, stride=2, bias=True) for a, b in itertools.pairwise(channels[1:])
        ]
        self.margins = [rows, *[1] * (len(layers) - 1), 2]
        layers.append(_spectral(channels[-1], 1, 5, bias=True))
        for number, layer in enumerate(layers, 1):
            self.add_module(f"conv{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.pos_emb.expand(len(x), -1, -1, -1)], 1)
        for number, margin in enumerate(self.margins, 1):
            x = F.pad(_around(x, margin), (0, 0, margin, margin))
            x = self.get_submodule(f"conv{number}")(x)
            x = F.leaky_relu(x, 0.2) if number < len(self.margins) else x
        return x


class PlainDiscriminator(nn.Module):
    """The unconditional discriminators without normalization, two at 128 texels, three from 512 on."""

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        hidden, large = (64, 128, 256, 512), resolution >= 512
        self.d1 = _Patches(torch.zeros(1, 4, resolution, resolution), (4, *hidden), halve=large)
        self.d2 = _Patches(torch.zeros(1, 4, 32, 32), (7, *hidden[:3]), halve=False)
        if large:
            quarter = torch.zeros(1, 4, resolution // 4, resolution // 4)
            self.d3 = _Patches(quarter, (4, *hidden), halve=False)

    def forward(self, texture: Tensor, mesh: Tensor) -> list[Tensor]:
        small = F.avg_pool2d(texture, self.resolution // 32)
        scores = [self.d1(texture), self.d2(torch.cat([small, mesh], 1))]
        if self.resolution >= 512:
            scores.append(self.d3(F.avg_pool2d(texture, 4)))
        return scores


class PlainGan:
    """The networks, their optimizers, and a cycle of training."""

    def __init__(self, resolution: int, device: torch.device) -> None:
        self.generator = PlainGenerator(resolution).to(device)
        self.discriminator = PlainDiscriminator(resolution).to(device)
        self.average = {k: v.clone() for k, v in self.generator.state_dict().items()}
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.0, 0.99))
            for network in (self.generator, self.discriminator)
        ]

    def cycle(self, texture: Tensor, alpha: Tensor, mesh: Tensor) -> None:
        """Two steps of the discriminator and one of the generator, with the hinge loss."""
        real = torch.cat([texture, alpha], 1)
        optimizer_g, optimizer_d = self.optimizers
        for _ in range(2):
            with torch.no_grad():
                fake, shape = self.generator(torch.randn(len(mesh), 64, device=mesh.device))
            fake = torch.cat([fake * alpha, alpha], 1)
            scores = self.discriminator(torch.cat([fake, real]), torch.cat([shape, mesh]))
            halves = [x.chunk(2) for x in scores]
            loss = sum(F.relu(1 + fake).mean() + F.relu(1 - real).mean() for fake, real in halves)
            _descend(optimizer_d, loss)
        fake, shape = self.generator(torch.randn(len(mesh), 64, device=mesh.device))
        scores = self.discriminator(torch.cat([fake * alpha, alpha], 1), shape)
        _descend(optimizer_g, -sum(x.mean() for x in scores))
        # The moving average of the weights
        for name, value in self.generator.state_dict().items():
            self.average[name].lerp_(value, 0.001) if value.is_floating_point() else None


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor | int) -> None:
    assert isinstance(loss, Tensor)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
