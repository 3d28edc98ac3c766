"""Features of the crops of a dataset, kept on disk: cache/<dataset>/features_<key>.npy.

The key stands for network, crops and photographs. Rows are written as they are computed, so that an
interrupted run continues; each process writes those of its own shard.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.cache.folders import cache_folder
from data.crops import ObjectImages
from data.detections import Detections
from utils import distributed
from utils.cli import UserError
from utils.progress import progress

logger = logging.getLogger(__name__)

BATCH = 8  # crops at a time


def feature_maps(
    detections: Detections,
    compute: Callable[[Tensor], Tensor],
    digest: str,
    size: int,
) -> np.ndarray:
    """Returns the features (N, D, s, s) of all crops as a read-only array on disk, float16.

    Args:
        detections: the N objects.
        compute: maps crops (n, 4, size, size) to features (n, D, s, s).
        digest: text that changes with `compute`.
        size: pixels of the crops.

    Raises:
        UserError: if the file of an earlier run is damaged.
    """
    key = _key(detections, digest, size)
    path = cache_folder(detections.dataset) / f"features_{key}.npy"
    if not path.exists():
        _compute_all(path, detections, compute, size)
    distributed.barrier()
    try:
        maps = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged ({error}). Delete it; it is made again.") from None
    return maps


def _compute_all(
    path: Path, detections: Detections, compute: Callable[[Tensor], Tensor], size: int
) -> None:
    """Fills an array beside `path` and gives it its name when all processes are done."""
    # The first process makes room, unless an earlier run has
    dataset = ObjectImages(detections, size, antialias=True)
    partial, flags = (
        path.with_name(f".{path.stem}.partial.npy"),
        path.with_name(f".{path.stem}.done"),
    )
    if distributed.is_main() and not (partial.exists() and flags.exists()):
        shape = compute(dataset[0].image[None]).shape[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(partial, "w+", np.float16, (len(dataset), *shape)).flush()
        flags.write_bytes(bytes(len(dataset)))
    distributed.barrier()
    # Every process fills the rows of its shard that are missing
    maps, done = np.load(partial, mmap_mode="r+"), np.memmap(flags, np.uint8, "r+")
    rows = [row for row in distributed.shard(len(dataset)) if not done[row]]
    start = time.monotonic()
    with progress(total=len(rows), description="features") as bar:
        for begin in range(0, len(rows), BATCH):
            chosen = rows[begin : begin + BATCH]
            images = torch.stack([dataset[row].image for row in chosen])
            maps[chosen] = compute(images).cpu().numpy().astype(np.float16)
            maps.flush()
            done[chosen] = 1
            bar.update(len(chosen))
    if rows and distributed.is_main():
        seconds = (time.monotonic() - start) / len(rows)
        logger.info("features: %.3f s per image, kept in %s", seconds, path)
    distributed.barrier()
    # Complete, the array takes its name
    if distributed.is_main():
        os.replace(partial, path)
        flags.unlink()


def _key(detections: Detections, digest: str, size: int) -> str:
    """Returns a text that changes with the network, the crops and the photographs."""
    key = hashlib.sha256(f"{digest} {size} {detections.fingerprint}".encode())
    for item in detections.items:
        status = os.stat(item.image_path)
        line = f"{item.image_path} {status.st_size} {status.st_mtime_ns}\n"
        key.update(os.fsencode(line))
    return key.hexdigest()[:16]
