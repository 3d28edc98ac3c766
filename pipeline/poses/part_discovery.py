"""Parts without labels, for stage 2: a network learns part maps from the collection itself.

Parts are learned from the most confident images. What a part stands for is a place on the template:
the features that pixels of one part share are the positions on the surface that the poses of these
images put there. With the weights of a pretrained network, parts are learned from all images, and its
features take that place. Every image must be divided in the same way after a deformation. Writes
parts_learned_K<k>_<mode>.npz.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.cache.learned_parts import (
    LearnedParts,
    learned_parts_path,
    load_learned_parts,
    save_learned_parts,
)
from data.crops import ObjectImages, square_box
from data.detections import Detections
from geometry.camera import Pose, project, select, to_device
from models import part_discovery as losses
from models.backbones import Backbone
from models.features import FeatureNetwork
from models.part_discovery import PartNetwork
from models.warping import jitter_colors, random_warp
from pipeline.poses.options import PartsConfig
from pipeline.poses.semantic_template import SemanticModel
from rendering.rasterizer import rasterize
from utils import distributed, training
from utils.files import to_json
from utils.progress import progress
from utils.run_directory import RunDirectory
from utils.seeding import seed_everything, torch_generator
from utils.training import Schedule, Task, Term, values, weighted_sum

SIZE = 64  # pixels of the crops and of the maps
BATCH = 8
LEARNING_RATE, BASIS_RATE = 3e-3, 3e-2
DECAY = 0.9  # exponent of the schedule
WEIGHTS = {  # of the losses
    "consistency": 1.0,
    "equivariance": 1.0,
    "landmarks": 1.0,
    "concentration": 0.1,
    "orthonormality": 0.01,
}
COMPONENTS = 16  # of the features of a pretrained network
SAVE_INTERVAL = 50  # steps
_CHUNK = 16  # images at a time, where the result does not depend on it

logger = logging.getLogger(__name__)


class ConfidentSet(NamedTuple):
    """Poses that are probably right.

    Attributes:
        rows: (M,) of the detections.
        pose: M poses.
        choice: (M,) template of each.
    """

    rows: Tensor
    pose: Pose
    choice: Tensor


class TrainingSet(NamedTuple):
    """What parts are learned from.

    Attributes:
        images: (N, 4, SIZE, SIZE) all crops.
        rows: (M,) of the crops whose features are known.
        features: (M, D + 1, s, s) features of mean 0 and mean square 1; the last channel is their
            weight in [0, 1].
    """

    images: Tensor
    rows: Tensor
    features: Tensor

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns a batch of crops (B, 4, SIZE, SIZE) and their features (B, D + 1, SIZE, SIZE)."""
        index = torch.randint(len(self.rows), (BATCH,), generator=generator)
        size = (SIZE, SIZE)
        features = functional.interpolate(self.features[index], size, mode="bilinear")
        return self.images[self.rows[index]], features


def learn_parts(
    config: PartsConfig,
    detections: Detections,
    confident: ConfidentSet,
    model: SemanticModel,
    backbone: Backbone | FeatureNetwork | None,
    device: torch.device,
) -> LearnedParts:
    """Learns the part maps of a collection, or reads them where they have been learned already.

    One process learns, the others wait for its file.

    Args:
        config: options.
        detections: all N objects.
        confident: poses of the images that parts are learned from.
        model: the templates.
        backbone: a pretrained network whose features the parts shall share; None for places on
            the template.
        device: where to compute.
    """
    settings = _settings(config, confident, model, backbone)
    path = learned_parts_path(config.dataset, config.mode, config.num_parts)
    key = (path, detections.fingerprint, settings)
    if distributed.is_main() and load_learned_parts(*key) is None:
        images = torch.cat(list(_crops(detections, SIZE)))
        training_set = TrainingSet(images, confident.rows, surface_features(confident, model))
        if backbone is not None:
            features = backbone_features(backbone, detections, device)
            training_set = TrainingSet(images, torch.arange(len(images)), features)
        with distributed.alone():
            network = train(config, training_set, settings, device)
        maps = predict(network, images, device)
        boxes = torch.tensor([square_box(item.bbox) for item in detections.items])
        save_learned_parts(path, LearnedParts(maps, boxes), detections.fingerprint, settings)
        shutil.rmtree(_run_folder(config))
        shares = maps.float().mean(dim=(0, 2, 3)) / maps.float().mean(dim=(0, 2, 3)).sum()
        words = " ".join(f"{100 * share:.0f} %" for share in shares.tolist())
        logger.info("%s: %d parts, which take %s of the objects", path, len(shares), words)
    distributed.barrier()
    parts = load_learned_parts(*key)
    assert parts is not None, "another run has replaced the learned parts"
    return parts


