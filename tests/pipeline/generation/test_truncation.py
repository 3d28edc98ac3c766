"""The bound of latent codes: as in convmesh for the data sets that it names, 1 for all others."""

import pytest

import run_generation
from pipeline.generation.config import make_config


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--dataset cub --conditional_class species", 0.25),
        ("--dataset cub --conditional_class", 1),
        ("--dataset cub", 1),
        ("--dataset p3d_car --conditional_class shape", 0.75),
        ("--dataset p3d_car --conditional_class color shape", 0.5),
        ("--dataset p3d_car --conditional_class color", 1),
        ("--dataset photobirds --conditional_class species", 1),
        ("--dataset all --conditional_class", 1),
        ("--dataset cub --conditional_class species --truncation_sigma 0.6", 0.6),
    ],
)
def test_bound_of_latent_codes(options: str, expected: float) -> None:
    words = ["--name", "a_singletpl", *options.split()]
    config = make_config(vars(run_generation.build_parser().parse_args(words)))
    assert config.truncation_sigma == expected
