"""A small stand-in for the published archives, in the formats that the predecessor wrote."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from models.conditions import Conditions
from models.generator import Generator
from models.reconstruction import ReconstructionNetwork

COUNT = 4
RESOLUTION = 128
IMAGE = (48, 64)  # height, width


def _save_object(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez_compressed(path, data=content)
    else:
        np.save(path, content, allow_pickle=True)


def _rle(top: int, left: int) -> Any:
    mask = np.zeros(IMAGE, np.uint8, order="F")
    mask[top:40, left:50] = 1
    return coco_mask.encode(mask)


def write_cache(root: Path, dataset: str = "cub") -> None:
    """Writes cache/<dataset>/ and the photographs behind it below a folder."""
    cache = root / "cache" / dataset
    paths = [f"datasets/{dataset}/images/{i}.jpg" for i in range(COUNT)]
    rng = np.random.default_rng(0)
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*IMAGE, 3), np.uint8)).save(root / path)
    rows = [_detection(i, path) for i, path in enumerate(paths)]
    _save_object(cache / "detections.npy", np.array(rows, dtype=object))
    _write_poses(cache, paths)
    for i in range(COUNT):
        item = {
            "mesh": torch.rand(3, 32, 32) * 0.1,
            "seg": torch.rand(2, 128, 128).softmax(0),
            "texture": (torch.rand(3, RESOLUTION, RESOLUTION) * 2 - 1).half(),
            "texture_alpha": torch.ones(1, RESOLUTION, RESOLUTION).half(),
            "image": torch.zeros(4, 299, 299).half(),
            "category": 0,
        }
        _save_object(cache / f"pseudogt_{RESOLUTION}x{RESOLUTION}_singletpl" / f"{i}.npz", item)


def _detection(number: int, path: str) -> dict:
    head = {"class": "head", "class_id": 14, "class_id_vg3k": 1349, "score": 0.7}
    head |= {"bbox": np.array([[10, 5, 20, 39]], np.float32), "mask": _rle(5, 40)}
    return {
        "id": number,
        "class": "bird",
        "class_id": 5,
        "image_height": IMAGE[0],
        "image_width": IMAGE[1],
        "image_path": path,
        "score": np.float32(0.9),
        "bbox": np.array([[10, 5 + number, 49, 39]], np.float32),
        "mask": _rle(5 + number, 10),
        "num_parts": 1,
        "parts": [{**head, "frequency": 1.0}],
    }


def _write_poses(cache: Path, paths: list[str]) -> None:
    torch.manual_seed(0)
    rotation = torch.nn.functional.normalize(torch.randn(COUNT, 4), dim=1)
    pose = {"s": torch.full((COUNT, 1), 0.6), "t": torch.zeros(COUNT, 2)}
    pose |= {"R": rotation, "z0": torch.full((COUNT, 1), 2.0), "w": torch.ones(COUNT, 1)}
    many = {key: value[:, None] for key, value in pose.items()}
    torch.save(
        many | {"iou": torch.rand(COUNT, 1)}, cache / "camera_hypotheses_silhouette_singletpl.bin"
    )
    scores = {"iou": torch.rand(COUNT, 1), "miou": torch.rand(COUNT, 1)}
    torch.save(
        pose | scores | {"indices": torch.arange(COUNT)}, cache / "poses_estimated_singletpl.bin"
    )
    metadata = {
        "scale": pose["s"],
        "translation": torch.zeros(COUNT, 3),
        "rotation": rotation,
        "z0": pose["z0"],
        "category": torch.arange(COUNT) * (cache.name == "all"),
        "path": paths,
    }
    _save_object(cache / "poses_metadata_singletpl.npz", metadata)
    features = np.random.default_rng(1).random((COUNT + 5, 2048), dtype=np.float32)
    np.savez(
        cache / "precomputed_fid_299x299.npz",
        stats_m=features.mean(0),
        stats_s=np.tril(np.cov(features.T)).astype(np.float32),
        num_images=np.int64(2),
        resolution=np.int64(299),
    )


@functools.cache
def _weights(classes: int) -> dict[str, torch.Tensor]:
    """The state of an averaged generator."""
    torch.manual_seed(0)
    generator = Generator(RESOLUTION, num_classes=classes)
    generator.conv_mesh.weight.data.normal_(std=0.01)
    with torch.no_grad():
        for _ in range(3):  # power iterations
            generator(torch.randn(2, 64), Conditions(torch.tensor([0, 1]) if classes else None))
    shrunk = ("weight_u", "weight_v")  # the average of unit vectors is shorter than one
    state = generator.state_dict()
    return {key: value * (0.9 if key.endswith(shrunk) else 1) for key, value in state.items()}


def write_checkpoint(
    root: Path, name: str, mesh: str = "uvsphere_31rings.obj", classes: int = 0
) -> Path:
    """Writes checkpoints_gan/<name>/checkpoint_latest.pth below a folder: the averaged generator."""
    args = {
        "texture_resolution": RESOLUTION,
        "latent_dim": 64,
        "norm_g": "syncbatch",
        "conditional_class": classes > 0,
        "conditional_semantics": False,
        "texture_only": False,
        "mesh_path": f"mesh_templates/{mesh}",
        "n_classes": (classes or 1,),
    }
    path = root / "checkpoints_gan" / name / "checkpoint_latest.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"generator_running_avg": _weights(classes), "args": args}, path)
    return path


def write_reconstruction(root: Path, name: str, **changes: Any) -> Path:
    """Writes checkpoints_recon/<name>/checkpoint_latest.pth: weights with the published prefix."""
    torch.manual_seed(0)
    network = ReconstructionNetwork(num_parts=2)
    args = {"image_resolution": 256, "texture_resolution": 128, "prediction_type": "both"}
    args |= {"norm_g": "syncbatch", "mesh_path": "autodetect", **changes}
    weights = {f"module.{key}": value for key, value in network.state_dict().items()}
    path = root / "checkpoints_recon" / name / "checkpoint_latest.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"generator": weights, "args": args}, path)
    return path