def surface_features(confident: ConfidentSet, model: SemanticModel) -> Tensor:
    """Returns where on the template the pixels of M images lie: |x|, y, z (M, 4, SIZE, SIZE)."""
    maps = []
    for rows in torch.arange(len(confident.choice)).split(_CHUNK):
        vertices = model.templates[confident.choice[rows].to(model.templates.device)]
        places = torch.cat([vertices[..., :1].abs(), vertices[..., 1:]], dim=-1)
        pose = to_device(select(confident.pose, rows), vertices.device)
        screen = project(vertices, pose)
        raster = rasterize(screen, model.faces, SIZE, attributes=places, soft=False)
        assert raster.attributes is not None
        maps.append(torch.cat([raster.attributes, raster.coverage], dim=1).cpu())
    return _standardize(torch.cat(maps))


@torch.no_grad()
def backbone_features(
    backbone: Backbone | FeatureNetwork, detections: Detections, device: torch.device
) -> Tensor:
    """Returns the strongest components (N, D + 1, s, s) of a pretrained network's features."""
    backbone = backbone.to(device)
    found, masks = [], []
    for images in _crops(detections, backbone.resolution):
        found.append(backbone(images.to(device)).cpu())
        masks.append(functional.adaptive_avg_pool2d(images[:, 3:], found[-1].shape[2:]))
    features, weight = torch.cat(found), torch.cat(masks)
    points = features.permute(0, 2, 3, 1)[weight[:, 0] > 0.5].double()
    _, basis = torch.linalg.eigh(torch.cov(points.T))
    components = torch.einsum("ndhw,dc->nchw", features, basis[:, -COMPONENTS:].float())
    return _standardize(torch.cat([components, weight], dim=1))


def _standardize(features: Tensor) -> Tensor:
    """Gives features (M, D + 1, s, s) a mean of 0 and a mean square of 1, by the last channel's weight.

    All channels are scaled alike: what varies most on the template, front to back, counts most.
    """
    values, weight = features[:, :-1], features[:, -1:]
    total = weight.sum().clamp(min=1)
    values = values - (values * weight).sum(dim=(0, 2, 3), keepdim=True) / total
    square = (values.square() * weight).sum(dim=(0, 2, 3)).mean() / total
    return torch.cat([values / square.sqrt().clamp(min=1e-6), weight], dim=1)


