"""One and two processes train alike: in double precision, where no rounding hides a difference."""

from pathlib import Path

import pytest
import torch

import run_generation
from data.pseudo_ground_truth import UVSample
from geometry.sphere_mesh import SphereMesh
from pipeline.generation import sampling
from pipeline.generation.config import GenerationConfig, make_config
from pipeline.generation.training import Gan, Update, endless_batches
from tests.pipeline.generation.toy import OPTIONS
from utils import distributed
from utils.training import make_length

STEPS = 20
CPU = torch.device("cpu")


def train_in_double(device: torch.device, config: GenerationConfig) -> dict[str, torch.Tensor]:
    """Returns the states of all networks after some steps."""
    torch.set_default_dtype(torch.float64)
    try:
        dataset = sampling.open_dataset(config)
        gan = Gan(config, 0, sampling.num_parts(config, dataset), device)
        networks = (gan.generator, gan.generator_ema, gan.discriminator)
        for network in networks:
            network.double()
        length = make_length(len(dataset), config.batch_size, STEPS, 1)
        update = Update(gan, SphereMesh().double(), config, length)
        batches = endless_batches(dataset, config, device, 0)
        for step in range(STEPS):
            batch = next(batches)
            update(step, UVSample(*(x.double() if x.is_floating_point() else x for x in batch)))
        batches.close()
    finally:
        torch.set_default_dtype(torch.float32)
    return {
        f"{i}.{name}": value.clone()
        for i, network in enumerate(networks)
        for name, value in network.state_dict().items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["syncbatch", "instance"])
def test_two_processes_train_as_one_does(toy: Path, norm: str) -> None:
    options = ["--batch_size", "4", "--warmup_steps", "10", "--conditional_semantics"]
    options += ["--norm_g", norm, "--lr_g", "0.001", "--lr_d", "0.001"]
    parsed = run_generation.build_parser().parse_args([*OPTIONS, *options])
    config = make_config(vars(parsed))
    alone = distributed.launch(train_in_double, [CPU], config)
    together = distributed.launch(train_in_double, [CPU, CPU], config)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-9, msg=name)
