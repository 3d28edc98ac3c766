"""Stage 3, export: displacement maps, partial textures and poses for the GAN, and image statistics.

Reads a checkpoint of checkpoints_recon/<run>/ and what it was trained on. Writes, under
cache/<dataset>/, pseudogt_<R>x<R>_<mode>/<i>.npz, poses_metadata_<mode>.npz and the statistics of
the photographs; of several datasets, each under its own. An interrupted export continues where it stopped.
"""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.cache import feature_statistics, pseudo_files
from data.cache.template_files import templates_fingerprint
from data.crops import object_image
from data.definitions import folder_names
from data.detections import Detections
from data.memory import free_space
from geometry import camera
from models.fid import (
    FeatureSample,
    InceptionFeatures,
    Moments,
    ProxyFeatures,
    StandardFeatures,
    fingerprint,
)
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.cameras.sources import pose_paths
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.model import Scene, make_scene, predict
from pipeline.reconstruction.model_file import Model, load_trained
from rendering import rasterizer
from rendering.inverse import unwrap, visibility
from utils import distributed, files
from utils.cli import UserError
from utils.digests import file_digest
from utils.progress import progress
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)

MIN_RENDER_SIZE = 1024
Networks = dict[feature_statistics.Features, ProxyFeatures | InceptionFeatures]


def generate(device: torch.device, config: ReconstructionConfig) -> None:
    """Writes the pseudo-ground-truth of all images with a pose, and statistics of all photographs.

    Raises:
        UserError: if there is no checkpoint, or its network lacks a texture or a part head.
    """
    rasterizer.set_backend(config.rasterizer)
    # Everything that may fail comes before the first item
    model, data, config = load_trained(config, device)
    configure_logging(config.folder / "log.txt")
    if config.model.prediction_type != "both":
        raise UserError(
            f"{model.path} was trained with --prediction_type {config.model.prediction_type}; "
            "pseudo-ground-truth needs --prediction_type both."
        )
    networks = _feature_networks(config)  # a wrong file is reported before the work begins
    logger.info("exporting %s for %d images", model.path, len(data))
    for share in shares(data):
        _export(model, share, config, networks, device)


class Share(NamedTuple):
    """The images whose pseudo-ground-truth lies in one folder: of a dataset of a list, or all.

    Attributes:
        name: of the folder below cache/.
        data: everything that the run learns from.
        rows: of the images with a pose.
        category: (K,) class labels of these rows in this folder: 0 unless it is that of `all`.
        detections: sets of detections, with and without poses.
        templates: fingerprint of their templates.
    """

    name: str
    data: ReconstructionData
    rows: range
    category: Tensor
    detections: list[Detections]
    templates: str


def shares(data: ReconstructionData) -> list[Share]:
    """Divides a run's images among the folders of their pseudo-ground-truth."""
    names, labels = folder_names(data.dataset), data.labels.category
    if len(names) == 1:
        templates = templates_fingerprint(data.templates)
        return [Share(names[0], data, range(len(data)), labels, data.detections, templates)]
    # Images of one dataset lie next to each other
    counts = labels.bincount(minlength=len(names)).tolist()
    ends = list(itertools.accumulate(counts))
    return [
        Share(
            name,
            data,
            range(end - count, end),
            labels.new_zeros(count),
            [detections],
            origin.templates,
        )
        for name, count, end, detections, origin in zip(
            names, counts, ends, data.detections, data.origins, strict=True
        )
    ]


