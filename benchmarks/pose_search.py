"""Compares the two searches of stage 1 on the same images: `python -m benchmarks.pose_search`.

Prints, for each search, the seconds an image takes, the overlap of its best hypothesis, the rotation
error of that one, and the share of images of which any hypothesis is right; the last line is JSON.
The images are spread evenly over the collection. Setting up (the views of the grid, compilation) is
not counted: it is done once.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import pose_optimization_step1
from data.cache import folders, template_files
from data.cache.pose_files import Hypotheses
from data.crops import ObjectImages
from data.detections import load_detections
from data.ground_truth import load_ground_truth
from geometry import quaternion
from geometry.camera import Pose
from pipeline.poses.options import SearchOptions
from pipeline.poses.step1 import IMAGES_PER_BATCH, make_search
from utils.cli import MODES, UserError, positive_int, run
from utils.options import build


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="photobirds", help="prepared, with true poses")
    parser.add_argument("--mode", choices=MODES, default="singletpl", help="templates to fit")
    parser.add_argument("--num_images", type=positive_int, default=48, help="images to search")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs both searches and prints a table and one line of JSON."""
    options = build_parser().parse_args(argv)
    # As in the stage, whose loops have threads of their own
    torch.set_num_threads(1)
    masks, truth = load(options.dataset, options.num_images)
    results = compare(options.dataset, options.mode, masks, truth)
    print(f"{'search':10}{'s/image':>9}{'IoU':>8}{'median':>9}{'< 30':>8}{'any < 30':>10}")  # noqa: T201
    for name, r in results.items():
        print(  # noqa: T201
            f"{name:10}{r['seconds_per_image']:9.3f}{r['iou']:8.4f}{r['median_degrees']:8.1f}°"
            f"{r['share_under_30']:8.1%}{r['share_any_under_30']:10.1%}"
        )
    faster = results["reference"]["seconds_per_image"] / results["contour"]["seconds_per_image"]
    machine = {"torch": torch.__version__, "cpu": platform.processor()}
    threads = os.environ.get("TMG_THREADS") or os.cpu_count()
    record = {**machine, "threads": threads, **vars(options), "faster": faster, **results}
    print(json.dumps(record))  # noqa: T201


def load(dataset: str, count: int) -> tuple[Tensor, Tensor]:
    """Reads masks (N, 256, 256) and true rotations (N, 4), evenly spread over a collection."""
    detections = load_detections(dataset)
    truth = load_ground_truth(detections)
    if truth is None:
        raise UserError(f"--dataset {dataset}: has no ground_truth.npz to compare with.")
    # Evenly spread, as neighbors often show the same scene
    rows = torch.linspace(0, len(detections) - 1, min(count, len(detections))).round().long()
    images = ObjectImages(detections, 256, rows=rows)
    return torch.stack([images[i].image[3] for i in range(len(rows))]), truth.rotation[rows]


def compare(dataset: str, mode: str, masks: Tensor, truth: Tensor) -> dict[str, dict[str, float]]:
    """Runs both searches batch by batch in turn, so that a busy machine slows both alike."""
    searches = {name: open_search(name, dataset, mode) for name in ("contour", "reference")}
    seconds = dict.fromkeys(searches, 0.0)
    found: dict[str, list[Hypotheses]] = {name: [] for name in searches}
    # Compilation and the views of the grid are not counted
    for search in searches.values():
        search(masks[:1])
    for together in masks.split(max(IMAGES_PER_BATCH.values())):
        for name, search in searches.items():
            start = time.perf_counter()
            found[name] += [search(batch) for batch in together.split(IMAGES_PER_BATCH[name])]
            seconds[name] += time.perf_counter() - start
    return {
        name: {"seconds_per_image": seconds[name] / len(masks), **judge(join(parts), truth)}
        for name, parts in found.items()
    }


def open_search(name: str, dataset: str, mode: str) -> Callable[[Tensor], Hypotheses]:
    """Returns a search with the options that stage 1 would have."""
    command = ["--dataset", dataset, "--mode", mode, "--search", name]
    args = pose_optimization_step1.build_parser().parse_args(command)
    search = build(SearchOptions, vars(args))
    record = folders.record_of(dataset)
    templates = template_files.load_templates(record.template_of, mode, dataset)
    return make_search(search, mode, record.views, templates)


def judge(found: Hypotheses, truth: Tensor) -> dict[str, float]:
    """Compares hypotheses with the true rotations (N, 4)."""
    degrees = quaternion.angle_between(found.pose.rotation, truth[:, None])
    # The hypothesis of the highest overlap, as a single pose
    best = degrees.gather(1, found.iou.argmax(dim=1, keepdim=True))
    return {
        "iou": found.iou.amax(dim=1).mean().item(),
        "median_degrees": best.quantile(0.5).item(),
        "share_under_30": (best < 30).float().mean().item(),
        "share_any_under_30": (degrees.amin(dim=1) < 30).float().mean().item(),
        "hypotheses": found.iou.shape[1],
    }


def join(parts: list[Hypotheses]) -> Hypotheses:
    """Joins the hypotheses of batches of images."""
    poses, weights, ious = zip(*parts, strict=True)
    pose = Pose(*(torch.cat(members) for members in zip(*poses, strict=True)))
    return Hypotheses(pose, torch.cat(weights), torch.cat(ious))


if __name__ == "__main__":
    run(main)
