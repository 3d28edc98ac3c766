"""Stage 3, export: displacement maps, partial textures and poses for the GAN, and image statistics.

Reads a checkpoint of checkpoints_recon/<run>/ and what it was trained on. Writes, under
cache/<dataset>/, pseudogt_<R>x<R>_<mode>/<i>.npz, poses_metadata_<mode>.npz and the statistics of
the photographs. An interrupted export continues where it stopped.
"""

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data.cache import feature_statistics, pose_files, pseudo_files
from data.cache.template_files import templates_fingerprint
from data.crops import object_image
from data.memory import free_space
from models.reconstruction import ReconstructionNetwork
from pipeline.reconstruction.config import ReconstructionConfig
from pipeline.reconstruction.dataset import ReconstructionData
from pipeline.reconstruction.model import Scene, load_trained, make_scene, predict
from rendering import rasterizer
from rendering.inverse import unwrap, visibility
from utils import distributed, files
from utils.cli import UserError
from utils.digests import file_digest
from utils.fid import (
    FeatureSample,
    InceptionFeatures,
    Moments,
    ProxyFeatures,
    StandardFeatures,
    fingerprint,
)
from utils.progress import progress
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)

MIN_RENDER_SIZE = 1024


def generate(device: torch.device, config: ReconstructionConfig) -> None:
    """Writes the pseudo-ground-truth of all images with a pose, and statistics of all photographs.

    Raises:
        UserError: if there is no checkpoint, or its network lacks a texture or a part head.
    """
    rasterizer.set_backend(config.rasterizer)
    network, data, config, path = load_trained(config, device)
    configure_logging(config.folder / "log.txt")
    if config.model.prediction_type != "both":
        raise UserError(
            f"{path} was trained with --prediction_type {config.model.prediction_type}; "
            "pseudo-ground-truth needs --prediction_type both."
        )
    logger.info("exporting %s for %d images", path, len(data))
    _begin(config, path, data)
    missing = [i for i in distributed.shard(len(data)) if not _item_path(config, i).exists()]
    _check_disk(config, data, len(missing) * distributed.world_size())
    scene = make_scene(data, device)
    batches = [
        missing[i : i + config.batch_size] for i in range(0, len(missing), config.batch_size)
    ]
    for batch in progress(batches, description="pseudo-ground-truth"):
        items = make_items(network, scene, data, batch, config.export.pseudogt_resolution, device)
        for index, item in zip(batch, items, strict=True):
            pseudo_files.save_pseudo_item(
                config.data.dataset,
                config.export.pseudogt_resolution,
                config.data.mode,
                index,
                item,
            )
    distributed.barrier()
    if distributed.is_main():
        pseudo_files.save_metadata(config.data.dataset, config.data.mode, _metadata(data))
    _write_statistics(data, config, device)
    logger.info("wrote %s", _folder(config))


