"""Weights and inputs of the published networks' golden outputs, made from formulas."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def key_list(shared: Path, name: str) -> list[tuple[str, tuple[int, ...]]]:
    """Reads names and shapes of a published state dict, without the prefix of data parallelism."""
    text = (shared / f"reference/state_dict_keys/state_dict_keys_{name}.txt").read_text()
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return [(key.removeprefix("module."), _shape(shape)) for key, shape, _ in rows]


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.strip("()").split(",") if number.strip())


def fill(network: nn.Module, keys: list[tuple[str, tuple[int, ...]]]) -> None:
    """Fills a network with numbers that depend on the position of a tensor and of an element."""
    state = network.state_dict()
    for i, (key, _) in enumerate(keys):
        value = state[key]
        if value.is_floating_point() and not key.endswith("pos_emb"):
            value.copy_(torch.from_numpy(_values(key, i, value.numel())).view_as(value))


def _values(key: str, i: int, count: int) -> np.ndarray:
    j = np.arange(count, dtype=np.float64)
    if key.endswith("weight_u"):
        return 40.0 * (j == 0)
    if key.endswith("weight_v"):
        return 1.0 * (j == 0)
    if key.endswith("running_var"):
        return 1 + 0.5 * np.sin(0.3 * j + i) ** 2
    if key.endswith("weight_orig"):
        return 0.05 * np.cos(0.7 * j + 0.001 * i)
    return 0.05 * np.sin(0.9 * j + 0.1 * (i + 1))


def wave(frequency: float, *shape: int) -> Tensor:
    """Returns sin(frequency k) of the flat index k, computed in double precision."""
    k = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy(np.sin(frequency * k)).float().view(shape)
