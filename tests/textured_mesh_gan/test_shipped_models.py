"""The two trained models that come with the repository."""

import numpy as np
import pytest

import textured_mesh_gan as tmg
from tests.conftest import REPOSITORY
from utils import model_file
from utils.cli import UserError

NAME = "pretrained_synthetic_car_singletpl"


def test_the_generator_makes_cars_of_single_precision() -> None:
    generator = tmg.load_generator(REPOSITORY / "checkpoints_gan" / NAME / "model.pth")
    first, second = generator.sample(2, seed=1)
    assert first.texture.shape == (128, 128, 3)
    assert not np.array_equal(first.vertices, second.vertices)
    # Cars are long in y and symmetric in x
    extent = np.ptp(first.vertices, axis=0)
    assert extent[1] > 1.5 * extent[0] > 0.3


def test_a_missing_one_can_be_copied() -> None:
    with pytest.raises(UserError) as refusal:
        model_file.resolve(f"checkpoints_gan/{NAME}_2", "latest", "Train it.")
    place = f"checkpoints_gan/{NAME}_2 does not exist. Copy it there from checkpoints_gan/ of the"
    assert str(refusal.value).startswith(place)
    assert str(refusal.value).endswith(" names. Train it.")


@pytest.mark.slow
def test_the_estimator_colors_the_shipped_photograph_blue() -> None:
    estimator = tmg.load_estimator(REPOSITORY / "checkpoints_recon" / NAME / "model.pth")
    mesh = estimator.estimate(REPOSITORY / "docs" / "images" / "photographs" / "car.png")
    extent = np.ptp(mesh.vertices, axis=0)
    assert extent[1] > 1.5 * extent[0] > 0.3
    red, _, blue = mesh.texture.reshape(-1, 3).astype(float).mean(0)
    assert blue > 1.2 * red
