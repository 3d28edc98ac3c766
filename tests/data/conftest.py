"""A tiny collection of three photographs for the tests of data/."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (40, 60)  # height, width


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes datasets/toy/ below an empty working directory: masks, part maps, no category."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "datasets" / "toy"
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "parts"):
        (root / folder).mkdir(parents=True)
    for i in range(3):
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        mask = np.zeros(SIZE, np.uint8)
        mask[5 + i : 35, 10 : 50 - i] = 255
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
        labels = np.zeros(SIZE, np.uint8)
        labels[:20, :20] = 1
        labels[25:, 40:] = 2 if i == 0 else 0
        Image.fromarray(labels).save(root / "parts" / f"{i}.png")
    (root / "parts.json").write_text(json.dumps({"parts": {"1": "head", "2": "tail"}}))
    return root
