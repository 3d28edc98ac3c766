"""Compares the two searches of stage 1 on the same images: `python -m benchmarks.pose_search`.

With `--silhouettes`, it compares the ways to compare silhouettes instead, within the default search. Prints, for each search, the seconds an image takes, the overlap of its best hypothesis, the rotation
error of that one, and the share of images of which any hypothesis is right; the last line is JSON.
The images are spread evenly over the collection. Setting up (the views of the grid, compilation) is
not counted: it is done once.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence

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

Search = tuple[Callable[[Tensor], Hypotheses], int]  # and its images per batch
SEARCHES = {name: ("--search", name) for name in ("contour", "reference")}
SILHOUETTES = {
    "raster": ("--silhouette", "raster"),
    "volume": ("--silhouette", "volume"),
    "volume 32": ("--silhouette", "volume", "--point_grid", "32"),
    "cover": ("--silhouette", "cover"),
}


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="photobirds", help="prepared, with true poses")
    parser.add_argument("--mode", choices=MODES, default="singletpl", help="templates to fit")
    parser.add_argument("--silhouettes", action="store_true", help="compare silhouette terms")
    parser.add_argument("--num_images", type=positive_int, default=48, help="images to search")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs both searches and prints a table and one line of JSON."""
    options = build_parser().parse_args(argv)
    # As in the stage, whose loops have threads of their own
    torch.set_num_threads(1)
    masks, truth = load(options.dataset, options.num_images)
    commands = SILHOUETTES if options.silhouettes else SEARCHES
    searches = {
        name: open_search(command, options.dataset, options.mode)
        for name, command in commands.items()
    }
    results = compare(searches, masks, truth)
    print(f"{'':10}{'s/image':>9}{'IoU':>8}{'median':>9}{'< 30':>8}{'any < 30':>10}")  # noqa: T201
    for name, r in results.items():
        print(  # noqa: T201
            f"{name:10}{r['seconds_per_image']:9.3f}{r['iou']:8.4f}{r['median_degrees']:8.1f}°"
            f"{r['share_under_30']:8.1%}{r['share_any_under_30']:10.1%}"
        )
    fastest, slowest = (f(r["seconds_per_image"] for r in results.values()) for f in (min, max))
    machine = {"torch": torch.__version__, "cpu": platform.processor()}
    threads = os.environ.get("TMG_THREADS") or os.cpu_count()
    record = {
        **machine,
        "threads": threads,
        **vars(options),
        "faster": slowest / fastest,
        **results,
    }
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


def compare(
    searches: Mapping[str, Search], masks: Tensor, truth: Tensor
) -> dict[str, dict[str, float]]:
    """Runs all searches batch by batch in turn, so that a busy machine slows all alike."""
    seconds = dict.fromkeys(searches, 0.0)
    found: dict[str, list[Hypotheses]] = {name: [] for name in searches}
    # Compilation and the views of the grid are not counted
    for search, _ in searches.values():
        search(masks[:1])
    for together in masks.split(max(IMAGES_PER_BATCH.values())):
        for name, (search, size) in searches.items():
            start = time.perf_counter()
            found[name] += [search(batch) for batch in together.split(size)]
            seconds[name] += time.perf_counter() - start
    return {
        name: {"seconds_per_image": seconds[name] / len(masks), **judge(join(parts), truth)}
        for name, parts in found.items()
    }


def open_search(options: Sequence[str], dataset: str, mode: str) -> Search:
    """Returns a search with the options that stage 1 would have, and its images per batch."""
    command = ["--dataset", dataset, "--mode", mode, *options]
    args = pose_optimization_step1.build_parser().parse_args(command)
    search = build(SearchOptions, vars(args))
    record = folders.record_of(dataset)
    templates = template_files.load_templates(record.template_of, mode, dataset)
    return make_search(search, mode, record.views, templates), IMAGES_PER_BATCH[search.search]


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