def _export(
    model: Model,
    share: Share,
    config: ReconstructionConfig,
    networks: Networks,
    device: torch.device,
) -> None:
    """Writes the items of a folder that are missing, their poses and the statistics of its photographs."""
    resolution, data = config.export.pseudogt_resolution, share.data
    folder = pseudo_files.pseudo_folder(share.name, resolution, config.data.mode)
    _begin(config, model.path, share, folder)
    # Each process makes those of its share that an earlier run has not made
    mine = distributed.shard(len(share.rows))
    missing = [i for i in mine if not (folder / f"{i}.npz").exists()]
    _check_disk(config, share, folder, len(missing) * distributed.world_size())
    scene = make_scene(model.vocabulary, model.options, device)
    batches = [
        missing[i : i + config.batch_size] for i in range(0, len(missing), config.batch_size)
    ]
    for batch in progress(batches, description="pseudo-ground-truth"):
        # The class is that of the folder, not of the run
        rows = [share.rows[i] for i in batch]
        items = make_items(model.network, scene, data, rows, resolution, device)
        for index, item in zip(batch, items, strict=True):
            item = item._replace(category=int(share.category[index]))
            pseudo_files.save_pseudo_item(share.name, resolution, config.data.mode, index, item)
    distributed.barrier()
    # The poses last: where they are, the items are complete
    if distributed.is_main():
        pseudo_files.save_metadata(share.name, config.data.mode, _metadata(share))
    _write_statistics(share, config, networks, device)
    logger.info("wrote %s", folder)


def _check_disk(config: ReconstructionConfig, share: Share, folder: Path, count: int) -> None:
    """Logs how much disk space the missing items take, and refuses to start without it."""
    resolution = config.export.pseudogt_resolution
    # An upper bound, since compression is not known in advance
    parts, maps = 1 + len(share.data.part_names), config.model.texture_resolution
    item = pseudo_files.item_bytes(resolution, parts, maps, config.model.mesh_resolution)
    wanted, free = count * item, free_space(folder)
    logger.info("%d items take up to %.2f GB", count, wanted / 1e9)
    if wanted > free:
        raise UserError(
            f"{folder}: {count} items take up to {wanted / 1e9:.1f} GB, but the disk has "
            f"{free / 1e9:.1f} GB left. Free some, or use a lower --pseudogt_resolution than {resolution}."
        )


@torch.no_grad()
def make_items(
    network: ReconstructionNetwork,
    scene: Scene,
    data: ReconstructionData,
    indices: list[int],
    resolution: int,
    device: torch.device,
) -> list[pseudo_files.PseudoItem]:
    """Estimates the meshes of some images and carries their pixels to texture space.

    Args:
        network: the estimator, in eval mode.
        scene: what the images share.
        data: the images.
        indices: which of them.
        resolution: of the textures, in texels.
        device: where to compute.
    """
    # Estimate the meshes under the poses of the photographs
    index = torch.tensor(indices)
    labels = data.labels.select(index).to(device)
    image = torch.stack([data[i].image for i in indices]).to(device)
    prediction = predict(network, scene, image, labels)
    assert prediction.parts is not None
    assert prediction.texture is not None
    # Carry the pixels to where they belong
    coarse = prediction.texture.shape[-1]
    texture, alpha = visible_texture(data, indices, scene, prediction.screen, resolution, coarse)
    return [
        pseudo_files.PseudoItem(
            mesh=prediction.displacement_map[i].cpu().numpy(),
            seg=prediction.parts[i].cpu().numpy(),
            texture=texture[i].cpu().numpy(),
            texture_alpha=alpha[i].cpu().numpy(),
            image=object_image(data.detection(row), pseudo_files.IMAGE_RESOLUTION).numpy(),
            category=int(data.labels.category[row]),
        )
        for i, row in enumerate(indices)
    ]