def _check_disk(config: ReconstructionConfig, data: ReconstructionData, count: int) -> None:
    """Tells how much disk the missing items take, and refuses to begin without that much."""
    resolution = config.export.pseudogt_resolution
    parts, maps = 1 + len(data.part_names), config.model.texture_resolution
    wanted, free = (
        count * pseudo_files.item_bytes(resolution, parts, maps),
        free_space(_folder(config)),
    )
    logger.info("%d items take up to %.2f GB", count, wanted / 1e9)
    if wanted > free:
        raise UserError(
            f"{_folder(config)}: {count} items take up to {wanted / 1e9:.1f} GB, but the disk has "
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
    index = torch.tensor(indices)
    labels = data.labels.select(index).to(device)
    image = torch.stack([data[i].image for i in indices]).to(device)
    prediction = predict(network, scene, image, labels)
    assert prediction.parts is not None
    assert prediction.texture is not None
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
    size = max(MIN_RENDER_SIZE, 2 * resolution)
    pictures = torch.stack([object_image(data.detection(i), size) for i in indices])
    pixels, covered = unwrap(pictures.to(screen.device), screen, scene.sphere, resolution)
    seen = visibility(scene.sphere, screen, min(coarse, size // 8), size)
    target = (resolution, resolution)
    seen = F.interpolate(seen, target, mode="bilinear", align_corners=False) > 0
    return pixels[:, :3] * seen, covered * seen * pixels[:, 3:]


def _metadata(data: ReconstructionData) -> pseudo_files.PoseMetadata:
    pose = data.labels.pose
    return pseudo_files.PoseMetadata(
        scale=pose.scale,
        translation=F.pad(pose.translation, (0, 1)),
        rotation=pose.rotation,
        z0=pose.z0,
        category=data.labels.category,
        paths=[data.detection(i).image_path for i in range(len(data))],
        templates=templates_fingerprint(data.templates),
    )


def _folder(config: ReconstructionConfig) -> Path:
    return pseudo_files.pseudo_folder(
        config.data.dataset, config.export.pseudogt_resolution, config.data.mode
    )


def _item_path(config: ReconstructionConfig, index: int) -> Path:
    return _folder(config) / f"{index}.npz"


def _begin(config: ReconstructionConfig, path: Path, data: ReconstructionData) -> None:
    """Removes the items of another export: of another checkpoint, other poses or templates."""
    if distributed.is_main():
        poses = [pose_files.poses_path(d.dataset, config.data.mode) for d in data.detections]
        source = {str(p): file_digest(p) for p in [path, *poses]}
        source["templates"] = templates_fingerprint(data.templates)
        record = pseudo_files.source_path(_folder(config))
        if not record.exists() or files.read_json(record) != source:
            record.unlink(missing_ok=True)
            for item in pseudo_files.pseudo_item_paths(
                config.data.dataset, config.export.pseudogt_resolution, config.data.mode
            ):
                item.unlink()
            files.write_json(record, source)
    distributed.barrier()


def _write_statistics(
    data: ReconstructionData, config: ReconstructionConfig, device: torch.device
) -> None:
    """Writes feature statistics of all detections, with or without a pose, for the GAN's evaluation."""
    if sum(map(len, data.detections)) < 2:
        logger.warning("no statistics of the photographs: %s has only one", config.data.dataset)
        return
    networks: dict[feature_statistics.Features, ProxyFeatures | InceptionFeatures] = {
        "proxy": ProxyFeatures()
    }
    if config.export.standard_fid is not None:
        networks["standard_fid"] = StandardFeatures(config.export.standard_fid)
    try:
        networks["fid"] = InceptionFeatures(config.export.inception_weights)
    except UserError as error:
        if config.export.inception_weights is not None:
            raise
        logger.warning("no statistics for FID, only for the proxy distance: %s", error)
    for key, network in networks.items():
        statistics = _statistics(data, config, network, device)
        if distributed.is_main():
            feature_statistics.save_statistics(config.data.dataset, statistics, key)
    distributed.barrier()


@torch.no_grad()
def _statistics(
    data: ReconstructionData,
    config: ReconstructionConfig,
    network: ProxyFeatures | InceptionFeatures,
    device: torch.device,
) -> feature_statistics.FeatureStatistics:
    items = [item for detections in data.detections for item in detections.items]
    moments, sample = Moments(network.dimension, device), FeatureSample(len(items))
    network = network.to(device)
    mine = distributed.shard(len(items))
    steps = range(mine.start, mine.stop, config.batch_size)
    for start in progress(steps, description=f"image statistics ({network.name})"):
        numbers = range(start, min(start + config.batch_size, mine.stop))
        crops = [object_image(items[i], pseudo_files.IMAGE_RESOLUTION)[:3] for i in numbers]
        features = network(torch.stack(crops).to(device) / 2 + 0.5)  # on grey
        moments.update(features)
        sample.update(features, numbers)
    moments.reduce()
    mean, covariance = moments.result()
    return feature_statistics.FeatureStatistics(
        mean.numpy(),
        covariance.numpy(),
        moments.count,
        sample.result().numpy(),
        network=fingerprint(network),
        images=feature_statistics.common_fingerprint([d.fingerprint for d in data.detections]),
    )
