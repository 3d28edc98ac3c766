"""What samples are measured by: held-out photographs, features of a network, and training textures."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import run_generation
from data.cache import pseudo_files
from data.pseudo_ground_truth import held_out_rows
from geometry.uv_maps import fold, half_map, mirror_map, symmetric_extension
from models.features import PooledFeatures
from pipeline.generation import measures, originality, sampling
from pipeline.generation.config import make_config
from tests.pipeline.generation.toy import OPTIONS, run, weights
from utils.cli import UserError

CPU = torch.device("cpu")


def config_of(*options: str):
    return make_config(vars(run_generation.build_parser().parse_args([*OPTIONS, *options])))


@pytest.mark.parametrize(
    ("count", "share", "held"), [(10, 0.2, 2), (7, 0.5, 3), (5, 0.1, 1), (4, 0, 0)]
)
def test_a_share_of_the_photographs_is_held_out_evenly(count: int, share: float, held: int) -> None:
    paths = [f"{i:02d}.jpg" for i in range(count)]
    rows = held_out_rows(paths, share)
    assert len(rows) == held
    assert np.diff(rows).tolist() in ([], [round(1 / share)] * (held - 1) if share else [])
    # The same photographs in another order, and twice
    shuffled = [paths[i] for i in np.random.default_rng(0).permutation(count)] + paths[:3]
    again = held_out_rows(shuffled, share)
    assert {shuffled[row] for row in again} == {paths[row] for row in rows}


def test_a_model_is_not_trained_on_held_out_photographs_and_remembers_them(toy: Path) -> None:
    run("--held_out", "0.4", "--iters", "1")
    held = {"2.jpg", "4.jpg"}
    state = weights()
    assert set(state["views"]["paths"]) == {"0.jpg", "1.jpg", "3.jpg"}
    assert state["args"]["held_out"] == 0.4
    # Neither a resumed run nor an evaluation takes another share
    run("--held_out", "0.2", "--iters", "2")
    assert set(weights()["views"]["paths"]) == {"0.jpg", "1.jpg", "3.jpg"}
    run("--evaluate", "--proxy_distance")
    record = json.loads(
        (toy / "checkpoints_gan/toy_singletpl/metrics.jsonl").read_text().splitlines()[-2]
    )
    config = config_of("--held_out", "0.4", "--proxy_distance")
    network = measures.ProxyFeatures()
    images = [pseudo_files.load_pseudo_item("toy", 128, "singletpl", i).image for i in (2, 4)]
    colors = torch.from_numpy(np.stack(images)[:, :3].astype(np.float32)) / 2 + 0.5
    expected = network(colors)
    [measure] = measures.make_measures(config, CPU)
    assert measure.num_samples == 3
    np.testing.assert_allclose(measure.real.sample, expected, atol=1e-6)
    np.testing.assert_allclose(measure.real.covariance, np.cov(expected.double().T), atol=1e-9)
    assert {"proxy", "proxy_kid", "proxy_photographs", "proxy_photographs_kid"} <= record.keys()
    assert {sampling.open_dataset(config, held_out=True).metadata.paths[i] for i in (0, 1)} == held


def test_a_share_that_leaves_too_few_photographs_is_an_error(toy: Path) -> None:
    run("--held_out", "0.2", "--iters", "1")
    with pytest.raises(UserError, match=r"keeps 1 of the photographs.*2 or more"):
        run("--evaluate", "--proxy_distance")


class Mosaic(nn.Module):
    """Maps of 2 x 2 cells: means of an image of 32 pixels."""

    name, resolution = "mosaic", 32

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(images, 16)


def test_pooled_features_are_means_over_the_image() -> None:
    images = torch.rand(2, 3, 96, 96, generator=torch.manual_seed(0))
    features = PooledFeatures(Mosaic())(images)  # type: ignore[arg-type] - has all that is used
    torch.testing.assert_close(features, 2 * images.mean((2, 3)) - 1, atol=0.02, rtol=0)


def test_distances_in_features_are_printed_under_their_own_name(
    toy: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(measures, "load_features", lambda choice: Mosaic())
    run("--iters", "1")
    caplog.set_level(logging.INFO)
    run("--evaluate", "--features", "mosaic:weights.pth")
    lines = [line for line in caplog.messages if "distance" in line.lower()]
    assert any(
        line.startswith("Frechet distance in features of mosaic (not FID): ") for line in lines
    )
    assert not any("FID" in line.replace("not FID", "") for line in lines)
    assert any("kernel distance (not KID)" in line for line in lines)


def textures(count: int, seed: int) -> originality.Textures:
    generator = torch.manual_seed(seed)
    colors = torch.rand(count, 3, 64, 32, generator=generator)
    return originality.Textures(
        colors, (torch.rand(count, 1, 64, 32, generator=generator) > 0.5).float()
    )


def test_differences_are_those_of_a_loop() -> None:
    first, second = textures(3, 0), textures(4, 1)
    second.seen[3] = 0
    second.seen[3, 0, :3, :3] = 1  # too little to compare
    found = originality.differences(first, second)
    for i in range(3):
        for j in range(3):
            both = (first.seen[i, 0] * second.seen[j, 0]).bool()
            squares = (first.colors[i] - second.colors[j])[:, both].square()
            assert found[i, j].item() == pytest.approx(math.sqrt(squares.mean()), rel=1e-5)
    assert found[:, 3].isinf().all()


def test_shape_differences_are_those_of_a_loop() -> None:
    vertices = torch.rand(3, 5, 3, generator=torch.manual_seed(0))
    found = originality.shape_differences(vertices)
    expected = [
        [np.mean([math.dist(p, q) for p, q in zip(a, b, strict=True)]) for a in vertices.tolist()]
        for b in vertices.tolist()
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_folding_keeps_symmetric_maps_and_fills_in_from_the_other_side() -> None:
    half = torch.rand(1, 3, 8, 8, generator=torch.manual_seed(0))
    full = symmetric_extension(half)
    seen = torch.zeros(1, 1, 8, 16)
    seen[..., 3:7] = 1
    seen[..., 14] = 0.25
    folded, weights_ = fold(full * (seen > 0), seen)
    expected = torch.maximum(half_map(seen), half_map(mirror_map(seen)))
    torch.testing.assert_close(weights_, expected)
    torch.testing.assert_close(folded, half * (expected > 0))


def test_a_copied_texture_is_found_and_drawn(toy: Path) -> None:
    config = config_of("--batch_size", "4")
    dataset = sampling.open_dataset(config)
    copied = dataset[3]

    class Copier(nn.Module):
        num_classes, num_parts, latent_dim = (), 0, 4

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, z: torch.Tensor, conditions: object) -> tuple[torch.Tensor, torch.Tensor]:
            return tuple(x.expand(len(z), -1, -1, -1) for x in (copied.texture, copied.mesh))  # type: ignore[return-value]

    template = originality.SphereMesh()
    compared = originality.collect(Copier(), config, dataset, None, template)  # type: ignore[arg-type]
    found, picture = (
        originality.originality(compared),
        originality.draw(compared, dataset, template),
    )
    assert found.nearest == pytest.approx(0, abs=1e-5)
    assert found.texture == pytest.approx(0, abs=1e-5)
    assert found.shape == 0
    assert found.training_texture > 0.1
    samples, nearest = picture[15 : 15 + 128], picture[2 * 150 :]
    assert samples.std() > 0
    assert nearest.std() > 0
