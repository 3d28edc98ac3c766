"""Silhouettes sharpen in the course of a training."""

import pytest
import torch

from pipeline.reconstruction.dataset import Batch
from pipeline.reconstruction.model import make_data, make_network, make_scene, predict
from pipeline.reconstruction.training import Update, compute_terms
from rendering.rasterizer import SHARPNESS, rasterize
from tests.pipeline.reconstruction.toy import config
from utils.training import Length

CPU = torch.device("cpu")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("final", [SHARPNESS, 10 * SHARPNESS])
def test_sharpness_rises_by_the_same_factor_in_every_step(final: float) -> None:
    options = config("--final_sharpness", str(final))
    data = make_data(options)
    network, scene = (
        make_network(options, data, CPU),
        make_scene(data.vocabulary, options.model, CPU),
    )
    optimizer = torch.optim.Adam(network.parameters())
    length = Length(total=4, epoch=1, in_steps=True)
    update = Update(network, optimizer, scene, data.labels, options.optimizer, length)
    factors = [update.sharpness(i + 1) / update.sharpness(i) for i in range(4)]
    assert update.sharpness(0) == SHARPNESS
    assert factors == pytest.approx([(final / SHARPNESS) ** 0.25] * 4)


@pytest.mark.usefixtures("toy")
def test_silhouettes_are_compared_as_sharp_as_asked_for() -> None:
    options = config()
    data = make_data(options)
    network, scene = (
        make_network(options, data, CPU).eval(),
        make_scene(data.vocabulary, options.model, CPU),
    )
    labels = data.labels.select(torch.tensor([0, 1]))
    items = [data[0], data[1]]
    image = torch.stack([item.image for item in items])
    flip = torch.zeros(2, dtype=torch.bool)
    batch = Batch(image, torch.stack([item.parts for item in items]), torch.tensor([0, 1]), flip)
    prediction = predict(network, scene, image, labels)
    for sharpness in (SHARPNESS, 40 * SHARPNESS):
        terms, _ = compute_terms(
            prediction,
            scene,
            batch,
            labels,
            options.optimizer,
            0,
            lambda _, alpha, mask: (alpha - mask).square().mean(),
            sharpness=sharpness,
        )
        size = image.shape[-1]
        alpha = rasterize(prediction.screen, scene.sphere.faces, size, sharpness=sharpness).alpha
        assert alpha is not None
        expected = (alpha - image[:, 3:]).square().mean()
        torch.testing.assert_close(terms["silhouette"].value, expected)
