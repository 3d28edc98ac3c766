"""Tells whether the confidence of poses is right: `python -m benchmarks.pose_confidence --dataset NAME`.

After stage 2, and for all images only if it kept all of them: `pose_optimization_step2.py --keep_share 1`.
Prints, for the most confident half of the poses, four fifths and so on, the lowest and the mean
confidence, the share of rotations within 30 degrees of the truth, and the median error; the last line
is JSON. `--view left` takes a level view for the truth, for photographs that all show the same side.
"""

import argparse
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from data.cache import pose_files
from data.cache.pose_files import EstimatedPoses
from data.detections import load_detections
from data.ground_truth import load_ground_truth
from geometry import quaternion
from utils.cli import MODES, UserError, run

VIEWS = {"right": 0.0, "towards": 90.0, "left": 180.0, "away": 270.0}  # where the front points
NEAR = 30.0
SHARES = (0.5, 0.8, 0.9, 1.0)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="after stage 2")
    parser.add_argument("--mode", choices=MODES, default="singletpl", help="templates")
    parser.add_argument("--view", choices=VIEWS, help="what all photographs show (default: ground_truth.npz)")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table and one line of JSON."""
    options = build_parser().parse_args(argv)
    poses, degrees = compare(options.dataset, options.mode, options.view)
    table = judge(poses.confidence[:, 0], degrees)
    print(f"{'most confident':>14}{'lowest':>8}{'mean':>8}{'< 30':>8}{'median':>9}")  # noqa: T201
    for row in table:
        print(  # noqa: T201
            f"{row['images']:14}{row['lowest']:8.1%}{row['mean']:8.1%}"
            f"{row['share_under_30']:8.1%}{row['median_degrees']:8.1f}°"
        )
    print(json.dumps({**vars(options), "table": table}))  # noqa: T201


def compare(dataset: str, mode: str, view: str | None) -> tuple[EstimatedPoses, Tensor]:
    """Returns the estimated poses of K images and the errors (K,) of their rotations in degrees."""
    detections = load_detections(dataset)
    poses = pose_files.load_estimated_poses(dataset, mode, detections.fingerprint)
    if view is not None:
        truth = quaternion.from_view(*torch.tensor([VIEWS[view], 0.0, 0.0]))
    else:
        known = load_ground_truth(detections)
        if known is None:
            raise UserError(
                f"datasets/{dataset}/ has no ground_truth.npz to compare with. "
                "If all photographs show the same side, name it: --view left"
            )
        truth = known.rotation[poses.indices]
    return poses, quaternion.angle_between(poses.pose.rotation, truth)


def judge(confidence: Tensor, degrees: Tensor) -> list[dict[str, float]]:
    """Compares confidences (K,) with errors in degrees (K,), for growing shares of the images."""
    order = confidence.argsort(descending=True, stable=True)
    rows = [order[: max(1, round(share * len(order)))] for share in SHARES]
    return [
        {
            "images": len(row),
            "lowest": confidence[row].amin().item(),
            "mean": confidence[row].mean().item(),
            "share_under_30": (degrees[row] < NEAR).float().mean().item(),
            "median_degrees": degrees[row].quantile(0.5).item(),
        }
        for row in rows
    ]


if __name__ == "__main__":
    run(main)
