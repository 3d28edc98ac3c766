from pathlib import Path

import pytest
import torch

from scripts import half_model
from utils import checkpoint, model_file
from utils.cli import UserError


def test_large_weights_are_halved_and_the_rest_is_kept(tmp_path: Path):
    path = tmp_path / "model.pth"
    torch.manual_seed(0)
    weight, few = torch.randn(300), torch.randn(3)
    counts, exact = torch.arange(300), torch.randn(300, dtype=torch.float64)
    state = {
        "format": 1,
        "generator": {"weight": weight, "few": few, "counts": counts, "exact": exact},
    }
    checkpoint.save(path, state)
    half_model.main([str(path)])
    assert checkpoint.load(path, "cpu")["generator"]["weight"].dtype == torch.float16
    # Who reads the model gets single precision again
    stored = model_file.load(path)
    assert stored["format"] == 1
    generator = stored["generator"]
    assert generator["weight"].dtype == torch.float32
    assert (generator["weight"] - weight).abs().max() < 2**-11 * weight.abs().max()
    for name, expected in (("few", few), ("counts", counts), ("exact", exact)):
        assert torch.equal(generator[name], expected)
        assert generator[name].dtype == expected.dtype


def test_a_missing_file_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.pth"):
        half_model.main([str(tmp_path / "absent.pth")])
