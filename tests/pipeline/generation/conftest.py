"""The fixture of most tests of this stage."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache import pseudo_files
from tests.pipeline.generation.toy import COUNT


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pseudo-ground-truth of five colored spheres."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        alpha = np.ones((1, 128, 128))
        texture = np.broadcast_to(rng.uniform(-0.8, 0.8, (3, 1, 1)), (3, 128, 128))
        item = pseudo_files.PseudoItem(
            mesh=rng.normal(0.1, 0.02, (3, 32, 32)),
            seg=np.full((2, 128, 128), 0.5),
            texture=texture,
            texture_alpha=alpha,
            image=rng.uniform(-1, 1, (4, 299, 299)),
            category=0,
        )
        pseudo_files.save_pseudo_item("toy", 128, "singletpl", i, item)
    rotation = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(COUNT, 4))))
    metadata = pseudo_files.PoseMetadata(
        scale=torch.full((COUNT, 1), 0.6),
        translation=torch.zeros(COUNT, 3),
        rotation=rotation.float(),
        z0=torch.full((COUNT, 1), 2.0),
        category=torch.zeros(COUNT, dtype=torch.int64),
        paths=[f"{i}.jpg" for i in range(COUNT)],
    )
    pseudo_files.save_metadata("toy", "singletpl", metadata)
    return tmp_path
