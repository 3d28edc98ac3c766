"""Calibration of pose confidence: `python -m benchmarks.pose_confidence --dataset NAME`.

Runs after stage 2; all images are covered only with `pose_optimization_step2.py --keep_share 1`. Prints,
for the most confident half of the poses, four fifths and so on, the lowest and the mean confidence, the
share of poses that are right (rotations within 30 degrees of the truth; azimuths within 45 of the label
where only those are known) and the median error; the last line is JSON. `--view left` takes a level
view for the truth, for photographs that all show the same side.
"""

import argparse
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.pose_errors import VIEWS, load_truth
from data.cache import pose_files, template_files
from data.detections import load_detections
from utils.cli import MODES, run

SHARES = (0.5, 0.8, 0.9, 1.0)
BINS = 10  # of equal width, of the calibration error


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="after stage 2")
    parser.add_argument("--mode", choices=MODES, default="singletpl", help="templates")
    parser.add_argument("--view", choices=VIEWS, help="what all photographs show (default: ground_truth.npz or views.json)")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table and one line of JSON."""
    options = build_parser().parse_args(argv)
    confidence, degrees, near = compare(options.dataset, options.mode, options.view)
    table = judge(confidence, degrees, near)
    error = calibration_error(confidence, degrees <= near)
    print(f"{'most confident':>14}{'lowest':>8}{'mean':>8}{f'<= {near:.0f}':>8}{'median':>9}")  # noqa: T201
    for row in table:
        print(  # noqa: T201
            f"{row['images']:14}{row['lowest']:8.1%}{row['mean']:8.1%}"
            f"{row['share_near']:8.1%}{row['median_degrees']:8.1f}°"
        )
    print(f"expected calibration error {error:.3f}, {BINS} bins of equal width")  # noqa: T201
    print(json.dumps({**vars(options), "table": table, "calibration_error": error}))  # noqa: T201


def compare(dataset: str, mode: str, view: str | None) -> tuple[Tensor, Tensor, float]:
    """Compares the poses of a dataset with what is known.

    Returns:
        The confidences (K,) and errors (K,) in degrees of the K poses of which something is known,
        and the largest error of a right one.
    """
    detections = load_detections(dataset)
    templates = template_files.templates_of(detections, mode)
    origin = pose_files.origin_of(detections, templates)
    poses = pose_files.load_estimated_poses(dataset, mode, origin)
    truth = load_truth(detections, view)
    # Poses without a known view are left out
    known = truth.known[poses.indices]
    degrees = truth.errors(poses.pose.rotation, poses.indices)
    return poses.confidence[known, 0], degrees[known], truth.near


def judge(confidence: Tensor, degrees: Tensor, near: float) -> list[dict[str, float]]:
    """Compares confidences (K,) with errors in degrees (K,), for growing shares of the images."""
    order = confidence.argsort(descending=True, stable=True)
    rows = [order[: max(1, round(share * len(order)))] for share in SHARES]
    return [
        {
            "images": len(row),
            "lowest": confidence[row].amin().item(),
            "mean": confidence[row].mean().item(),
            "share_near": (degrees[row] <= near).float().mean().item(),
            "median_degrees": degrees[row].quantile(0.5).item(),
        }
        for row in rows
    ]


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Returns the expected calibration error, Eq. 3 of https://arxiv.org/abs/1706.04599.

    The mean over images of the distance between the mean confidence of their bin and the share of
    right ones in it.

    Args:
        confidence: (K,) in [0, 1].
        right: (K,) bool.
    """
    label = (confidence * BINS).long().clamp(max=BINS - 1)
    # Summed over a bin: its mean excess of confidence times its size
    excess = torch.zeros(BINS, dtype=torch.float64)
    excess.index_add_(0, label, confidence.double() - right.double())
    return (excess.abs().sum() / len(confidence)).item()


if __name__ == "__main__":
    run(main)
