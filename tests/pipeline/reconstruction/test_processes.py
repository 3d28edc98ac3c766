"""One and two processes train alike: in double precision, except for the images that are rendered."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.camera import Pose
from pipeline.reconstruction.companions.record import Companions
from pipeline.reconstruction.companions.swaps import Memory, NeighborSwaps
from pipeline.reconstruction.companions.textures import TextureTerms
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import Batch, endless_batches
from pipeline.reconstruction.model import make_data, make_network, make_scene
from pipeline.reconstruction.pose_corrections import PoseCorrections
from pipeline.reconstruction.training import Update
from tests.pipeline.reconstruction.toy import FLOW, config
from utils import distributed
from utils.training import make_length

STEPS = 20
CPU = torch.device("cpu")


def train_in_double(device: torch.device, options: ReconstructionConfig) -> dict[str, Tensor]:
    """Returns the network's state after some steps."""
    torch.set_default_dtype(torch.float64)
    try:
        data = make_data(options)
        network = make_network(options, data, device).double()
        scene = make_scene(data.vocabulary, options.model, device)
        scene = scene._replace(
            sphere=scene.sphere.double(),
            templates=scene.templates.double(),
            selection=scene.selection.double(),
        )
        labels = data.labels._replace(pose=Pose(*(x.double() for x in data.labels.pose)))
        optimizer = torch.optim.Adam(network.parameters())
        length = make_length(len(data), options.batch_size, STEPS, 1)
        corrections = PoseCorrections(labels.pose)
        memory = Memory(len(data), options.model.texture_resolution, 32, device)
        swaps = NeighborSwaps(
            memory, scene, labels, lambda row: data[row].image, F.mse_loss, weight=1, seed=0
        )
        textures = TextureTerms(options.optimizer, device)
        companions = Companions(corrections, None, swaps, textures=textures)
        update = Update(
            network, optimizer, scene, labels, options.optimizer, length, companions=companions
        )
        batches = endless_batches(data, options.batch_size, options.seed, 0, device, 0)
        for step in range(STEPS):
            batch = next(batches)
            update(step, Batch(*(x.double() if x.is_floating_point() else x for x in batch)))
        batches.close()
    finally:
        torch.set_default_dtype(torch.float32)
    members = {**network.state_dict(), "corrections": corrections.values}
    return {name: value.clone() for name, value in members.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("added", [[], FLOW])
def test_two_processes_train_as_one_does(added: list[str]) -> None:
    options = config("--batch_size", "4", "--pose_rate", "0.01", *added)
    alone = distributed.launch(train_in_double, [CPU], options)
    together = distributed.launch(train_in_double, [CPU, CPU], options)
    start = make_network(options, make_data(options), CPU).state_dict()
    name = "blk1.conv1.weight"
    assert (alone[name] - start[name]).abs().max() > 1e-3  # it has learned something
    assert alone["corrections"].abs().max() > 1e-3
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-7, msg=name)
