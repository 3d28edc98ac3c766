"""Pseudo-ground-truth as a data set, and its mirror augmentation."""

from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.cache import pseudo_files
from data.pseudo_ground_truth import PseudoGroundTruth, mirror_samples
from data.samplers import StepSampler
from tests.data.cache.test_artifacts import MODE, metadata, pseudo_item
from utils.cli import UserError
from utils.files import write_json


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PseudoGroundTruth:
    monkeypatch.chdir(tmp_path)
    pseudo_files.save_metadata("toy", MODE, metadata(3)._replace(category=torch.arange(3)))
    for i in range(3):
        pseudo_files.save_pseudo_item("toy", 8, MODE, i, pseudo_item()._replace(category=i))
    return PseudoGroundTruth("toy", 8, MODE, segmentation=True)


def test_items_are_float_tensors(dataset):
    sample, stored = dataset[1], pseudo_item()
    assert sample.texture.dtype == torch.float32
    assert np.array_equal(sample.texture, stored.texture.astype(np.float32))
    assert np.array_equal(sample.alpha, stored.texture_alpha.astype(np.float32))
    assert np.array_equal(sample.mesh, stored.mesh)
    assert (sample.category, sample.row) == (1, 1)
    expected = torch.softmax(100 * torch.from_numpy(stored.seg), dim=0)
    assert torch.equal(sample.seg, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texture": np.full((3, 8, 8), np.nan)}, r"1\.npz: texture .*expected finite numbers"),
        ({"mesh": np.full((3, 32, 32), np.inf)}, r"1\.npz: mesh .*expected finite numbers"),
        (
            {"texture_alpha": np.zeros((1, 4, 4))},
            r"texture_alpha .*\(1, 4, 4\), expected .*\(1, 8, 8\)",
        ),
        ({"category": 10**9}, r"1\.npz: category 1000000000, expected 0-12"),
        ({"category": -1}, r"1\.npz: category -1"),
    ],
)
def test_items_that_would_spoil_the_training_are_refused(dataset, changes, message):
    pseudo_files.save_pseudo_item("toy", 8, MODE, 1, pseudo_item()._replace(**changes))
    with pytest.raises(UserError, match=message):
        dataset[1]
    dataset[0]


def test_several_datasets_come_one_after_another_each_a_class_of_its_own(dataset):
    pseudo_files.save_metadata("more", MODE, more := metadata(2))
    for i in range(2):
        item = pseudo_item()
        pseudo_files.save_pseudo_item("more", 8, MODE, i, item._replace(mesh=item.mesh + 1 + i))
    both = PseudoGroundTruth("more,toy", 8, MODE)
    assert both.metadata.category.tolist() == [0, 0, 1, 1, 1]
    assert both.metadata.paths == more.paths + dataset.metadata.paths
    for joint, alone in zip(both.metadata.pose, more.pose, strict=True):
        assert torch.equal(joint[:2], alone)
    for i in range(5):
        assert (both[i].row, both[i].category) == (i, int(i > 1))
    assert torch.equal(both[1].mesh, PseudoGroundTruth("more", 8, MODE)[1].mesh)
    assert torch.equal(both[4].mesh, dataset[2].mesh)
    # Part maps belong together only if one model has made them
    sources = [pseudo_files.source_path(pseudo_files.pseudo_folder(n, 8, MODE)) for n in ("more", "toy")]  # fmt: skip
    for parts in ([["ear"], ["ear"]], [["ear"], ["fin"]], [["ear"]]):
        for path, names in zip_longest(sources, parts):
            write_json(path, {"parts": names})
        if parts == [["ear"], ["ear"]]:
            PseudoGroundTruth("more,toy", 8, MODE, segmentation=True)
        else:
            with pytest.raises(UserError, match=r"different channels.*--dataset more,toy --mode"):
                PseudoGroundTruth("more,toy", 8, MODE, segmentation=True)


def test_mirroring_flips_width_and_rolls_by_half(dataset):
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    mirrored = mirror_samples(batch, torch.tensor([True, False, True]))
    for name in ("texture", "alpha", "mesh", "seg"):
        before, after = getattr(batch, name), getattr(mirrored, name)
        width = before.shape[-1]
        columns = [(width - 1 - i + width // 2) % width for i in range(width)]
        assert torch.equal(after[0], before[0][..., columns])
        assert torch.equal(after[1], before[1])
        assert not torch.equal(after[2], before[2])
    assert torch.equal(mirrored.row, batch.row)


def test_symmetric_maps_are_unchanged_by_mirroring(dataset):
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    half = torch.rand(3, 3, 32, 16)
    full = torch.cat([half.flip(-1)[..., 8:], half, half.flip(-1)[..., :8]], dim=-1)
    mirrored = mirror_samples(batch._replace(mesh=full), torch.ones(3, dtype=torch.bool))
    assert torch.equal(mirrored.mesh, full)


def test_a_step_sampler_drives_the_loader(dataset):
    plain = PseudoGroundTruth("toy", 8, MODE)
    sampler = StepSampler(len(plain), 2, seed=5)
    for step, batch in zip(range(4), DataLoader(plain, batch_sampler=sampler), strict=False):
        assert batch.row.tolist() == sampler.batch(step)
        mirrored = mirror_samples(batch, sampler.coins(step))
        assert mirrored.seg.shape == (2, 0, 1, 1)


def test_incomplete_exports_are_one_line_errors(dataset):
    Path("cache/toy/pseudogt_8x8_singletpl/1.npz").unlink()
    with pytest.raises(UserError, match=r"has 2 items, but .* lists 3"):
        PseudoGroundTruth("toy", 8, MODE)
    with pytest.raises(UserError, match=r"lists 3.*--pseudogt_resolution 16"):
        PseudoGroundTruth("toy", 16, MODE)