def visible_texture(
    data: ReconstructionData,
    indices: list[int],
    scene: Scene,
    screen: Tensor,
    resolution: int,
    coarse: int,
) -> tuple[Tensor, Tensor]:
    """Returns the textures (B, 3, R, R) that the photographs show, and where (B, 1, R, R) they do.

    Visibility is found on a texture of the resolution `coarse` or below, so that every texel that is
    seen is several pixels wide.
    """
    # Pixels of the photographs in texture space
    size = max(MIN_RENDER_SIZE, 2 * resolution)
    pictures = torch.stack([object_image(data.detection(i), size) for i in indices])
    pixels, covered = unwrap(pictures.to(screen.device), screen, scene.sphere, resolution)
    # Texels that the camera sees
    seen = visibility(scene.sphere, screen, min(coarse, size // 8), size)
    target = (resolution, resolution)
    seen = F.interpolate(seen, target, mode="bilinear", align_corners=False) > 0
    return pixels[:, :3] * seen, covered * seen * pixels[:, 3:]


def _metadata(share: Share) -> pseudo_files.PoseMetadata:
    rows, data = share.rows, share.data
    pose = camera.select(data.labels.pose, torch.arange(rows.start, rows.stop))
    return pseudo_files.PoseMetadata(
        scale=pose.scale,
        translation=F.pad(pose.translation, (0, 1)),
        rotation=pose.rotation,
        z0=pose.z0,
        category=share.category,
        paths=[data.detection(row).image_path for row in rows],
        templates=share.templates,
    )


def _begin(config: ReconstructionConfig, path: Path, share: Share, folder: Path) -> None:
    """Removes the items of another export: of another checkpoint, other poses or templates."""
    if distributed.is_main():
        # What the items are a function of
        poses = pose_paths(config.model.poses_from, share.detections, config.data.mode)
        source = {str(p): file_digest(p) for p in [path, *poses]}
        source |= {"templates": share.templates, "parts": share.data.part_names}
        record = pseudo_files.source_path(folder)
        # The record goes first and comes last, so that a kill in between is noticed
        remedy = "Delete it and run again."
        if not record.exists() or files.read_json(record, remedy) != source:
            record.unlink(missing_ok=True)
            for item in pseudo_files.pseudo_item_paths(
                share.name, config.export.pseudogt_resolution, config.data.mode
            ):
                item.unlink()
            files.write_json(record, source)
    distributed.barrier()


def _feature_networks(config: ReconstructionConfig) -> Networks:
    """Returns the networks whose features are wanted; without those of FID where their weights are missing."""
    networks: Networks = {"proxy": ProxyFeatures()}
    # The networks behind FID need weights, the proxy distance needs none
    if config.export.standard_fid is not None:
        networks["standard_fid"] = StandardFeatures(config.export.standard_fid)
    try:
        networks["fid"] = InceptionFeatures(config.export.inception_weights)
    except UserError as error:
        if config.export.inception_weights is not None:
            raise
        logger.warning("no statistics for FID, only for the proxy distance: %s", error)
    return networks


def _write_statistics(
    share: Share, config: ReconstructionConfig, networks: Networks, device: torch.device
) -> None:
    """Writes feature statistics of all detections, with or without a pose, for the GAN's evaluation."""
    # A covariance takes at least two samples
    if sum(map(len, share.detections)) < 2:
        logger.warning("no statistics of the photographs: %s has only one", share.name)
        return
    for key, network in networks.items():
        statistics = _statistics(share.detections, config, network, device)
        if distributed.is_main():
            feature_statistics.save_statistics(share.name, statistics, key)
    distributed.barrier()


@torch.no_grad()
def _statistics(
    collections: Sequence[Detections],
    config: ReconstructionConfig,
    network: ProxyFeatures | InceptionFeatures,
    device: torch.device,
) -> feature_statistics.FeatureStatistics:
    # Every process sees the images of its shard, and the moments are summed
    items = [(some, row) for some in collections for row in range(len(some))]
    moments, sample = Moments(network.dimension, device), FeatureSample(len(items))
    network = network.to(device)
    mine = distributed.shard(len(items))
    steps = range(mine.start, mine.stop, config.batch_size)
    for start in progress(steps, description=f"image statistics ({network.name})"):
        numbers = range(start, min(start + config.batch_size, mine.stop))
        some = [detections[row] for detections, row in items[numbers.start : numbers.stop]]
        crops = [object_image(item, pseudo_files.IMAGE_RESOLUTION)[:3] for item in some]
        features = network(torch.stack(crops).to(device) / 2 + 0.5)  # on grey
        moments.update(features)
        sample.update(features, numbers)
    moments.reduce()
    mean, covariance = moments.result()
    # Fingerprints show later whether the statistics are out of date
    return feature_statistics.FeatureStatistics(
        mean.numpy(),
        covariance.numpy(),
        moments.count,
        sample.result().numpy(),
        network=fingerprint(network),
        images=feature_statistics.common_fingerprint([d.fingerprint for d in collections]),
    )
