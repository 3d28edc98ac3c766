"""The export that a GAN is trained on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cache import feature_statistics, pseudo_files
from data.detections import load_detections
from data.pseudo_ground_truth import PseudoGroundTruth
from tests.pipeline.reconstruction.toy import COUNT, make_dataset, run, state


@pytest.mark.usefixtures("toy")
def test_export_writes_everything_the_gan_reads() -> None:
    run("--iters", "1")
    run("--generate_pseudogt", "--pseudogt_resolution", "128")
    metadata = pseudo_files.load_metadata("toy", "singletpl")
    assert metadata.paths == [f"datasets/toy/images/{i}.png" for i in range(1, COUNT)]
    assert metadata.translation.shape == (4, 3)
    pseudo_files.check_pseudo_ground_truth("toy", 128, "singletpl", 4)
    item = pseudo_files.load_pseudo_item("toy", 128, "singletpl", 2)
    assert item.mesh.shape == (3, 32, 32)
    assert item.seg.shape == (3, 64, 64)
    assert item.image.shape == (4, 299, 299)
    assert item.texture.shape == (3, 128, 128)
    seen = item.texture_alpha[0] > 0.99
    assert 0.2 < seen.mean() < 0.6  # About the half of a sphere that faces the viewer
    color = np.asarray(Image.open("datasets/toy/images/3.png"))[0, 0] / 127.5 - 1
    np.testing.assert_allclose(item.texture[:, seen].mean(1), color, atol=0.02)
    assert not item.texture[:, item.texture_alpha[0] == 0].any()
    assert feature_statistics.load_statistics("toy", "proxy").num_images == COUNT


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_export_continues_unless_the_checkpoint_has_changed() -> None:
    export = ("--generate_pseudogt", "--pseudogt_resolution", "64")
    run("--iters", "1")
    run(*export)
    paths = pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    first = {path: path.stat().st_mtime_ns for path in paths}
    paths[1].unlink()
    run(*export, "--batch_size", "1")
    again = {
        p: p.stat().st_mtime_ns for p in pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    }
    assert again.keys() == first.keys()
    assert [again[path] != first[path] for path in paths] == [False, True, False, False]
    run("--iters", "2")
    run(*export)
    renewed = pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    assert all(path.stat().st_mtime_ns != again[path] for path in renewed)


@pytest.mark.usefixtures("toy")
def test_several_collections_are_exported_each_into_its_own_folder() -> None:
    make_dataset("herd", "llama", ("mane", "tail", "snout"))
    run("--dataset", "herd,toy", "--iters", "1", "--batch_size", "4")
    assert state()["part_names"] == ["mane", "snout", "tail", "beak"]
    export = ("--dataset", "herd,toy", "--generate_pseudogt", "--pseudogt_resolution", "64")
    run(*export)
    assert sorted(p.name for p in Path("cache").glob("*") if p.suffix == "") == [
        "herd", "remeshed_templates", "toy",
    ]  # fmt: skip
    for name in ("herd", "toy"):
        metadata = pseudo_files.load_metadata(name, "singletpl")
        assert metadata.category.tolist() == [0] * 4
        assert metadata.paths == [f"datasets/{name}/images/{i}.png" for i in range(1, COUNT)]
        statistics = feature_statistics.load_statistics(name, "proxy")
        assert statistics.num_images == COUNT
        assert statistics.images == load_detections(name).fingerprint
    # What the second shows is the second's
    dataset = PseudoGroundTruth("herd,toy", 64, "singletpl", segmentation=True)
    assert dataset.metadata.category.tolist() == [0] * 4 + [1] * 4
    sample = dataset[6]
    color = np.asarray(Image.open("datasets/toy/images/3.png"))[0, 0] / 127.5 - 1
    seen = sample.alpha[0] > 0.99
    np.testing.assert_allclose(sample.texture[:, seen].mean(1), color, atol=0.02)
    # Done again, nothing is to do
    items = pseudo_files.pseudo_item_paths("toy", 64, "singletpl")
    before = [path.stat().st_mtime_ns for path in items]
    run(*export)
    assert [path.stat().st_mtime_ns for path in items] == before