def train(
    config: PartsConfig, training_set: TrainingSet, settings: str, device: torch.device
) -> PartNetwork:
    """Trains the network; continues an interrupted run of the same settings."""
    seed_everything(config.seed, "parts")
    network = PartNetwork(config.num_parts).to(device)
    basis = 0.1 * torch.randn(config.num_parts, training_set.features.shape[1] - 1)
    places = nn.ParameterList([basis.to(device)])
    optimizer = torch.optim.Adam(
        [{"params": list(network.parameters())}, {"params": list(places)}], lr=LEARNING_RATE
    )

    def rates(step: int) -> dict[str, float]:
        share = (1 - step / config.parts_iters) ** DECAY
        return {"lr_network": LEARNING_RATE * share, "lr_basis": BASIS_RATE * share}

    def update(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        for group, rate in zip(optimizer.param_groups, rates(step).values(), strict=True):
            group["lr"] = rate
        terms = {
            name: Term(value, WEIGHTS[name])
            for name, value in train_step(network, places[0], training_set, generator).items()
        }
        optimizer.zero_grad()
        weighted_sum(terms).backward()
        optimizer.step()
        return values(terms)

    run = RunDirectory(_run_folder(config))
    found = run.newest_checkpoint()
    if found is not None and found[1].get("settings") != settings:
        found = None
    task = Task(
        members={"network": network, "basis": places, "optimizer": optimizer},
        constants={"settings": settings},
        batches=lambda step: (torch_generator(config.seed, "parts", i) for i in count(step)),
        update=update,
        rates=rates,
        remedy="Try another --seed.",
    )
    total = config.parts_iters
    schedule = Schedule(total, picture=total, evaluate=total, save=SAVE_INTERVAL, checkpoint=total)
    training.train(task, schedule, run, asdict(config), found=found, keep=1)
    return network


def train_step(
    network: PartNetwork, basis: Tensor, training_set: TrainingSet, generator: torch.Generator
) -> dict[str, Tensor]:
    """Returns the losses of a batch and its warped copy.

    Args:
        network: the network.
        basis: (K, D) what each part stands for.
        training_set: images and features.
        generator: of the batch and its warp.
    """
    device = basis.device
    images, features = (x.to(device) for x in training_set.draw(generator))
    warp = random_warp(BATCH, generator).to(device)
    jittered = jitter_colors(images, generator)
    warped, moved = warp.images(torch.cat([jittered, features], dim=1)).split(
        (4, features.shape[1]), dim=1
    )
    both = torch.cat([images, warped])
    logits = network(both)
    maps = logits.softmax(dim=1) * both[:, 3:]
    original = maps[:BATCH]
    places, masses = losses.centers(maps)
    shown = (masses > 1)[:BATCH] & (masses > 1)[BATCH:]
    known = torch.cat([features, moved])
    weight = known[:, -1:] * both[:, 3:]
    expected = warp.images(original.detach())
    return {
        "consistency": losses.semantic_consistency(maps, basis, known[:, :-1], weight),
        "equivariance": losses.equivariance(logits[BATCH:], expected, warped[:, 3:]),
        "landmarks": losses.landmark_equivariance(
            warp.positions(places[BATCH:]), places[:BATCH], shown
        ),
        "concentration": losses.concentration(original),
        "orthonormality": losses.orthonormality(basis),
    }


@torch.no_grad()
def predict(network: PartNetwork, images: Tensor, device: torch.device) -> Tensor:
    """Returns part maps (N, K, SIZE, SIZE), uint8."""
    maps = torch.cat([network.parts(x.to(device)).cpu() for x in images.split(_CHUNK)])
    return (255 * maps).round().to(torch.uint8)


def _crops(detections: Detections, size: int) -> Iterator[Tensor]:
    """Yields all crops (n, 4, size, size), a few at a time."""
    dataset = ObjectImages(detections, size, antialias=True)
    with progress(total=len(dataset), description="reading images") as bar:
        for rows in torch.arange(len(dataset)).split(_CHUNK):
            yield torch.stack([dataset[int(row)].image for row in rows])
            bar.update(len(rows))


def _settings(
    config: PartsConfig,
    confident: ConfidentSet,
    model: SemanticModel,
    backbone: Backbone | FeatureNetwork | None,
) -> str:
    """Returns a text that changes with everything the parts depend on beside the detections."""
    tensors = (
        [confident.rows, *confident.pose, confident.choice, model.templates.cpu()]
        if backbone is None
        else backbone.state_dict().values()
    )
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    options = asdict(config) | {"taught": digest.hexdigest()}
    return to_json(options | {"size": SIZE, "batch": BATCH, "weights": WEIGHTS})


def _run_folder(config: PartsConfig) -> Path:
    """The folder of an unfinished training, beside the file that it will write."""
    path = learned_parts_path(config.dataset, config.mode, config.num_parts)
    return path.with_name(f".{path.stem}")
